"""The terminal event for an error."""

from protocol.errors import ActorError, AskTimeout, DeadlineExceeded, InternalError, TidegateError
from protocol.events import Failed
from protocol.secret_text import hide_in


def failure(error: Exception, timeout: float | None = None) -> Failed:
    """Return the terminal event for ``error``. It is safe to show: internal errors lose their text.

    Args:
        error: what went wrong.
        timeout: the seconds that the caller allowed, for the message of a missed deadline; None where nobody knows.
    """
    if isinstance(error, AskTimeout):
        error = DeadlineExceeded()
    elif not isinstance(error, TidegateError) or (isinstance(error, ActorError) and not error.problem.temporary):
        error = InternalError()
    if isinstance(error, DeadlineExceeded) and timeout is not None:
        error = error.within(timeout)
    hide_in(error)
    retry_after = error.retry_after
    return Failed(
        code=error.code,
        message=error.detail,
        temporary=error.problem.temporary,
        retry_after_ms=None if retry_after is None else round(retry_after * 1000),
        errors=error.errors,
    )
