"""OpenAI's messages, parts, calls and tools, what clients send: each becomes its canonical form.

Unknown fields are kept in ``extra``, and parts of unknown types as they are, for upstreams of the same dialect.
"""

from typing import Any, Final, Literal, TypeVar

import msgspec

from protocol.json.validation import invalid_field, invalid_value
from protocol.llm import (
    ChatMessage,
    ContentPart,
    FilePart,
    ImagePart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    Tool,
    ToolCall,
    VendorPart,
)
from protocol.openai.upstream import DIALECT, REFUSAL
from protocol.vendor_extras import as_extra, extras_of, unknown_fields

T = TypeVar("T")


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the structs: what has further fields is read by the tolerant functions below."""


class _Url(_Strict, frozen=True):
    url: str
    detail: str | None = None


class _WithExtras(_Strict, frozen=True, kw_only=True):
    """A part with vendor extras."""

    prompt_cache_breakpoint: dict[str, Any] | None = None
    cache_control: dict[str, Any] | None = None


class _TextPart(_WithExtras, frozen=True, tag_field="type", tag="text"):
    text: str


class _RefusalPart(_Strict, frozen=True, tag_field="type", tag="refusal"):
    refusal: str


class _ImagePart(_WithExtras, frozen=True, tag_field="type", tag="image_url"):
    image_url: _Url | str


class _File(_Strict, frozen=True):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class _FilePart(_WithExtras, frozen=True, tag_field="type", tag="file"):
    file: _File


_Part = _TextPart | _ImagePart | _RefusalPart | _FilePart


class _Function(_Strict, frozen=True):
    name: str
    arguments: str = "{}"


class _ToolCall(_Strict, frozen=True):
    id: str
    function: _Function
    type: Literal["function"] = "function"


class ChatWireMessage(_Strict, frozen=True):
    """A message without unknown fields and parts."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[_Part, ...] | None = None
    name: str | None = None
    tool_calls: tuple[_ToolCall, ...] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None


class _FunctionFields(_Strict, frozen=True):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChatFunctionTool(_Strict, frozen=True):
    """A function without unknown fields."""

    function: _FunctionFields
    type: Literal["function"] = "function"


_PARTS: Final[dict[str, type[_Part]]] = {
    "text": _TextPart,
    "image_url": _ImagePart,
    "refusal": _RefusalPart,
    "file": _FilePart,
}
_INNER: Final[dict[str, type[_Strict]]] = {"image_url": _Url, "file": _File}

_json: Final = msgspec.json.Encoder().encode


def data_url(data: str) -> str:
    """Return a file's data as a ``data:`` URL; data without a media type counts as a PDF."""
    return data if data.startswith("data:") else f"data:application/pdf;base64,{data}"


