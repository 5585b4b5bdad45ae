"""A whole answer: what its row of parts says, and its native JSON."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

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
_CONTENT: Final = ("images", "audio")  # fields of a message that are content
_UNSHOWN: Final = "The answer has only parts that this dialect can't show; /v1/chat/completions has them"


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


def unshown(parts: Sequence[AnswerPart]) -> ProviderError | None:
    """Return the failure of an answer whose only content is of OpenAI's chat dialect alone; None for any other one.

    Other dialects can't show such content: an image, sound, or a part of an unknown type.
    """
    found = [part for part in parts if isinstance(part, VendorPart) and part.dialect == "openai"]
    if not any("type" in part.value or not part.value.keys().isdisjoint(_CONTENT) for part in found):
        return None
    if any(not isinstance(part, VendorPart | ReasoningPart) for part in parts):
        return None
    return ProviderError(_UNSHOWN, code="provider_bad_response")


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
    parts: tuple[Any, ...] = ()


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
