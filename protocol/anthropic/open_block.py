"""A block of an answer in Anthropic's dialect that has begun: what has come of it."""

from typing import Any

from protocol.parts import is_object
from protocol.reading.loose import text_of


class OpenBlock:
    """A block that has begun.

    Attributes:
        kind: ``text``, ``thinking``, ``tool_use``, or ``vendor`` for a block of any other type.
        part: the index of its part; -1 before its first content: an empty block is no part.
        call: the number of its call.
        value: the block as it began; what comes after that is added for a vendor's block.
        given: whether its content was given on: of a call, its arguments.
        text: the text so far, for a block that is given on whole too.
        pieces: the JSON of a vendor's block's input.
        signature: the pieces of a thought's signature.
        grown: the pieces of further texts, by their fields.
        half: the first half of a surrogate pair at the end of the last piece.
    """

    __slots__ = ("call", "given", "grown", "half", "kind", "part", "pieces", "signature", "text", "value")

    def __init__(self, kind: str, value: dict[str, Any]) -> None:
        self.kind = kind
        self.part = -1
        self.value = value
        self.call = 0
        self.given = False
        self.grown: dict[str, list[str]] = {}
        self.half = ""
        self.text: list[str] = []
        self.pieces: list[str] = []
        self.signature: list[str] = []

    @property
    def pieces_length(self) -> int:
        """The number of characters that have to be looked at to find out whether it waits."""
        return sum(map(len, self.pieces))

    @property
    def waits(self) -> bool:
        """Whether its content has still to come."""
        if self.kind != "vendor":
            return self.part < 0 and not self.signature
        if self.pieces:
            text = "".join(self.pieces)
            self.pieces = [text]
            return not is_object(text)
        return text_of(self.value.get("type")).endswith("tool_use") and not self.value.get("input")

    def add(self, name: str, item: str) -> None:
        """Add a piece to a field, which is a text."""
        if name not in self.grown:
            before = self.value.get(name)
            self.grown[name] = [before if isinstance(before, str) else ""]
        self.grown[name].append(item)

    def whole(self) -> dict[str, Any]:
        """Return the value with all that has been added to its fields."""
        for name, pieces in self.grown.items():
            self.value[name] = "".join(pieces)
        return self.value
