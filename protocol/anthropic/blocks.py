"""Anthropic's blocks and tools, what clients send: each becomes a canonical part, a call, a tool's message, or a tool.

Unknown fields of a block are kept in its ``extra``, and blocks of unknown types as they are, for upstreams of the same
dialect. A block is decoded in one step where it has neither.
"""

from typing import Any, Final, Literal, TypeVar

import msgspec

from protocol.anthropic.upstream import DIALECT
from protocol.json.validation import invalid_field, invalid_value
from protocol.llm import (
    ChatMessage,
    ContentPart,
    Extra,
    FilePart,
    ImagePart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    Tool,
    ToolCallPart,
    VendorPart,
)
from protocol.turns import content_of
from protocol.vendor_extras import extras_of, unknown_fields

T = TypeVar("T")


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the structs: what has further fields is read by the tolerant functions below."""


class _Base64(Strict, frozen=True, tag_field="type", tag="base64"):
    media_type: str
    data: str


class _Url(Strict, frozen=True, tag_field="type", tag="url"):
    url: str


class _PlainText(Strict, frozen=True, tag_field="type", tag="text"):
    data: str
    media_type: Literal["text/plain"] = "text/plain"


class _WithExtras(Strict, frozen=True, kw_only=True):
    """A block with vendor extras."""

    cache_control: dict[str, Any] | None = None


class TextBlock(_WithExtras, frozen=True, tag_field="type", tag="text"):
    """A block of text."""

    text: str
    citations: list[Any] | None = None


class _Image(_WithExtras, frozen=True, tag_field="type", tag="image"):
    source: _Base64 | _Url


class _Document(_WithExtras, frozen=True, tag_field="type", tag="document"):
    source: _Base64 | _Url | _PlainText
    title: str | None = None
    context: str | None = None
    citations: dict[str, Any] | None = None


class _ToolUse(_WithExtras, frozen=True, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: msgspec.Raw
    caller: dict[str, Any] | None = None


class _ToolResult(_WithExtras, frozen=True, tag_field="type", tag="tool_result"):
    tool_use_id: str
    content: str | tuple[TextBlock | _Image | _Document, ...] | None = None
    is_error: bool | None = None


class _Thinking(Strict, frozen=True, tag_field="type", tag="thinking"):
    thinking: str
    signature: str = ""


class _RedactedThinking(Strict, frozen=True, tag_field="type", tag="redacted_thinking"):
    data: str


_Part = TextBlock | _Image | _Document
_Thought = _Thinking | _RedactedThinking
Block = _Part | _ToolUse | _ToolResult | _Thought


class OwnTool(Strict, frozen=True):
    """A tool of the client's own."""

    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None
    cache_control: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: bool | None = None
    eager_input_streaming: bool | None = None
    input_examples: list[dict[str, Any]] | None = None
    allowed_callers: list[str] | None = None


_EXTRAS: Final = {
    TextBlock: ("cache_control", "citations"),
    _Image: ("cache_control",),
    _Document: ("cache_control", "citations", "context"),
    _ToolUse: ("caller", "cache_control"),
    _ToolResult: ("cache_control",),
    OwnTool: (
        "cache_control",
        "strict",
        "defer_loading",
        "eager_input_streaming",
        "input_examples",
        "allowed_callers",
    ),
}
_BLOCKS: Final[dict[str, type[Block]]] = {
    "text": TextBlock,
    "image": _Image,
    "document": _Document,
    "tool_use": _ToolUse,
    "tool_result": _ToolResult,
    "thinking": _Thinking,
    "redacted_thinking": _RedactedThinking,
}

_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items: Final = msgspec.json.Decoder(str | tuple[msgspec.Raw, ...] | None).decode
_json: Final = msgspec.json.Encoder().encode


def block_of(block: Block | msgspec.Raw, role: str, path: str) -> ContentPart | ChatMessage:
    """Return what a block says: a part of its turn, or the message of a tool's result.

    Args:
        block: decoded; or its JSON, where it may have unknown fields or an unknown type.
        role: of its turn.
        path: its path in errors.

    Raises:
        InvalidRequest: the block is invalid, or stands in a turn of another role than its own.
    """
    if isinstance(block, msgspec.Raw):
        found = _loose_block(block, path)
    elif isinstance(block, _ToolResult):
        found = _result(block, _content_of(block), {})
    else:
        found = _part(block, path)
    if isinstance(found, ChatMessage):
        if role != "user":
            raise invalid_field(path, "a `tool_result` belongs into a turn of the user's")
    elif isinstance(found, ToolCallPart | ReasoningPart) and role != "assistant":
        kind = "a `tool_use`" if isinstance(found, ToolCallPart) else "thinking"
        raise invalid_field(path, f"{kind} belongs into a turn of the assistant's")
    return found


