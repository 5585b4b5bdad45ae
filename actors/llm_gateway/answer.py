"""An answer as it is put together from its pieces."""

from typing import Final

from protocol.errors import ProviderError
from protocol.events import Delta, ToolCallDelta
from protocol.llm import ToolCall
from protocol.upstream import Pieces

MAX_CALLS: Final = 128


class Assembly:
    """The text and the tool calls so far, within a bound.

    Args:
        limit: the most characters of text and arguments together.
    """

    __slots__ = ("_calls", "_left", "_text")

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._text: list[str] = []
        self._calls: dict[int, list[str]] = {}

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls so far, in order; one without arguments has an empty object."""
        return tuple(ToolCall(call[0], call[1], "".join(call[2:]) or "{}") for _, call in sorted(self._calls.items()))

    def add(self, pieces: Pieces) -> None:
        """Add ``pieces``.

        Raises:
            ProviderError: ``response_too_large``.
        """
        for piece in pieces:
            if isinstance(piece, Delta):
                self._text.append(piece.text)
                self._left -= len(piece.text)
            else:
                self._call(piece)
                self._left -= len(piece.arguments)
        if self._left < 0 or len(self._calls) > MAX_CALLS:
            raise ProviderError(code="response_too_large")

    def _call(self, piece: ToolCallDelta) -> None:
        call = self._calls.setdefault(piece.index, ["", ""])
        call[0] = call[0] or piece.id
        call[1] = call[1] or piece.name
        call.append(piece.arguments)
