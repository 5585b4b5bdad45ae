"""Anthropic's messages dialect, what clients send: decodes the body of a call into the canonical model.

Unknown top-level fields are kept in ``ChatRequest.extra``, for upstreams of the same dialect; vendor extras of a block
or a tool in its own ``extra``.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from protocol.anthropic.upstream import BETAS, DIALECT
from protocol.errors import InvalidRequest
from protocol.json.validation import invalid_field, invalid_value
from protocol.llm import (
    ChatMessage,
    ChatRequest,
    ContentPart,
    Extra,
    FilePart,
    ImagePart,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCall,
    VendorPart,
)
from protocol.vendor_extras import extras_of

CHOICES: Final = {"auto": "auto", "none": "none", "any": "required"}


class _Base64(msgspec.Struct, frozen=True, tag_field="type", tag="base64"):
    media_type: str
    data: str


class _Url(msgspec.Struct, frozen=True, tag_field="type", tag="url"):
    url: str


class _PlainText(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    data: str


class _Content(msgspec.Struct, frozen=True, tag_field="type", tag="content"):
    content: Any


class _Uploaded(msgspec.Struct, frozen=True, tag_field="type", tag="file"):
    file_id: str


class _WithExtras(msgspec.Struct, frozen=True, kw_only=True):
    """A block with vendor extras."""

    cache_control: dict[str, Any] | None = None


class _Text(_WithExtras, frozen=True, tag_field="type", tag="text"):
    text: str
    citations: list[Any] | None = None


class _Image(_WithExtras, frozen=True, tag_field="type", tag="image"):
    source: _Base64 | _Url | _Uploaded


class _Document(_WithExtras, frozen=True, tag_field="type", tag="document"):
    source: _Base64 | _Url | _PlainText | _Content | _Uploaded
    title: str | None = None
    context: str | None = None
    citations: dict[str, Any] | None = None


class _SearchResult(_WithExtras, frozen=True, tag_field="type", tag="search_result"):
    source: str
    title: str
    content: list[Any]
    citations: dict[str, Any] | None = None


class _ToolUse(_WithExtras, frozen=True, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: msgspec.Raw


class _ToolResult(_WithExtras, frozen=True, tag_field="type", tag="tool_result"):
    tool_use_id: str
    content: str | tuple[_Text | _Image | _Document | _SearchResult, ...] | None = None
    is_error: bool | None = None


class _Thinking(msgspec.Struct, frozen=True, tag_field="type", tag="thinking"):
    thinking: str
    signature: str = ""


class _RedactedThinking(msgspec.Struct, frozen=True, tag_field="type", tag="redacted_thinking"):
    data: str


_Part = _Text | _Image | _Document | _SearchResult
_Block = _Part | _ToolUse | _ToolResult | _Thinking | _RedactedThinking


class _Message(msgspec.Struct, frozen=True):
    role: Literal["user", "assistant", "system"]
    content: str | tuple[_Block, ...]


class _Tool(msgspec.Struct, frozen=True):
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


class _Choice(msgspec.Struct, frozen=True):
    type: Literal["auto", "any", "none", "tool"]
    name: str = ""


class _Format(msgspec.Struct, frozen=True):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class _OutputConfig(msgspec.Struct, frozen=True):
    format: _Format | None = None


class _CountBody(msgspec.Struct, frozen=True, kw_only=True):
    model: Annotated[str, msgspec.Meta(min_length=1)]
    messages: Annotated[tuple[_Message, ...], msgspec.Meta(min_length=1)]
    system: str | tuple[_Text, ...] | None = None
    tools: tuple[_Tool, ...] | None = None
    tool_choice: _Choice | None = None
    output_config: _OutputConfig | None = None


class _Body(_CountBody, frozen=True, kw_only=True):
    max_tokens: Annotated[int, msgspec.Meta(ge=1)]
    stream: bool | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    stop_sequences: tuple[str, ...] | None = None


EXTRAS: Final = {
    _Text: ("cache_control", "citations"),
    _Image: ("cache_control",),
    _Document: ("cache_control", "citations", "context"),
    _ToolUse: ("cache_control",),
    _ToolResult: ("cache_control",),
    _Tool: (
        "cache_control",
        "strict",
        "defer_loading",
        "eager_input_streaming",
        "input_examples",
        "allowed_callers",
    ),
}
_KNOWN: Final = frozenset({*_Body.__struct_fields__, BETAS})
MAX_BETAS: Final = 32
_BETA: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CANONICAL_FIELDS: Final = {"output_config": {"format"}, "tool_choice": {"type", "name"}}

W = TypeVar("W", bound=_CountBody)

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_count_body: Final = msgspec.json.Decoder(_CountBody)
_body: Final = msgspec.json.Decoder(_Body)


class MessageCall(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed body of ``POST /v1/messages``: the canonical request, and whether to stream the answer."""

    request: ChatRequest
    stream: bool = False


