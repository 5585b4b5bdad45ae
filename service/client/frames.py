"""What a client reads: the socket's frames, and failures as they were raised on the other side."""

from typing import Any, Final

import msgspec

from protocol import errors
from protocol.errors import PROBLEMS, FieldError, TidegateError
from protocol.llm import ReasoningPart, Usage

NO_RETURN: Final = range(4500, 4600)  # close codes after which a client does not come back
_STATUS_CODES: Final = {401: "unauthenticated", 403: "forbidden", 404: "not_found", 413: "body_too_large"}

_CLASSES: Final[dict[str, type[TidegateError]]] = {
    kind.code: kind
    for kind in (
        errors.InvalidRequest,
        errors.NotFound,
        errors.IdempotencyKeyReused,
        errors.UnrecoverablePosition,
        errors.AccessDenied,
        errors.TryAgainLater,
        errors.Overloaded,
        errors.ShuttingDown,
        errors.BudgetExceeded,
        errors.ProviderError,
        errors.SchemaMismatch,
        errors.DeadlineExceeded,
        errors.RequestCancelled,
        errors.ConfigurationError,
    )
}
_FAMILIES: Final[dict[str, type[TidegateError]]] = {
    "request": errors.InvalidRequest,
    "not_found": errors.NotFound,
    "authentication": errors.AccessDenied,
    "permission": errors.AccessDenied,
}


class _Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Camel-case JSON in which a field that we don't know is ignored."""


class AttemptFailedData(_Wire, frozen=True):
    """A call to the model's side that broke off; with ``restart`` all the content before it is void."""

    code: str = ""
    restart: bool = False


class Piece(_Wire, frozen=True):
    """A piece of a tool call: the first piece of call ``index`` has its id and name, each adds to its arguments."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class Content(_Wire, frozen=True):
    """The ``data`` of an ``update`` of a request."""

    delta: str = ""
    text: str = ""
    reasoning: str = ""
    tool_call: Piece | None = None
    tool_calls: tuple[Piece, ...] = ()
    partial: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    attempt_failed: AttemptFailedData | None = None


class Whole(_Wire, frozen=True):
    """The ``data`` of a ``complete``."""

    core_result: msgspec.Raw = msgspec.Raw(b"null")
    finish_reason: str = "stop"
    usage: Usage = Usage()
    reasoning: tuple[ReasoningPart, ...] = ()


class Acknowledged(_Wire, frozen=True):
    """The ``data`` of the ``ack`` to a subscription: where the log or the channel is."""

    epoch: str
    offset: int = 0
    state: str = "running"
    recovered: bool = True


class Dismissed(_Wire, frozen=True):
    """The ``data`` of a ``disconnect``."""

    reason: str = ""
    reconnect: bool = True
    delay_ms: int | None = None


class Member(_Wire, frozen=True):
    """Somebody who is in a channel.

    Attributes:
        user: who it is; empty for nobody in particular.
        client: at which of the user's clients.
        info: what it says of itself: JSON.
    """

    user: str = ""
    client: str = ""
    info: Any = None


class Coming(_Wire, frozen=True):
    """The ``data`` of a ``presence``, and of the ``ack`` to one."""

    action: str = "state"
    member: Member | None = None
    members: tuple[Member, ...] = ()


class FailureData(_Wire, frozen=True):
    """A failure as a frame or a problem says it."""

    code: str = ""
    message: str = ""
    detail: str = ""
    temporary: bool = False
    retry_after_ms: int | None = None
    errors: tuple[FieldError, ...] = ()


class Frame(_Wire, frozen=True):
    """A frame from the service; what its ``data`` is, its type says."""

    type: str
    id: int | str | None = None
    request_id: str = ""
    channel: str = ""
    event: str = ""
    first: int | None = msgspec.field(default=None, name="from")
    offset: int = 0
    epoch: str = ""
    snapshot: bool = False
    data: msgspec.Raw = msgspec.Raw(b"{}")
    error: FailureData = FailureData()
    terminal: bool = False


decode_frame: Final = msgspec.json.Decoder(Frame).decode
decode_content: Final = msgspec.json.Decoder(Content).decode
decode_whole: Final = msgspec.json.Decoder(Whole).decode
decode_acknowledged: Final = msgspec.json.Decoder(Acknowledged).decode
decode_dismissed: Final = msgspec.json.Decoder(Dismissed).decode
decode_coming: Final = msgspec.json.Decoder(Coming).decode
_decode_failure: Final = msgspec.json.Decoder(FailureData).decode


def failure_of(data: FailureData) -> TidegateError:
    """Return the failure that the service named: the class that a caller decides by, with the service's own words."""
    retry_after = None if data.retry_after_ms is None else data.retry_after_ms / 1000
    kind = _class_of(data.code)
    detail = data.detail or data.message
    failure = kind(detail) if kind is errors.SchemaMismatch else kind(detail, code=data.code, retry_after=retry_after)
    failure.errors = data.errors
    return failure


def failure_of_body(status: int, body: bytes) -> TidegateError:
    """Return the failure that an answer with this status stands for, whoever sent it."""
    try:
        data = _decode_failure(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        data = FailureData()
    if data.code:
        return failure_of(data)
    return failure_of_status(status)


def failure_of_status(status: int) -> TidegateError:
    """Return the failure that a bare HTTP status stands for."""
    if status >= 500:  # noqa: PLR2004 - where HTTP's server errors begin
        return errors.TryAgainLater(f"the server answered {status}", code="overloaded")
    code = _STATUS_CODES.get(status, "invalid_request")
    return failure_of(FailureData(code=code, detail=f"{PROBLEMS[code].title} ({status})"))


def failure_of_close(close_code: int) -> TidegateError:
    """Return the failure for which the service closed a socket with a code of ``NO_RETURN``."""
    code = next((code for code, problem in PROBLEMS.items() if problem.close == close_code), "internal_error")
    return failure_of(
        FailureData(code=code, detail=f"{PROBLEMS[code].title} (the socket was closed with {close_code})")
    )


def _class_of(code: str) -> type[TidegateError]:
    """Return the class for ``code``: the one that has it as its own, else its family's."""
    if code in _CLASSES:
        return _CLASSES[code]
    problem = PROBLEMS.get(code)
    if problem is None:
        return errors.InternalError
    if code.startswith("provider_") or code == "response_too_large":
        return errors.ProviderError
    if problem.temporary:
        return errors.TryAgainLater
    return _FAMILIES.get(problem.family, errors.InternalError)
