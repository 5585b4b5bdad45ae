"""What the upstream dialects have in common: content as it is read, and what an HTTP status means."""

from typing import Final, Protocol

from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, ToolCallDelta
from protocol.llm import ContentPart, FinishReason, Usage, VendorPart

Pieces = list[Delta | ReasoningDelta | ToolCallDelta]

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


def unsaid(part: ContentPart, dialect: str) -> ProviderError:
    """Return the failure of a request with a part that ``dialect`` has no words for."""
    kind = part.value.get("type") if isinstance(part, VendorPart) else "file"
    message = f"A model behind {dialect}'s dialect can't be given this part: {str(kind)[:40]!r}"
    return ProviderError(message, code="provider_rejected")


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

    def feed(self, data: bytes, into: Pieces) -> None:
        """Read the data of one event and append its content to ``into``.

        Raises:
            ProviderError: the data can't be read, or reports a failure.
        """
