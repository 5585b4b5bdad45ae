"""The row of an answer's parts: puts the pieces of an answer together, in the order in which its parts begin."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from protocol.events import Delta, Entry, ReasoningDelta, RefusalDelta, ToolCallDelta, VendorBlock
from protocol.llm import AnswerPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart, Vendor, VendorPart

Piece = Delta | ReasoningDelta | ToolCallDelta | RefusalDelta | VendorBlock

NOWHERE: Final = -1  # the place of a piece that belongs to no part
MAX_LOOKED: Final = 16 * 1024 * 1024  # characters of arguments that are looked at for their end
_TEXTS: Final[dict[type[AnswerPart], type[Piece]]] = {
    TextPart: Delta,
    ReasoningPart: ReasoningDelta,
    RefusalPart: RefusalDelta,
}
_object: Final = msgspec.json.Decoder(dict[str, Any]).decode
_closed_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class PartRow:
    """Finds the place of each piece's part in the row of an answer's parts.

    * A text, a thought or a refusal goes on while no other part begins and ``part`` stays the same. A signature ends a
      thought.
    * A tool call is one part, whatever comes between its pieces.
    * Each block of a vendor's own is a part. One with the ``part`` of a text that goes on is this text in the vendor's
      own form, with its citations.
    * An empty text, thought or refusal begins no part.

    So the places follow from the pieces alone. ``part`` is needed only between two texts, or two thoughts, without
    another part between them.

    Attributes:
        count: the number of parts.
        text_part: the ``part`` of the text that goes on; ``NOWHERE`` where no text does.
        calls: the place of each call, by its index.
    """

    __slots__ = ("_kind", "_part", "_place", "calls", "count", "text_part")

    def __init__(self) -> None:
        self.count = 0
        self.text_part = NOWHERE
        self.calls: dict[int, int] = {}
        self._kind: type[Piece] | None = None  # of the part that goes on
        self._part = NOWHERE  # its `part`
        self._place = NOWHERE  # its place

    @property
    def numbered_text(self) -> int:
        """The place of the text that goes on, where its ``part`` is its place; otherwise ``NOWHERE``."""
        return self.text_part if self.text_part == self._place else NOWHERE

    def place(self, piece: Piece) -> int:
        """Return the place of the part of ``piece``: the ``count`` before the call where a part begins.

        An empty piece that belongs to no part is ``NOWHERE``.
        """
        if isinstance(piece, ToolCallDelta):
            place = self.calls.get(piece.index)
            if place is None:
                place = self.calls[piece.index] = self._begin(None, NOWHERE)
            return place
        if isinstance(piece, VendorBlock):
            same = self.text_part == piece.part and fields_of_text(piece) is not None
            return self._place if same else self._begin(None, NOWHERE)
        signed = isinstance(piece, ReasoningDelta) and bool(piece.signature)
        redacted = isinstance(piece, ReasoningDelta) and piece.redacted
        if type(piece) is self._kind and piece.part == self._part and not redacted:
            place = self._place
        elif piece.text or signed:
            place = self._begin(type(piece), piece.part)
        else:
            return NOWHERE
        if signed:
            self._kind = None
        return place

    def resume(self, part: AnswerPart) -> None:
        """Count a part that has begun; the last one goes on where its type allows it."""
        if isinstance(part, ToolCallPart):
            self.calls[len(self.calls)] = self._begin(None, NOWHERE)
        else:
            ended = isinstance(part, ReasoningPart) and part.signature
            self._begin(None if ended else _TEXTS.get(type(part)), self.count)

    def _begin(self, kind: type[Piece] | None, part: int) -> int:
        place = self.count
        self.count += 1
        self._kind, self._part, self._place = kind, part, place
        self.text_part = part if kind is Delta else NOWHERE
        return place


class PartsBuilder:
    """Puts the pieces of an answer together. Adding one costs a list append.

    A caller may add a piece of the text that goes on by appending it to ``texts``: where ``row.text_part`` is its
    ``part``.

    Args:
        parts: of the answer so far.

    Attributes:
        row: the places of the parts.
        texts: the pieces of the text that goes on.
    """

    __slots__ = ("_parts", "row", "texts")

    def __init__(self, parts: Sequence[AnswerPart] = ()) -> None:
        self.row = PartRow()
        self.texts: list[str] = []
        self._parts: list[_Part] = []
        for part in parts:
            self.row.resume(part)
            self._parts.append(_Part(part))
            if isinstance(part, TextPart):
                self.texts = self._parts[-1].pieces

    @property
    def parts(self) -> tuple[AnswerPart, ...]:
        """The parts so far, in order."""
        return tuple([part.get() for part in self._parts])

    def add(self, piece: Piece) -> int:
        """Add ``piece``, and return the place of its part, or ``NOWHERE``."""
        place = self.row.place(piece)
        if place == NOWHERE:
            return place
        begins = place == len(self._parts)
        if begins:
            self._parts.append(_Part(begun_part(piece)))
            if isinstance(piece, Delta):
                self.texts = self._parts[place].pieces
        self._parts[place].add(piece, begins=begins)
        return place


class _Part:
    """A part, and the pieces of its text that have come since it was built last."""

    __slots__ = ("_part", "pieces")

    def __init__(self, part: AnswerPart) -> None:
        self._part = part
        self.pieces: list[str] = []

    def get(self) -> AnswerPart:
        """Return the part so far; the same object until it grows."""
        if self.pieces:
            part, text = self._part, "".join(self.pieces)
            self.pieces.clear()
            if isinstance(part, TextPart) and not part.text and not part.extra:
                self._part = TextPart(text=text)
            elif isinstance(part, ToolCallPart):
                self._part = msgspec.structs.replace(part, arguments=part.arguments + text)
            elif not isinstance(part, VendorPart):
                self._part = msgspec.structs.replace(part, text=part.text + text)
        return self._part

    def add(self, piece: Piece, *, begins: bool) -> None:
        """Add a piece; ``begins`` says whether the part was made for it."""
        if isinstance(piece, ToolCallDelta):
            part = self._part
            if isinstance(part, ToolCallPart) and not begins and (piece.id or piece.name or piece.extra):
                extra = merged_fields(part.extra, piece.extra)
                self._part = msgspec.structs.replace(
                    part, id=part.id or piece.id, name=part.name or piece.name, extra=extra
                )
            self.pieces.append(piece.arguments)
        elif isinstance(piece, VendorBlock):
            self._add_vendor(piece)
        else:
            self.pieces.append(piece.text)
            if isinstance(piece, ReasoningDelta) and piece.signature:
                self._part = msgspec.structs.replace(self._part, signature=piece.signature, redacted=piece.redacted)

    def _add_vendor(self, piece: VendorBlock) -> None:
        if isinstance(self._part, TextPart):
            fields = {piece.dialect: fields_of_text(piece) or {}}
            self._part = msgspec.structs.replace(self._part, extra=merged_fields(self._part.extra, fields))


def begun_part(piece: Piece) -> AnswerPart:
    """Return the part that ``piece`` begins, without its text or arguments."""
    if isinstance(piece, Delta):
        return TextPart(text="")
    if isinstance(piece, ToolCallDelta):
        return ToolCallPart(id=piece.id, name=piece.name, arguments="", extra=piece.extra)
    if isinstance(piece, ReasoningDelta):
        return ReasoningPart()
    return (
        RefusalPart(text="")
        if isinstance(piece, RefusalDelta)
        else VendorPart(dialect=piece.dialect, value=_object(piece.value))
    )


def fields_of_text(piece: VendorBlock) -> dict[str, Any] | None:
    """Return what a text in its vendor's own form has beside the text; None for a block that is no text."""
    value = _object(piece.value)
    if value.get("type") != "text":
        return None
    return {name: field for name, field in value.items() if name not in ("type", "text")}