def parse_betas(header: str) -> tuple[str, ...]:
    """Parse the header ``anthropic-beta``: names of the vendor's features, separated by commas.

    Raises:
        InvalidRequest: there are too many names, or one is not valid.
    """
    names = tuple(dict.fromkeys(name for part in header.split(",") if (name := part.strip())))
    if len(names) > MAX_BETAS or not all(map(_BETA.fullmatch, names)):
        raise invalid_field(
            "anthropic-beta", f"must be at most {MAX_BETAS} names of features, with commas between them"
        )
    return names


def parse_messages(body: bytes, betas: str = "") -> MessageCall:
    """Parse the body of ``POST /v1/messages``, and the header ``anthropic-beta``.

    Raises:
        InvalidRequest: ``malformed_json``, or ``invalid_request`` with the path of the invalid field.
    """
    wire, request = _parse(_body, body)
    names = parse_betas(betas) if betas else ()
    request = msgspec.structs.replace(
        request,
        extra={**request.extra, BETAS: [*names]} if names else request.extra,
        temperature=wire.temperature,
        top_p=wire.top_p,
        max_tokens=wire.max_tokens,
        stop=wire.stop_sequences or (),
    )
    return MessageCall(request=request, stream=bool(wire.stream))


def parse_count(body: bytes) -> ChatRequest:
    """Parse the body of ``POST /v1/messages/count_tokens``; raises as :func:`parse_messages`."""
    return _parse(_count_body, body)[1]