def tool_of(tool: OwnTool | msgspec.Raw, path: str) -> Tool:
    """Return a tool. One of the vendor's own kinds has all its fields in its extras.

    Raises:
        InvalidRequest: the tool is invalid.
    """
    if isinstance(tool, OwnTool):
        return _function(tool)
    fields = _decoded(tool, dict[str, Any], path)
    kind = fields.get("type") or "custom"
    if not isinstance(kind, str):
        raise invalid_field(f"{path}.type", "Expected `str`")
    if kind != "custom":
        name = fields.get("name")
        return Tool(name=name if isinstance(name, str) else "", extra={DIALECT: fields})
    known = {name: fields[name] for name in OwnTool.__struct_fields__ if name in fields}
    try:
        read = _function(msgspec.convert(known, OwnTool))
    except msgspec.ValidationError as error:
        raise invalid_value(str(error), path) from error
    more = unknown_fields(fields, known)
    return msgspec.structs.replace(read, extra=_with(read.extra, more))


def _function(tool: OwnTool) -> Tool:
    return Tool(name=tool.name, description=tool.description or "", parameters=tool.input_schema, extra=_extras(tool))


# ------------------------------------------------------------------------------------------------------ known blocks


def _part(block: _Part | _ToolUse | _Thought, path: str) -> ContentPart:
    if isinstance(block, TextBlock):
        return TextPart(text=block.text, extra=_extras(block))
    if isinstance(block, _ToolUse):
        arguments = bytes(block.input).decode()
        if not arguments.startswith("{"):
            raise invalid_field(f"{path}.input", "Expected `object`")
        return ToolCallPart(id=block.id, name=block.name, arguments=arguments, extra=_extras(block))
    if isinstance(block, _Thinking):
        return ReasoningPart(text=block.thinking, signature=block.signature)
    if isinstance(block, _RedactedThinking):
        return ReasoningPart(signature=block.data, redacted=True)
    return _file(block)


def _file(block: _Image | _Document) -> ImagePart | FilePart:
    if isinstance(block, _Image):
        return ImagePart(url=_address(block.source), extra=_extras(block))
    title, source = block.title or "", block.source
    if isinstance(source, _PlainText):
        return FilePart(text=source.data, filename=title, extra=_extras(block))
    return FilePart(url=_address(source), filename=title, extra=_extras(block))


def _content_of(result: _ToolResult) -> str | tuple[ContentPart, ...]:
    if isinstance(result.content, str):
        return result.content
    return content_of([_part(part, "") for part in result.content or ()])


def _result(result: _ToolResult, content: str | tuple[ContentPart, ...], more: dict[str, Any]) -> ChatMessage:
    return ChatMessage(
        role="tool",
        tool_call_id=result.tool_use_id,
        content=content,
        is_error=bool(result.is_error),
        extra=_with(_extras(result), more),
    )


def _address(source: _Base64 | _Url) -> str:
    return source.url if isinstance(source, _Url) else f"data:{source.media_type};base64,{source.data}"


def _extras(block: msgspec.Struct) -> Extra:
    return extras_of(block, DIALECT, _EXTRAS[type(block)])


def _with(extra: Extra, more: dict[str, Any]) -> Extra:
    return {DIALECT: {**extra.get(DIALECT, {}), **more}} if more else extra


# ------------------------------------------------------------------------------------------------------- any blocks


def _decoded(raw: msgspec.Raw, kind: type[T], path: str) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise invalid_value(str(error), path) from error


def _loose_block(raw: msgspec.Raw, path: str) -> ContentPart | ChatMessage:
    fields = _decoded(raw, dict[str, msgspec.Raw], path)
    kind = _decoded(fields.get("type", msgspec.Raw(b"null")), str, f"{path}.type")
    struct = _BLOCKS.get(kind)
    if struct is None:
        return _vendor_part(raw)
    known = {name: fields[name] for name in ("type", *struct.__struct_fields__) if name in fields}
    further = {name: msgspec.json.decode(value) for name, value in fields.items() if name not in known}
    more = unknown_fields(further, known)
    content = known.pop("content", None) if struct is _ToolResult else None
    try:
        block = msgspec.json.decode(_json(known), type=struct)
    except msgspec.ValidationError as error:
        if _has_source(fields):
            return _vendor_part(raw)
        raise invalid_value(str(error), path) from error
    if isinstance(block, _ToolResult):
        return _result(block, _loose_content(content, f"{path}.content"), more)
    part = _part(block, path)
    if not more:
        return part
    if isinstance(part, ReasoningPart | RefusalPart | VendorPart):
        return _vendor_part(raw)
    return msgspec.structs.replace(part, extra=_with(part.extra, more))


def _loose_content(raw: msgspec.Raw | None, path: str) -> str | tuple[ContentPart, ...]:
    """Return the content of a tool's result."""
    items = "" if raw is None else _decoded(raw, str | tuple[msgspec.Raw, ...] | None, path) or ""  # type: ignore[arg-type]
    if isinstance(items, str):
        return items
    found = [_loose_block(item, f"{path}[{index}]") for index, item in enumerate(items)]
    return content_of([part for part in found if not isinstance(part, ChatMessage)])


def _has_source(fields: dict[str, msgspec.Raw]) -> bool:
    """Whether a block has a source of the vendor's own: an uploaded file, blocks, or one that is new."""
    try:
        source = msgspec.json.decode(fields.get("source", b"null"))
    except msgspec.DecodeError:
        return False
    return isinstance(source, dict) and isinstance(source.get("type"), str)


def _vendor_part(raw: msgspec.Raw) -> VendorPart:
    return VendorPart(dialect=DIALECT, value=msgspec.json.decode(raw))
