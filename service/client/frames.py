"""The frames that a client receives, and the errors in them as exceptions."""

from typing import Any, Final

import msgspec

from protocol import errors
from protocol.errors import PROBLEMS, FieldError, TidegateError
from protocol.llm import AnswerPart, Extra, ReasoningPart, Usage, Vendor

FATAL_CLOSE_CODES: Final = range(4500, 4600)  # close codes after which a client does not reconnect
_STATUS_CODES: Final = {401: "unauthenticated", 403: "forbidden", 404: "not_found", 413: "body_too_large"}

_CLASSES: Final[dict[str, type[TidegateError]]] = {
    kind.code: kind
    for kind in (
        errors.InvalidRequest,
        errors.NotFound,
        errors.IdempotencyKeyReused,
        errors.RequestGone,
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
    """Camel-case JSON; unknown fields are ignored."""


class AttemptFailedData(_Wire, frozen=True):
    """A failed call to the provider; with ``restart`` all content before it is void."""

    code: str = ""
    restart: bool = False


class ToolCallPiece(_Wire, frozen=True):
    """A piece of a tool call: the first piece of call ``index`` has its id and name, each adds to its arguments."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    extra: Extra = {}
    part: int | None = None


class VendorData(_Wire, frozen=True):
    """A block that only one vendor's dialect has."""

    dialect: Vendor
    value: msgspec.Raw


class UpdateData(_Wire, frozen=True):
    """The ``data`` of an ``update`` of a request."""

    delta: str = ""
    text: str = ""
    reasoning: str = ""
    signature: str = ""
    redacted: bool = False
    refusal: str = ""
    tool_call: ToolCallPiece | None = None
    tool_calls: tuple[ToolCallPiece, ...] = ()
    vendor: VendorData | None = None
    part: int = 0
    parts: tuple[AnswerPart, ...] | None = None
    partial: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    attempt_failed: AttemptFailedData | None = None


class CompleteData(_Wire, frozen=True):
    """The ``data`` of a ``complete``."""

    core_result: msgspec.Raw = msgspec.Raw(b"null")
    finish_reason: str = "stop"
    usage: Usage = Usage()
    reasoning: tuple[ReasoningPart, ...] = ()


class AckData(_Wire, frozen=True):
    """The ``data`` of the ``ack`` to a subscription: the position of the log or channel."""

    epoch: str
    offset: int = 0
    state: str = "running"
    recovered: bool = True


class DisconnectData(_Wire, frozen=True):
    """The ``data`` of a ``disconnect``."""

    reason: str = ""
    reconnect: bool = True
    delay_ms: int | None = None


class Member(_Wire, frozen=True):
    """A member of a channel.

    Attributes:
        user: the user; empty for an anonymous one.
        client: which of the user's clients.
        info: the member's own JSON.
    """

    user: str = ""
    client: str = ""
    info: Any = None


class PresenceData(_Wire, frozen=True):
    """The ``data`` of a ``presence`` frame, and of the ``ack`` to one."""

    action: str = "state"
    member: Member | None = None
    members: tuple[Member, ...] = ()


class FailureData(_Wire, frozen=True):
    """The error in a frame or in a problem+json body."""

    code: str = ""
    message: str = ""
    detail: str = ""
    temporary: bool = False
    retry_after_ms: int | None = None
    errors: tuple[FieldError, ...] = ()


class _Envelope(_Wire, frozen=True):
    """The body of an error in the form of the addresses under ``/v1/``."""

    error: FailureData = FailureData()


class Frame(_Wire, frozen=True):
    """A frame from the service; its type determines its ``data``."""

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
decode_update: Final = msgspec.json.Decoder(UpdateData).decode
decode_complete: Final = msgspec.json.Decoder(CompleteData).decode
decode_ack: Final = msgspec.json.Decoder(AckData).decode
decode_disconnect: Final = msgspec.json.Decoder(DisconnectData).decode
decode_presence: Final = msgspec.json.Decoder(PresenceData).decode
_decode_failure: Final = msgspec.json.Decoder(FailureData).decode
_decode_envelope: Final = msgspec.json.Decoder(_Envelope).decode


def failure_of(data: FailureData) -> TidegateError:
    """Return the exception for an error of the service, with the service's own message."""
    retry_after = None if data.retry_after_ms is None else data.retry_after_ms / 1000
    kind = _class_of(data.code)
    detail = data.detail or data.message
    failure = kind(detail) if kind is errors.SchemaMismatch else kind(detail, code=data.code, retry_after=retry_after)
    failure.errors = data.errors
    return failure


def failure_of_body(status: int, body: bytes) -> TidegateError:
    """Return the exception for a response of the service or of a proxy before it."""
    try:
        data = _decode_failure(body)
        if not data.code:
            data = _decode_envelope(body).error
            data = data if data.code in PROBLEMS else FailureData()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        data = FailureData()
    if data.code:
        return failure_of(data)
    return failure_of_status(status)


def failure_of_status(status: int) -> TidegateError:
    """Return the exception for an HTTP status without a problem."""
    if status >= 500:  # noqa: PLR2004 - where HTTP's server errors begin
        return errors.TryAgainLater(f"the server answered {status}", code="overloaded")
    code = _STATUS_CODES.get(status, "invalid_request")
    return failure_of(FailureData(code=code, detail=f"{PROBLEMS[code].title} ({status})"))


def failure_of_close(close_code: int) -> TidegateError:
    """Return the exception for a close code of ``FATAL_CLOSE_CODES``."""
    code = next((code for code, problem in PROBLEMS.items() if problem.close == close_code), "internal_error")
    return failure_of(
        FailureData(code=code, detail=f"{PROBLEMS[code].title} (the socket was closed with {close_code})")
    )


def _class_of(code: str) -> type[TidegateError]:
    """Return the exception class for ``code``: its own, else its family's."""
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
