"""What the upstream dialects share: base URLs, deltas of content, refusals, and codes of HTTP statuses."""

from collections.abc import Iterable
from typing import Final, Literal, Protocol

import msgspec

from protocol.error_text import without_secrets
from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, RefusalDelta, ToolCallDelta, VendorBlock
from protocol.llm import ContentPart, FinishReason, Usage, VendorPart

Deltas = list[Delta | ReasoningDelta | ToolCallDelta | RefusalDelta | VendorBlock]
Unit = Literal["calls", "tokens", "output"]

CONNECT_TIMEOUT: Final = 10.0  # seconds
BASE_URLS: Final = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}  # by dialect

_CODES: Final = {
    401: "provider_credentials",
    402: "provider_billing",
    403: "provider_credentials",
    404: "provider_bad_response",
    405: "provider_bad_response",
    410: "provider_bad_response",
    408: "provider_timeout",
    409: "provider_error",
    413: "provider_rejected",
    424: "provider_error",
    429: "provider_rate_limited",
    500: "provider_error",
    502: "provider_error",
    504: "provider_timeout",
}
_EXPLAINED: Final = {
    "bad_tool_schema": "The provider refused a tool's schema: ",
    "content_policy": "The provider refused the content: ",
    "context_length_exceeded": "",
    "model_not_found": "The provider does not have this model: ",
    "provider_rejected": "The provider refused the request: ",
}
_CLIENT_SIDE: Final = 400
_SERVER_SIDE: Final = 500


def code_of(status: int) -> str:
    """Return the error code of an upstream's HTTP status: a row of ``errors.PROBLEMS``.

    A 404 says that the address is wrong, which is not the caller's fault; one that names a model is found by its words
    (``protocol.refusals``).
    """
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


class UpstreamError(ProviderError):
    """An upstream reported an error: by its HTTP status, or within an answer.

    The caller sees the reason only where the request is at fault; of the operator's faults it sees the title.

    Attributes:
        status: the HTTP status, or the one that the error's own codes mean; 0 for none.
        reason: the upstream's own words, cleaned and bounded; empty for none.
    """

    def __init__(self, *, code: str, status: int = 0, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(_detail(code, reason), code=code, retry_after=retry_after)
        self.status = status
        self.reason = reason

    def conceal(self, secrets: Iterable[str]) -> None:
        """Remove ``secrets`` from the reason."""
        reason = without_secrets(self.reason, secrets)
        if reason != self.reason:
            self.reason = reason
            self.detail = _detail(self.code, reason) or self.problem.title
            self.args = (self.detail,)


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


def _detail(code: str, reason: str) -> str:
    """Return the caller's detail; empty for the code's title. Agents look for the words of a context's length alone."""
    start = _EXPLAINED.get(code)
    return "" if start is None or not reason else start + reason


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
