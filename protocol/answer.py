"""Parts of a whole answer: collects its reasoning, and reads the text and tool calls of its result."""

from typing import Final

import msgspec

from protocol.events import Completed, ReasoningDelta
from protocol.llm import ReasoningPart, ToolCall


class ReasoningBuilder:
    """Collects the deltas of reasoning into thoughts. Adding one costs a list append."""

    __slots__ = ("_done", "_open")

    def __init__(self) -> None:
        self._done: list[ReasoningPart] = []
        self._open: list[str] = []

    @property
    def parts(self) -> tuple[ReasoningPart, ...]:
        """The thoughts so far; the last one may be incomplete."""
        if not self._open:
            return tuple(self._done)
        text = "".join(self._open)
        self._open = [text]
        return (*self._done, ReasoningPart(text=text))

    def add(self, delta: ReasoningDelta) -> None:
        """Add a delta; one with a signature ends the thought."""
        if delta.text:
            self._open.append(delta.text)
        if delta.signature:
            text = "".join(self._open)
            self._done.append(ReasoningPart(text=text, signature=delta.signature, redacted=delta.redacted))
            self._open = []


class _PlainResult(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    text: str
    tool_calls: tuple[ToolCall, ...] = ()


_plain: Final = msgspec.json.Decoder(_PlainResult).decode


def content_of(completed: Completed, *, structured: bool) -> tuple[str, tuple[ToolCall, ...]]:
    """Return the text and the tool calls of an answer.

    With a schema the text is the result's JSON, unchanged. A model that calls a tool first has not answered with the
    schema's JSON yet: then the result has text and tool calls as without a schema.

    Args:
        completed: the last event of the log.
        structured: whether the request had a schema.
    """
    try:
        plain = _plain(completed.result)
    except msgspec.ValidationError:
        if not structured:
            raise
    else:
        if plain.tool_calls or not structured or _is_unmatched(completed):
            return plain.text, plain.tool_calls
    return bytes(completed.result).decode(), ()


def _is_unmatched(completed: Completed) -> bool:
    """Whether an answer that was cut short or refused has no JSON of the schema, but a text."""
    return bytes(completed.result).endswith(b',"toolCalls":[]}')
