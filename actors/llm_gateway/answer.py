"""Assembly of an answer from its pieces."""

from typing import Final

import msgspec

from protocol.answer import NO_ARGUMENTS
from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, ToolCallDelta, VendorBlock
from protocol.llm import AnswerPart, TextPart, ToolCall, ToolCallPart, calls_of, text_of
from protocol.parts import NOWHERE, PartsBuilder, Piece
from protocol.upstream import Deltas

MAX_CALLS: Final = 128
MAX_PARTS: Final = 10_000
LOGPROBS_SHARE: Final = 32  # bytes of a token's probabilities that count as one character: they are far longer than it


class Assembly:
    """The parts of the answer so far, within a bound.

    Most answers are one text: then its pieces are all that there is, and a builder is made with the first other piece.

    Args:
        limit: the most characters of texts, reasoning, arguments and vendors' blocks together, and of a share of the
            probabilities.
    """

    __slots__ = ("_blocks", "_builder", "_last", "_left", "_limit", "_logprobs", "_numbers", "_text", "_texts")

    def __init__(self, limit: int) -> None:
        self._left = self._limit = limit
        self._last = 0  # the place of the piece that was replaced last
        self._blocks = 0  # characters of vendors' blocks
        self._texts: list[str] = []  # of the text that goes on
        self._text = 0  # its `part`, where that is its place; otherwise NOWHERE
        self._builder: PartsBuilder | None = None
        self._numbers: dict[int, int] = {}  # a call's index at the provider: its number
        self._logprobs: list[str] = []

    @property
    def parts(self) -> tuple[AnswerPart, ...]:
        """The parts so far, in order."""
        if self._builder is not None:
            return self._builder.parts
        text = "".join(self._texts)
        return (TextPart(text=text),) if text else ()

    @property
    def chars(self) -> int:
        """The number of characters so far that the model has written."""
        return self._limit - self._left - self._blocks

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._texts) if self._builder is None else text_of(self._builder.parts)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls so far, in order."""
        return calls_of(self._builder.parts) if self._numbers and self._builder is not None else ()

    @property
    def logprobs(self) -> str:
        """The tokens' probabilities, as a JSON array; empty for none."""
        return f"[{','.join(self._logprobs)}]" if self._logprobs else ""

    def add(self, pieces: Deltas) -> None:
        """Add ``pieces``, and number them: their ``part`` is then the place of their part, and calls count from 0.

        Raises:
            ProviderError: ``response_too_large``.
        """
        left = self._left
        for piece in pieces:
            if isinstance(piece, Delta):
                text = piece.text
                if piece.part == self._text:
                    self._texts.append(text)
                else:
                    self._add(piece, pieces)
                left -= len(text)
                if piece.logprobs:
                    self._logprobs.append(piece.logprobs[1:-1])
                    left -= len(piece.logprobs) // LOGPROBS_SHARE
            else:
                self._add(piece, pieces)
                left -= self._length(piece)
        self._left = left
        if left < 0:
            raise ProviderError(code="response_too_large")

    def finish(self) -> Deltas:
        """Return the pieces that the whole answer still needs: an empty object for each call without arguments."""
        builder, pieces = self._builder, Deltas()
        if builder is None:
            return pieces
        parts = builder.parts
        for number, place in builder.row.calls.items():
            part = parts[place]
            if isinstance(part, ToolCallPart) and not part.arguments.strip():
                piece = ToolCallDelta(index=number, arguments=NO_ARGUMENTS, part=place)
                builder.add(piece)
                pieces.append(piece)
        return pieces

    def _add(self, piece: Piece, pieces: Deltas) -> None:
        builder = self._builder
        if builder is None:
            builder = self._builder = PartsBuilder(self.parts)
        numbered = self._numbered(piece) if isinstance(piece, ToolCallDelta) else piece
        place = builder.add(numbered)
        row = builder.row
        self._texts, self._text = builder.texts, row.numbered_text
        if place not in (NOWHERE, numbered.part):
            numbered = msgspec.structs.replace(numbered, part=place)
        if numbered is not piece:
            pieces[self._place_of(piece, pieces)] = numbered
        if len(row.calls) > MAX_CALLS or row.count > MAX_PARTS:
            raise ProviderError(code="response_too_large")

    def _place_of(self, piece: Piece, pieces: Deltas) -> int:
        """Return the place of ``piece``, looked for from the last place that was found."""
        count = len(pieces)
        places = (at % count for at in range(self._last, self._last + count))
        self._last = next(at for at in places if pieces[at] is piece)
        return self._last

    def _numbered(self, piece: ToolCallDelta) -> ToolCallDelta:
        number = self._numbers.setdefault(piece.index, len(self._numbers))
        return piece if number == piece.index else msgspec.structs.replace(piece, index=number)

    def _length(self, piece: Piece) -> int:
        if isinstance(piece, ToolCallDelta):
            return len(piece.arguments)
        if isinstance(piece, VendorBlock):
            self._blocks += piece.size()
            return piece.size()
        return len(piece.text) + (len(piece.signature) if isinstance(piece, ReasoningDelta) else 0)