def merged_fields(known: dict[Any, Any], new: dict[Any, Any]) -> dict[Any, Any]:
    """Return the fields of both: objects are merged, lists are joined, and another value replaces the known one."""
    fields = dict(known)
    for name, value in new.items():
        before = fields.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            fields[name] = merged_fields(before, value)
        elif isinstance(before, list) and isinstance(value, list):
            fields[name] = [*before, *value]
        else:
            fields[name] = value
    return fields


class PartSequence:
    """Orders the entries of interleaved parts: gives the entries of one part after the other.

    ::

        a part is open --another begins--> ended, where it is no call or the call's arguments are a whole object
                           +-------------> holding: the call goes on, and entries of later parts are held
        holding --a part begins, and the call's arguments are whole; or the end--> the held entries, part by part

    So the entries of calls that an upstream sends one after the other are given at once. Whether arguments are whole
    is looked at for ``MAX_LOOKED`` characters in all: from then on a call goes on until the end.

    Attributes:
        row: the places of the parts.
    """

    __slots__ = ("_arguments", "_held", "_left", "_open", "row")

    def __init__(self) -> None:
        self.row = PartRow()
        self._left = MAX_LOOKED
        self._open = NOWHERE  # the place of the open part
        self._arguments: list[str] | None = None  # the pieces of the open call's; None where the open part is no call
        self._held: dict[int, list[Entry]] = {}  # by place, in order

    @property
    def text_part(self) -> int:
        """The ``part`` of a piece of text that belongs to the open part; ``NOWHERE`` for none."""
        return self.row.text_part if self._arguments is None else NOWHERE

    def add(self, entry: Entry, piece: Piece) -> Sequence[tuple[Entry, bool]]:
        """Add an entry, whose event is ``piece``; return those that come next, and of each whether its part begins.

        A piece of a call that has ended is dropped: its arguments are whole already.
        """
        place = self.row.place(piece)
        if place == self._open:
            if self._arguments is not None and isinstance(piece, ToolCallDelta):
                self._arguments.append(piece.arguments)
            return () if place == NOWHERE else ((entry, False),)
        if place in self._held:
            self._held[place].append(entry)
            return ()
        if place < self._open:
            return ()
        self._held[place] = [entry]
        return self._given(whole=True)

    def rest(self) -> Sequence[tuple[Entry, bool]]:
        """Return all entries that are held: there are no further ones."""
        return self._given(whole=False)

    def _given(self, *, whole: bool) -> Sequence[tuple[Entry, bool]]:
        given: list[tuple[Entry, bool]] = []
        while self._held and (not whole or self._arguments is None or self._is_whole(self._arguments)):
            place = next(iter(self._held))
            entries = self._held.pop(place)
            pieces = [entry.event.arguments for entry in entries if isinstance(entry.event, ToolCallDelta)]
            self._open, self._arguments = place, pieces or None
            given += [(entry, number == 0) for number, entry in enumerate(entries)]
        return given

    def _is_whole(self, arguments: list[str]) -> bool:
        """Whether these arguments are a whole object. They are joined for the next time."""
        while len(arguments) > 1 and not arguments[-1].strip():
            arguments.pop()
        self._left -= len(arguments[-1])
        if self._left < 0 or not arguments[-1].rstrip().endswith("}"):
            return False
        arguments[:] = ["".join(arguments)]
        self._left -= len(arguments[0])
        return self._left >= 0 and is_object(arguments[0])


