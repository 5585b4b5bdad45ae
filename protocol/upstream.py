"""What the upstream dialects share: base URLs, deltas of content, and refusals."""

from typing import Final, Literal, Protocol

import msgspec

from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, RefusalDelta, ToolCallDelta, VendorBlock
from protocol.llm import ContentPart, Extra, FinishReason, Usage, VendorPart
from protocol.upstream_error import UpstreamError

Deltas = list[Delta | ReasoningDelta | ToolCallDelta | RefusalDelta | VendorBlock]
Unit = Literal["calls", "tokens", "output"]

MAX_KIND: Final = 100  # characters of a part's kind in an error
CONNECT_TIMEOUT: Final = 10.0  # seconds
BASE_URLS: Final = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}  # by dialect


def without_key(provider: str) -> str:
    """Return what makes a provider that only lacks its key; empty for any other name."""
    return f"; set {provider.upper()}_API_KEY for {provider}" if provider in BASE_URLS else ""


def unsupported_part(part: ContentPart, dialect: str, media_type: str = "") -> ProviderError:
    """Return the failure of a request with a part, or a file of a media type, that ``dialect`` does not have."""
    kind = part.value.get("type") if isinstance(part, VendorPart) else part.__struct_config__.tag
    kind = f"{kind} of {media_type}" if media_type else kind
    message = f"A model behind {dialect}'s dialect can't be given this part: {str(kind)[:MAX_KIND]!r}"
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


class Refusal(UpstreamError):
    """The upstream refused a call: its HTTP status is not 200.

    Attributes:
        limits: the rate limits that it reports; empty for none.
    """

    def __init__(
        self,
        *,
        code: str,
        status: int = 0,
        reason: str = "",
        retry_after: float | None = None,
        limits: tuple[Allowance, ...] = (),
    ) -> None:
        super().__init__(code=code, status=status, reason=reason, retry_after=retry_after)
        self.limits = limits


class AnswerReader(Protocol):
    """Reads one streamed answer of a dialect, event by event."""

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the model stopped; None until the stream says so."""

    @property
    def raw_finish_reason(self) -> str:
        """The upstream's own word for it, as in ``events.Completed``."""

    @property
    def refused(self) -> bool:
        """Whether the model has said that it refuses to answer."""

    @property
    def counted(self) -> bool:
        """Whether the output tokens of ``usage`` are the final count."""

    @property
    def stop_sequence(self) -> str:
        """The text at which it stopped; empty for none, and in dialects that don't report it."""

    @property
    def extra(self) -> Extra:
        """Fields of the answer that only its dialect has, as in ``events.Completed``."""

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
        """Whether the answer is complete, also if the stream breaks off now."""

    def feed(self, data: bytes, into: Deltas) -> None:
        """Read the data of one event and append its content to ``into``.

        Raises:
            ProviderError: the data can't be read, or reports a failure.
        """

    def close(self, into: Deltas, *, proper: bool) -> None:
        """Read the end of the stream, and append the content that waited for it to ``into``. Idempotent.

        Args:
            into: the content.
            proper: whether the body ended as HTTP says that it should, and did not break off.

        Raises:
            ProviderError: a part of the answer is not complete.
        """
