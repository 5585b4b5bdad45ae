"""Assembly of an answer from its pieces."""

from typing import Final

from protocol.answer import ReasoningBuilder
from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, RefusalDelta, ToolCallDelta, VendorBlock
from protocol.llm import ReasoningPart, ToolCall
from protocol.upstream import Deltas

MAX_CALLS: Final = 128
LOGPROBS_SHARE: Final = 32  # bytes of a token's probabilities that count as one character: they are far longer than it


class Assembly:
    """The text, the reasoning and the tool calls so far, within a bound.

    Args:
        limit: the most characters of text, reasoning and arguments together, and of a share of the probabilities.
    """

    __slots__ = ("_calls", "_left", "_limit", "_logprobs", "_text", "_thoughts")

    def __init__(self, limit: int) -> None:
        self._left = self._limit = limit
        self._text: list[str] = []
        self._calls: dict[int, list[str]] = {}
        self._thoughts: ReasoningBuilder | None = None
        self._logprobs: list[str] = []

    @property
    def reasoning(self) -> tuple[ReasoningPart, ...]:
        """The reasoning so far, thought by thought."""
        return () if self._thoughts is None else self._thoughts.parts

    @property
    def chars(self) -> int:
        """The number of characters so far."""
        return self._limit - self._left

    @property
    def logprobs(self) -> str:
        """The tokens' probabilities, as a JSON array; empty for none."""
        return f"[{','.join(self._logprobs)}]" if self._logprobs else ""

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls so far, in order; one without arguments has an empty object."""
        if not self._calls:
            return ()
        return tuple(ToolCall(call[0], call[1], "".join(call[2:]) or "{}") for _, call in sorted(self._calls.items()))

    def add(self, pieces: Deltas) -> None:
        """Add ``pieces``.

        Raises:
            ProviderError: ``response_too_large``.
        """
        for piece in pieces:
            if isinstance(piece, Delta):
                text = piece.text
                self._text.append(text)
                self._left -= len(text)
                if piece.logprobs:
                    self._logprobs.append(piece.logprobs[1:-1])
                    self._left -= len(piece.logprobs) // LOGPROBS_SHARE
            elif isinstance(piece, ToolCallDelta):
                self._call(piece)
                self._left -= len(piece.arguments)
            elif isinstance(piece, ReasoningDelta):
                self._think(piece)
                self._left -= len(piece.text) + len(piece.signature)
            elif isinstance(piece, RefusalDelta):
                self._text.append(piece.text)
                self._left -= len(piece.text)
            elif isinstance(piece, VendorBlock):
                self._left -= piece.size()
        if self._left < 0 or len(self._calls) > MAX_CALLS:
            raise ProviderError(code="response_too_large")

    def _think(self, piece: ReasoningDelta) -> None:
        if self._thoughts is None:
            self._thoughts = ReasoningBuilder()
        self._thoughts.add(piece)

    def _call(self, piece: ToolCallDelta) -> None:
        call = self._calls.setdefault(piece.index, ["", ""])
        call[0] = call[0] or piece.id
        call[1] = call[1] or piece.name
        call.append(piece.arguments)