def _parse(decoder: "msgspec.json.Decoder[W]", body: bytes) -> tuple[W, ChatRequest]:
    try:
        wire = decoder.decode(body)
        fields = _fields(body)
        return wire, _request(wire, _extra(fields))
    except msgspec.ValidationError as error:
        raise _refused(body, error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(code="malformed_json") from error


def _refused(body: bytes, error: msgspec.ValidationError) -> InvalidRequest:
    """Return the failure: ``malformed_json`` where the rest of the body is not JSON, otherwise the invalid field."""
    try:
        msgspec.json.decode(body)
    except msgspec.ValidationError:
        pass  # valid JSON with a number out of range: the first error says more
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return InvalidRequest(code="malformed_json")
    return invalid_value(str(error))


def _request(wire: _CountBody, extra: dict[str, Any]) -> ChatRequest:
    system = (
        wire.system or "" if not isinstance(wire.system, tuple) else _content(list(map(_part, wire.system)), "system")
    )
    messages = [message for index, turn in enumerate(wire.messages) for message in _messages(turn, index)]
    if system:
        messages.insert(0, ChatMessage(role="system", content=system))
    return ChatRequest(
        model=wire.model,
        messages=tuple(messages),
        schema=wire.output_config.format.schema if wire.output_config and wire.output_config.format else None,
        tools=tuple(
            Tool(
                name=tool.name,
                description=tool.description or "",
                parameters=tool.input_schema,
                extra=_extras(tool),
            )
            for tool in wire.tools or ()
        ),
        tool_choice=_tool_choice(wire.tool_choice),
        extra=extra,
        dialect=DIALECT,
    )


def _extra(fields: dict[str, msgspec.Raw]) -> dict[str, Any]:
    """Return the unknown fields, and unknown fields inside known ones."""
    extra = {name: msgspec.json.decode(fields[name]) for name in sorted(fields.keys() - _KNOWN)}
    for name, canonical in _CANONICAL_FIELDS.items():
        if name in fields:
            inner = msgspec.json.decode(fields[name], type=dict[str, Any] | None) or {}
            unknown = {key: value for key, value in inner.items() if key not in canonical}
            if unknown:
                extra[name] = unknown
    return extra


def _tool_choice(choice: _Choice | None) -> str:
    if choice is None:
        return ""
    if choice.type != "tool":
        return CHOICES[choice.type]
    if not choice.name:
        raise invalid_field("$.tool_choice.name", "Object missing required field `name`")
    return choice.name


def _messages(wire: _Message, index: int) -> Iterator[ChatMessage]:
    """Yield the canonical messages of one message: one for each tool result, then one for the rest."""
    if isinstance(wire.content, str):
        yield ChatMessage(role=wire.role, content=wire.content)
        return
    parts: list[ContentPart] = []
    calls: list[ToolCall] = []
    others = False
    for place, block in enumerate(wire.content):
        if isinstance(block, _Part):
            parts.append(_part(block))
            continue
        others = True
        path = f"$.messages[{index}].content[{place}]"
        if isinstance(block, _ToolResult):
            if wire.role != "user":
                raise invalid_field(path, "a `tool_result` belongs into a turn of the user's")
            yield ChatMessage(
                role="tool",
                tool_call_id=block.tool_use_id,
                content=_result(block),
                is_error=bool(block.is_error),
                extra=_extras(block),
            )
        elif isinstance(block, _ToolUse):
            if wire.role != "assistant":
                raise invalid_field(path, "a `tool_use` belongs into a turn of the assistant's")
            calls.append(_call(block, path))
        else:
            if wire.role != "assistant":
                raise invalid_field(path, "thinking belongs into a turn of the assistant's")
            parts.extend(_reasoning(block))
    if parts or calls or not others:
        yield ChatMessage(role=wire.role, content=_content(parts, wire.role), tool_calls=tuple(calls))


def _reasoning(block: _Thinking | _RedactedThinking) -> Iterator[ReasoningPart]:
    """Yield the reasoning where it is signed: no upstream accepts unsigned thinking."""
    if isinstance(block, _RedactedThinking):
        if block.data:
            yield ReasoningPart(signature=block.data, redacted=True)
    elif block.signature:
        yield ReasoningPart(text=block.thinking, signature=block.signature)


def _call(block: _ToolUse, path: str) -> ToolCall:
    arguments = bytes(block.input).decode()
    if not arguments.startswith("{"):
        raise invalid_field(f"{path}.input", "Expected `object`")
    return ToolCall(id=block.id, name=block.name, arguments=arguments, extra=_extras(block))


def _content(parts: list[ContentPart], role: str) -> str | tuple[ContentPart, ...]:
    texts = [part.text for part in parts if isinstance(part, TextPart) and not part.extra]
    if len(texts) != len(parts) or (role == "user" and len(parts) > 1):
        return tuple(parts)
    return ("" if role == "assistant" else "\n\n").join(texts)


def _result(block: _ToolResult) -> str | tuple[ContentPart, ...]:
    if isinstance(block.content, str):
        return block.content
    return _content([_part(part) for part in block.content or ()], "tool")


def _part(wire: _Part) -> ContentPart:
    if isinstance(wire, _Text):
        return TextPart(text=wire.text, extra=_extras(wire))
    if isinstance(wire, _SearchResult):
        return _vendor_part(wire)
    source = wire.source
    if isinstance(source, _Uploaded | _Content):
        return _vendor_part(wire)
    if isinstance(source, _PlainText):
        title = "" if isinstance(wire, _Image) else wire.title or ""
        return FilePart(text=source.data, filename=title, extra=_extras(wire))
    if isinstance(wire, _Image):
        return ImagePart(url=_address(source), extra=_extras(wire))
    return FilePart(url=_address(source), filename=wire.title or "", extra=_extras(wire))


def _address(source: _Base64 | _Url) -> str:
    return source.url if isinstance(source, _Url) else f"data:{source.media_type};base64,{source.data}"


def _vendor_part(wire: msgspec.Struct) -> VendorPart:
    """Return a block that only this dialect has, unchanged."""
    fields = msgspec.to_builtins(wire)
    return VendorPart(dialect=DIALECT, value={name: value for name, value in fields.items() if value is not None})


def _extras(wire: msgspec.Struct) -> Extra:
    return extras_of(wire, DIALECT, EXTRAS[type(wire)])
