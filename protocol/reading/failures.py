"""Failures that stand within an answer: where they stand, and the codes that they mean."""

import re
from typing import Any, Final

from protocol.errors import ProviderError
from protocol.reading.loose import place_of, text_of
from protocol.refusals import refusal_of

_NO_FAILURE: Final = ("", "0", "200", "ok", "success", "true", "none")  # codes beside a message, lower-case
_CODES: Final = ("error_code", "errorcode", "err_code", "errCode", "errorCode")  # name an error, also beside an answer
_TEXTS: Final = ("error_msg", "error_message", "errorMessage", "err_msg")
_PLAIN_CODES: Final = (
    "code",
    "status_code",
    "statusCode",
    "status",
)  # beside an answer only those of HTTP are failures
_STATUS: Final = re.compile(r"[45][0-9]{2}")
_GROUPS: Final = ("x_groq", "delta", "message")  # objects in an answer that may hold its error


def failure_in(value: Any, name: str = "") -> ProviderError | None:  # noqa: ANN401 - any JSON
    """Return the failure that the JSON of an event or of a whole body reports; None for none.

    Args:
        value: the JSON.
        name: of the server-sent event; one that is named ``error`` is a failure, whatever its data.
    """
    if isinstance(value, list):
        found = (failure_in(item) for item in value if isinstance(item, dict))
        return next((failure for failure in found if failure is not None), None)
    if not isinstance(value, dict):
        return _failure(value) if name == "error" else None
    answers = bool(value.get("choices") or value.get("content"))
    failure = _error_in(value, empty=not answers)
    if failure is not None:
        return failure
    if name == "error" or value.get("object") == "error" or value.get("type") == "error":
        return _failure(value)
    status = value.get("base_resp")
    if isinstance(status, dict) and place_of(status.get("status_code")):
        return refusal_of(0, status)
    return _beside(value) if answers else _flat(value)


def raise_found(failure: ProviderError | None) -> None:
    """Raise a failure that was found, if there is one.

    A function that raises what it has in a variable leaves a cycle: the failure's traceback holds the function's frame,
    and that the variable.
    """
    if failure is not None:
        try:
            raise failure
        finally:
            del failure


def failure_in_choice(choice: dict[str, Any]) -> ProviderError | None:
    """Return the failure that a choice of an answer reports, by itself, in its delta or in its message."""
    return _error_in(choice, empty=False)


def _error_in(value: dict[str, Any], *, empty: bool) -> ProviderError | None:
    """Return the failure in an object's error, or in that of one of its groups.

    Args:
        value: the object.
        empty: whether an empty error is one, too.
    """
    error = value.get("error")
    if error or (error == {} and empty):
        return _failure(error, value)
    for name in _GROUPS:
        group = value.get(name)
        if isinstance(group, dict) and group.get("error"):
            return _failure(group["error"], group)
    return None


def _beside(value: dict[str, Any]) -> ProviderError | None:
    """Return the failure that the fields beside an answer report."""
    if any(_word(value, name) not in _NO_FAILURE for name in (*_CODES, *_TEXTS)):
        return _failure(value)
    if any(_STATUS.fullmatch(_word(value, name)) for name in _PLAIN_CODES):
        return _failure(value)
    return _failure(value) if value.get("success") is False or value.get("errors") else None


def _word(value: dict[str, Any], name: str) -> str:
    return text_of(value.get(name)).strip().lower()


def _flat(value: dict[str, Any]) -> ProviderError | None:
    """Return the failure of an object that has no content and may be an error itself."""
    if value.get("errors") or value.get("success") is False or isinstance(value.get("detail"), str):
        return _failure(value)
    message = value.get("message") or value.get("msg")
    if not isinstance(message, str):
        return None
    kind = text_of(value.get("type")).lower()
    code = text_of(value.get("code")).lower()
    if code not in _NO_FAILURE or (not code and (not kind or "error" in kind or "exception" in kind)):
        return _failure(value)
    return None


def _failure(error: Any, around: Any = None) -> ProviderError:  # noqa: ANN401 - any JSON
    """Return the failure of an error: an object, or anything else within the object ``around``."""
    if not isinstance(error, dict):
        error = around if isinstance(around, dict) else {}
    return refusal_of(0, error)
