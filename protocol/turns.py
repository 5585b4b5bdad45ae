"""Turns of a conversation: the canonical message of an ordered row of parts."""

from typing import Literal

from protocol.llm import ChatMessage, ContentPart, TextPart, ToolCall, ToolCallPart


def content_of(parts: list[ContentPart]) -> str | tuple[ContentPart, ...]:
    """Return a content. A single text becomes a string, so that both notations have the same fingerprint."""
    if not parts:
        return ""
    first = parts[0]
    return first.text if len(parts) == 1 and isinstance(first, TextPart) and not first.extra else tuple(parts)


def turn_of(role: Literal["user", "assistant", "system"], parts: list[ContentPart]) -> ChatMessage:
    """Return a turn. Its calls are apart from its content where they all stand behind it."""
    end = len(parts)
    while end and isinstance(parts[end - 1], ToolCallPart):
        end -= 1
    if any(isinstance(part, ToolCallPart) for part in parts[:end]):
        return ChatMessage(role=role, content=tuple(parts))
    calls = [part for part in parts[end:] if isinstance(part, ToolCallPart)]
    return ChatMessage(
        role=role,
        content=content_of(parts[:end]),
        tool_calls=tuple(ToolCall(call.id, call.name, call.arguments, call.extra) for call in calls),
    )
