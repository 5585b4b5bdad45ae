"""What the upstream dialects have in common: addresses, content as it is read, refusals, and what a status means."""

from typing import Final, Literal, Protocol

import msgspec

from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, ToolCallDelta
from protocol.llm import ContentPart, FinishReason, Usage, VendorPart

Deltas = list[Delta | ReasoningDelta | ToolCallDelta]
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
    """Return the code of an upstream's refusal: a row of ``errors.PROBLEMS``."""
    code = _CODES.get(status)
    if code is None:
        if status >= _SERVER_SIDE:
            return "provider_unavailable"
        return "provider_rejected" if status >= _CLIENT_SIDE else "provider_bad_response"
    return code


def unsupported_part(part: ContentPart, dialect: str) -> ProviderError:
    """Return the failure of a request with a part that ``dialect`` has no words for."""
    kind = part.value.get("type") if isinstance(part, VendorPart) else "file"
    message = f"A model behind {dialect}'s dialect can't be given this part: {str(kind)[:40]!r}"
    return ProviderError(message, code="provider_rejected")


class Allowance(msgspec.Struct, frozen=True):
    """One of an upstream's limits, as its answer says it.

    Attributes:
        unit: what is counted: ``calls``, ``tokens`` that are sent, or tokens of ``output``.
        remaining: how many there may still be.
        limit: how many there may be when nothing has been used; 0 where it does not say.
        reset: seconds until then.
    """

    unit: Unit
    remaining: int
    limit: int
    reset: float


class Refusal(ProviderError):
    """The upstream has refused a call.

    Attributes:
        limits: what it says of its rate limits; empty where it says nothing.
    """

    def __init__(self, *, code: str, retry_after: float | None = None, limits: tuple[Allowance, ...] = ()) -> None:
        super().__init__(code=code, retry_after=retry_after)
        self.limits = limits


class AnswerReader(Protocol):
    """Reads one streamed answer of some dialect, event by event."""

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the model stopped; None until it says so."""

    @property
    def stop_sequence(self) -> str:
        """The text at which it stopped; empty for none, and in dialects that don't say which."""

    @property
    def usage(self) -> Usage | None:
        """Tokens; None until they are reported."""

    @property
    def model(self) -> str:
        """The upstream's own name of the model; empty until it says so."""

    @property
    def response_id(self) -> str:
        """The upstream's id of the answer; empty until it says so."""

    @property
    def ended(self) -> bool:
        """Whether the stream's end marker has come: nothing more is to be read."""

    @property
    def whole(self) -> bool:
        """Whether nothing of the answer is missing, should the stream stop here."""

    def feed(self, data: bytes, into: Deltas) -> None:
        """Read the data of one event and append its content to ``into``.

        Raises:
            ProviderError: the data can't be read, or reports a failure.
        """
