"""A whole answer: how its reasoning is put together, and how the dialects take it apart again."""

from typing import Final

import msgspec

from protocol.events import Completed, ReasoningDelta
from protocol.llm import ReasoningPart, ToolCall


class ReasoningBuilder:
    """Puts reasoning together from its pieces; adding one costs a list append."""

    __slots__ = ("_done", "_open")

    def __init__(self) -> None:
        self._done: list[ReasoningPart] = []
        self._open: list[str] = []

    @property
    def parts(self) -> tuple[ReasoningPart, ...]:
        """The thoughts so far; the last one may be unfinished."""
        if not self._open:
            return tuple(self._done)
        text = "".join(self._open)
        self._open = [text]
        return (*self._done, ReasoningPart(text=text))

    def add(self, piece: ReasoningDelta) -> None:
        """Add a piece."""
        if piece.text:
            self._open.append(piece.text)
        if piece.signature:
            text = "".join(self._open)
            self._done.append(ReasoningPart(text=text, signature=piece.signature, redacted=piece.redacted))
            self._open = []


class _Plain(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    text: str
    tool_calls: tuple[ToolCall, ...] = ()


_plain: Final = msgspec.json.Decoder(_Plain).decode


def content_of(completed: Completed, *, structured: bool) -> tuple[str, tuple[ToolCall, ...]]:
    """Return the text and the calls of an answer.

    The result of a request with a schema is its JSON, word for word; but a model that asks for a tool first has not
    answered in the schema's shape yet.

    Args:
        completed: the end of the log.
        structured: whether the request had a schema.
    """
    try:
        plain = _plain(completed.result)
    except msgspec.ValidationError:
        if not structured:
            raise
    else:
        if plain.tool_calls or not structured:
            return plain.text, plain.tool_calls
    return bytes(completed.result).decode(), ()