def convert(value: Any, kind: type[T], at: str = "$") -> T:  # noqa: ANN401 - any JSON
    """Return ``value`` as ``kind``; ``at`` is its path in errors."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise invalid_value(str(error), at) from error


# ------------------------------------------------------------------------------------------------ messages and tools


def message_of(wire: ChatWireMessage) -> ChatMessage:
    """Return the canonical message; raises ``InvalidRequest`` for a file without data."""
    content = wire.content or ""
    calls: tuple[ToolCall, ...] = ()
    if wire.tool_calls:
        calls = tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in wire.tool_calls)
    return _canonical(wire, content if isinstance(content, str) else tuple(map(_part, content)), calls, {})


def _canonical(
    wire: ChatWireMessage, content: str | tuple[ContentPart, ...], calls: tuple[ToolCall, ...], extra: dict[str, Any]
) -> ChatMessage:
    """Return a message. Its reasoning, also an empty one, is its first part, and its refusal the last of its content.

    Args:
        wire: the message; its content and calls are not read.
        content: its content.
        calls: its tool calls.
        extra: its further fields.
    """
    if wire.role == "assistant" and (wire.reasoning_content is not None or wire.refusal is not None):
        parts = ((TextPart(text=content),) if content else ()) if isinstance(content, str) else content
        if wire.reasoning_content is not None:
            parts = (ReasoningPart(text=wire.reasoning_content), *parts)
        if wire.refusal is not None:
            parts = (*parts, RefusalPart(text=wire.refusal))
            extra = {REFUSAL: wire.refusal, **extra}
        content = parts
    if not extra:
        return ChatMessage(
            role="system" if wire.role == "developer" else wire.role,
            content=content,
            tool_calls=calls,
            tool_call_id=wire.tool_call_id or "",
            name=wire.name or "",
        )
    return ChatMessage(
        role="system" if wire.role == "developer" else wire.role,
        content=content,
        tool_calls=calls,
        tool_call_id=wire.tool_call_id or "",
        name=wire.name or "",
        extra=as_extra(extra, DIALECT),
    )


def _part(wire: _Part) -> ContentPart:
    if isinstance(wire, _RefusalPart):
        return RefusalPart(text=wire.refusal)
    extras = extras_of(wire, DIALECT, ("prompt_cache_breakpoint", "cache_control"))
    if isinstance(wire, _TextPart):
        return TextPart(text=wire.text, extra=extras)
    if isinstance(wire, _ImagePart):
        image = wire.image_url
        if isinstance(image, str):
            return ImagePart(url=image, extra=extras)
        return ImagePart(url=image.url, detail=image.detail or "", extra=extras)
    if wire.file.file_data:
        return FilePart(url=data_url(wire.file.file_data), filename=wire.file.filename or "", extra=extras)
    if not wire.file.file_id:
        raise invalid_field("$.messages", "a `file` needs `file_data` or `file_id`")
    value = {"type": "file", **msgspec.to_builtins(wire)}
    value["file"] = {name: field for name, field in value["file"].items() if field is not None}
    return VendorPart(dialect=DIALECT, value={name: field for name, field in value.items() if field is not None})


def tool_of(wire: ChatFunctionTool) -> Tool:
    """Return the canonical tool."""
    function = wire.function
    return Tool(
        name=function.name,
        description=function.description or "",
        parameters=function.parameters or {},
        extra=extras_of(function, DIALECT, ("strict",)),
    )


# ------------------------------------------------------------------------------------- with fields that we don't know


def loose_messages_of(messages: tuple[dict[str, Any], ...]) -> tuple[ChatMessage, ...]:
    """Return messages that may have unknown fields and parts; raises ``InvalidRequest`` for invalid ones."""
    return tuple(_loose_message(fields, f"$.messages[{index}]") for index, fields in enumerate(messages))


def _loose_message(fields: dict[str, Any], path: str) -> ChatMessage:
    known = {name: value for name in ChatWireMessage.__struct_fields__ if (value := fields.get(name)) is not None}
    content, calls = known.get("content", ""), known.get("tool_calls", ())
    parts: tuple[ContentPart, ...] | None = None
    if isinstance(content, list):
        del known["content"]
        parts = tuple(_loose_part(part, f"{path}.content[{index}]") for index, part in enumerate(content))
    if isinstance(calls, list):
        del known["tool_calls"]
        calls = tuple(_loose_call(call, f"{path}.tool_calls[{index}]") for index, call in enumerate(calls))
    wire = convert(known, ChatWireMessage, path)
    return _canonical(
        wire, content if parts is None else parts, calls, unknown_fields(fields, ChatWireMessage.__struct_fields__)
    )


def _loose_part(part: Any, path: str) -> ContentPart:  # noqa: ANN401 - any JSON
    if isinstance(part, str):
        return TextPart(text=part)
    fields = convert(part, dict[str, Any], path)
    kind = convert(fields.get("type"), str, f"{path}.type")
    struct = _PARTS.get(kind)
    if struct is None:
        return VendorPart(dialect=DIALECT, value=fields)
    known = {name: fields[name] for name in ("type", *struct.__struct_fields__) if name in fields}
    extra = unknown_fields(fields, known)
    for name, inner in _INNER.items():
        value = known.get(name)
        if isinstance(value, dict) and unknown_fields(value, inner.__struct_fields__):
            extra[name] = value
            known[name] = {key: value[key] for key in inner.__struct_fields__ if key in value}
    read = _part(convert(known, struct, path))
    if not extra:
        return read
    if isinstance(read, TextPart | ImagePart | FilePart):
        return msgspec.structs.replace(read, extra={DIALECT: {**read.extra.get(DIALECT, {}), **extra}})
    return VendorPart(dialect=DIALECT, value=fields)


def _loose_call(call: Any, path: str) -> ToolCall:  # noqa: ANN401 - any JSON
    """Return a call of a message. One that is no function's has the whole call in its extras."""
    fields = convert(call, dict[str, Any], path)
    kind = fields.get("type") or "function"
    if kind != "function":
        body = fields.get(kind) if isinstance(kind, str) else None
        named = body if isinstance(body, dict) else {}
        return ToolCall(
            id=convert(fields.get("id", ""), str, f"{path}.id"),
            name=str(named.get("name") or kind),
            arguments=_json({"input": named.get("input")}).decode(),
            extra={DIALECT: fields},
        )
    function = convert(fields.get("function"), dict[str, Any], f"{path}.function")
    arguments = function.get("arguments")
    if isinstance(arguments, dict):
        function = {**function, "arguments": _json(arguments).decode()}
    extra = unknown_fields(fields, _ToolCall.__struct_fields__)
    further = unknown_fields(function, _Function.__struct_fields__)
    if further:
        extra["function"] = further
    known = {name: value for name in _Function.__struct_fields__ if (value := function.get(name)) is not None}
    wire = convert(known, _Function, f"{path}.function")
    call_id = convert(fields.get("id"), str, f"{path}.id")
    return ToolCall(id=call_id, name=wire.name, arguments=wire.arguments, extra=as_extra(extra, DIALECT))


def loose_tools_of(tools: tuple[dict[str, Any], ...]) -> tuple[Tool, ...]:
    """Return tools that may have unknown fields, or be of the vendor's own kinds; raises ``InvalidRequest``."""
    return tuple(_loose_tool(fields, f"$.tools[{index}]") for index, fields in enumerate(tools))


def _loose_tool(fields: dict[str, Any], path: str) -> Tool:
    kind = fields.get("type") or "function"
    if kind != "function":
        body = fields.get(convert(kind, str, f"{path}.type"))
        name = body.get("name") if isinstance(body, dict) else None
        return Tool(name=name if isinstance(name, str) else kind, extra={DIALECT: fields})
    function = convert(fields.get("function"), dict[str, Any], f"{path}.function")
    known = {name: function[name] for name in _FunctionFields.__struct_fields__ if name in function}
    tool = tool_of(ChatFunctionTool(function=convert(known, _FunctionFields, f"{path}.function")))
    further = unknown_fields(function, known)
    return (
        msgspec.structs.replace(tool, extra={DIALECT: {**tool.extra.get(DIALECT, {}), **further}}) if further else tool
    )
