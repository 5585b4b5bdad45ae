"""A whole answer, as the dialects take it apart again: its text and its tool calls."""

import msgspec

from protocol.events import Completed
from protocol.llm import ToolCall


class _Plain(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    text: str
    tool_calls: tuple[ToolCall, ...] = ()


def content_of(completed: Completed, *, structured: bool) -> tuple[str, tuple[ToolCall, ...]]:
    """Return the text and the calls of an answer.

    The result of a request with a schema is its JSON, word for word; but a model that asks for a tool first has not
    answered in the schema's shape yet.

    Args:
        completed: the end of the log.
        structured: whether the request had a schema.
    """
    try:
        plain = msgspec.json.decode(completed.result, type=_Plain)
    except msgspec.ValidationError:
        if not structured:
            raise
    else:
        if plain.tool_calls or not structured:
            return plain.text, plain.tool_calls
    return bytes(completed.result).decode(), ()
