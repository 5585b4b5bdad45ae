"""What the upstream dialects share: base URLs, deltas of content, refusals, and codes of HTTP statuses."""

from typing import Final, Literal, Protocol

import msgspec

from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, RefusalDelta, ToolCallDelta, VendorBlock
from protocol.llm import ContentPart, FinishReason, Usage, VendorPart

Deltas = list[Delta | ReasoningDelta | ToolCallDelta | RefusalDelta | VendorBlock]
Unit = Literal["calls", "tokens", "output"]

CONNECT_TIMEOUT: Final = 10.0  # seconds
BASE_URLS: Final = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}  # by dialect

_CODES: Final = {
    401: "provider_credentials",
    403: "provider_credentials",
    408: "provider_timeout",
    409: "provider_error",
    413: "provider_rejected",
    424: "provider_error",
    429: "provider_rate_limited",
    500: "provider_error",
    502: "provider_error",
    504: "provider_timeout",
}
_CLIENT_SIDE: Final = 400
_SERVER_SIDE: Final = 500


def code_of(status: int) -> str:
    """Return the error code of an upstream's HTTP status: a row of ``errors.PROBLEMS``."""
    code = _CODES.get(status)
    if code is None:
        if status >= _SERVER_SIDE:
            return "provider_unavailable"
        return "provider_rejected" if status >= _CLIENT_SIDE else "provider_bad_response"
    return code


def unsupported_part(part: ContentPart, dialect: str) -> ProviderError:
    """Return the failure of a request with a part that ``dialect`` does not have."""
    kind = part.value.get("type") if isinstance(part, VendorPart) else part.__struct_config__.tag
    message = f"A model behind {dialect}'s dialect can't be given this part: {str(kind)[:40]!r}"
    return ProviderError(message, code="provider_rejected")


def no_messages(dialect: str) -> ProviderError:
    """Return the failure of a request that has no message which ``dialect`` can be sent."""
    message = f"There is nothing to answer: an upstream of {dialect}'s dialect needs a message that is not empty"
    return ProviderError(message, code="provider_rejected")


class Allowance(msgspec.Struct, frozen=True):
    """A rate limit that an upstream reports in the headers of an answer.

    Attributes:
        unit: what it counts: ``calls``, input ``tokens``, or ``output`` tokens.
        remaining: the units left.
        limit: the units of a full limit; 0 where it is not reported.
        reset: seconds until the limit is full again.
    """

    unit: Unit
    remaining: int
    limit: int
    reset: float


class Refusal(ProviderError):
    """The upstream refused a call: its HTTP status is not 200.

    Attributes:
        limits: the rate limits that it reports; empty for none.
    """

    def __init__(self, *, code: str, retry_after: float | None = None, limits: tuple[Allowance, ...] = ()) -> None:
        super().__init__(code=code, retry_after=retry_after)
        self.limits = limits


class AnswerReader(Protocol):
    """Reads one streamed answer of a dialect, event by event."""

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the model stopped; None until the stream says so."""

    @property
    def stop_sequence(self) -> str:
        """The text at which it stopped; empty for none, and in dialects that don't report it."""

    @property
    def usage(self) -> Usage | None:
        """Tokens; None until they are reported."""

    @property
    def model(self) -> str:
        """The upstream's name of the model; empty until the stream says so."""

    @property
    def response_id(self) -> str:
        """The upstream's id of the answer; empty until the stream says so."""

    @property
    def ended(self) -> bool:
        """Whether the stream's end marker has been read."""

    @property
    def whole(self) -> bool:
        """Whether the answer is complete, also if the stream ends now."""

    def feed(self, data: bytes, into: Deltas) -> None:
        """Read the data of one event and append its content to ``into``.

        Raises:
            ProviderError: the data can't be read, or reports a failure.
        """
