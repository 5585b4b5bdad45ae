"""A whole answer: what its row of parts says, and its native JSON."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from protocol.llm import (
    AnswerPart,
    ChatMessage,
    Extra,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
    ToolCallPart,
    VendorPart,
)

NO_ARGUMENTS: Final = "{}"  # of a call whose arguments the model left out


class HasParts:
    """Base of the structs that have an answer's parts, with what is derived from them."""

    __slots__ = ()

    parts: tuple[AnswerPart, ...]

    @property
    def text(self) -> str:
        """The text of all text parts."""
        return text_of(self.parts)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls, in order."""
        return calls_of(self.parts)

    @property
    def thoughts(self) -> tuple[ReasoningPart, ...]:
        """The parts of the reasoning, in order."""
        return tuple([part for part in self.parts if isinstance(part, ReasoningPart)])

    @property
    def refusal(self) -> str:
        """The text of all refusals."""
        return "".join([part.text for part in self.parts if isinstance(part, RefusalPart)])


def text_of(parts: Iterable[AnswerPart]) -> str:
    """Return the text of all text parts."""
    return "".join([part.text for part in parts if isinstance(part, TextPart)])


def calls_of(parts: Iterable[AnswerPart]) -> tuple[ToolCall, ...]:
    """Return the tool calls, in order."""
    return tuple(
        [
            ToolCall(id=part.id, name=part.name, arguments=part.arguments, extra=part.extra)
            for part in parts
            if isinstance(part, ToolCallPart)
        ]
    )


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


def size_of(parts: Iterable[AnswerPart]) -> int:
    """Return the size of the parts' texts, in bytes of UTF-8; that of a vendor's part is its JSON's."""
    size = 0
    for part in parts:
        if isinstance(part, VendorPart):
            size += len(msgspec.json.encode(part.value))
        elif isinstance(part, ToolCallPart):
            size += utf8_length(part.id) + utf8_length(part.name) + utf8_length(part.arguments)
        else:
            size += utf8_length(part.text) + (utf8_length(part.signature) if isinstance(part, ReasoningPart) else 0)
    return size


def utf8_length(text: str) -> int:
    """Return the length of ``text`` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


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


def core_result(parts: Sequence[AnswerPart]) -> CoreResult:
    """Return the native form of an answer without a schema."""
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