def is_object(text: str) -> bool:
    """Return whether ``text`` is one whole JSON object."""
    try:
        _closed_object(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def pieces_of(parts: Sequence[AnswerPart]) -> list[Piece]:
    """Return a piece for each of ``parts``, and one more for each text that has citations."""
    pieces: list[Piece] = []
    calls = 0
    for place, part in enumerate(parts):
        if isinstance(part, ToolCallPart):
            call = ToolCallDelta(
                index=calls, id=part.id, name=part.name, arguments=part.arguments, part=place, extra=part.extra
            )
            pieces.append(call)
            calls += 1
        else:
            pieces += _pieces_of(part, place)
    return pieces


def _pieces_of(part: TextPart | ReasoningPart | RefusalPart | VendorPart, place: int) -> list[Piece]:
    if isinstance(part, TextPart):
        forms: list[tuple[Vendor, dict[str, Any]]] = list(part.extra.items())
        blocks = [_block(dialect, {"type": "text", "text": part.text, **fields}, place) for dialect, fields in forms]
        return [Delta(text=part.text, part=place), *blocks]
    if isinstance(part, ReasoningPart):
        return [ReasoningDelta(text=part.text, signature=part.signature, redacted=part.redacted, part=place)]
    if isinstance(part, RefusalPart):
        return [RefusalDelta(text=part.text, part=place)]
    return [_block(part.dialect, part.value, place)]


def _block(dialect: Vendor, value: dict[str, Any], place: int) -> VendorBlock:
    return VendorBlock(dialect=dialect, value=msgspec.Raw(msgspec.json.encode(value)), part=place)
