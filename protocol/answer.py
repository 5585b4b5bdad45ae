"""A whole answer: what its row of parts says, and its native JSON."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final

import msgspec

from protocol.errors import ProviderError
from protocol.events import Completed
from protocol.llm import (
    AnswerPart,
    ChatMessage,
    Extra,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    VendorPart,
    calls_of,
    text_of,
)

NO_ARGUMENTS: Final = "{}"  # of a call whose arguments the model left out
_WORK: Final = ("tool_use", "tool_result")  # types of a vendor's own tools
_ABOUT: Final = frozenset(
    {
        "annotations",
        "citations",
        "extra_content",
        "provider_specific_fields",
        "reasoning_details",
        "search_results",
        "thinking",
        "thinking_blocks",
    }
)  # fields of a message that are no answer by themselves
_UNSHOWN: Final = "The answer has only parts that this dialect can't show; the upstream's own dialect has them"


def message_of(parts: Sequence[AnswerPart]) -> ChatMessage:
    """Return an answer as a message of a conversation that goes on, with its parts in order.

    A single text is a string, and calls behind all other parts are ``tool_calls``, as clients send them.
    """
    end = len(parts)
    while end and isinstance(parts[end - 1], ToolCallPart):
        end -= 1
    content, first = tuple(parts[:end]), parts[0] if end == 1 else None
    plain = not content or (isinstance(first, TextPart) and not first.extra)
    return ChatMessage(
        role="assistant", content=text_of(content) if plain else content, tool_calls=calls_of(parts[end:])
    )


def unshown(parts: Sequence[AnswerPart], dialect: str = "") -> ProviderError | None:
    """Return the failure of an answer that says something, but nothing that a dialect can show; None for any other one.

    Such an answer is an image alone, sound, or a part of an unknown type.

    Args:
        parts: of the answer.
        dialect: whose own parts are shown; empty for none's.
    """
    hidden = False
    for part in parts:
        if isinstance(part, VendorPart):
            if part.dialect == dialect:
                return None
            hidden = hidden or _is_content(part)
        elif not isinstance(part, ReasoningPart):
            return None
    return ProviderError(_UNSHOWN, code="provider_bad_response") if hidden else None


def _is_content(part: VendorPart) -> bool:
    """Whether a vendor's own part is what the model answers, and not about that, or the vendor's own work for it."""
    kind = part.value.get("type")
    if isinstance(kind, str):
        return not kind.endswith(_WORK)
    return not part.value.keys() <= _ABOUT


def with_result(parts: Sequence[AnswerPart], result: msgspec.Raw) -> tuple[AnswerPart, ...]:
    """Return the parts with ``result``, the validated JSON, as their text; it is there once, where the text begins."""
    text = bytes(result).decode()
    if text_of(parts).strip() == text:
        return tuple(parts)
    changed: list[AnswerPart] = []
    for part in parts:
        if not isinstance(part, TextPart):
            changed.append(part)
        elif text:
            changed.append(TextPart(text=text))
            text = ""
    return (*changed, TextPart(text=text)) if text else tuple(changed)


class NativeCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool call of ``toolCalls``."""

    id: str
    name: str
    arguments: str


class _NativeCallPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="tool_call"):
    id: str
    name: str
    arguments: str
    extra: Extra = {}


class _NativeThought(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="reasoning"):
    text: str
    signature: str = ""
    redacted: bool = False


_PARTS: Final = msgspec.Meta(
    extra_json_schema={
        "items": {
            "type": "object",
            "required": ["type"],
            "properties": {"type": {"enum": ["text", "reasoning", "tool_call", "refusal", "vendor"]}},
        }
    }
)


class CoreResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The native JSON of an answer without a schema.

    Attributes:
        text: the text of all text parts.
        tool_calls: the tool calls, in order.
        parts: all parts in the order in which they came: ``text``, ``reasoning``, ``tool_call``, ``refusal`` and
            ``vendor``; as parts of an assistant's message they can be sent back.
    """

    text: str
    tool_calls: tuple[NativeCall, ...] = ()
    parts: Annotated[tuple[Any, ...], _PARTS] = ()


def core_result(completed: Completed) -> msgspec.Raw | CoreResult:
    """Return the native form of an answer: its result, or its text, tool calls and parts."""
    if completed.result is not msgspec.UNSET:
        return completed.result
    parts = completed.parts
    calls = [
        NativeCall(id=part.id, name=part.name, arguments=part.arguments)
        for part in parts
        if isinstance(part, ToolCallPart)
    ]
    return CoreResult(text=text_of(parts), tool_calls=tuple(calls), parts=native_parts(parts))


def native_parts(parts: Iterable[AnswerPart]) -> tuple[Any, ...]:
    """Return the parts in their native form, in which the fields that every part of its type has are never left out."""
    return tuple([_native(part) for part in parts])


def _native(part: AnswerPart) -> AnswerPart | _NativeCallPart | _NativeThought:
    if isinstance(part, ToolCallPart):
        return _NativeCallPart(id=part.id, name=part.name, arguments=part.arguments, extra=part.extra)
    if isinstance(part, ReasoningPart):
        return _NativeThought(text=part.text, signature=part.signature, redacted=part.redacted)
    return part
