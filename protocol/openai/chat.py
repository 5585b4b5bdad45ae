"""OpenAI's chat completions, what clients send: decodes the body of a call into the canonical model.

Unknown top-level fields are kept in ``ChatRequest.extra``, for upstreams of the same dialect.
"""

from typing import Annotated, Any, Final, Literal

import msgspec

from protocol.errors import InvalidRequest
from protocol.json.validation import invalid_field, invalid_value
from protocol.llm import (
    ChatMessage,
    ChatRequest,
    ContentPart,
    FilePart,
    ImagePart,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCall,
    VendorPart,
)
from protocol.openai.upstream import DIALECT
from protocol.vendor_extras import extras_of


class _Url(msgspec.Struct, frozen=True):
    url: str
    detail: str | None = None


class _WithExtras(msgspec.Struct, frozen=True, kw_only=True):
    """A part with vendor extras."""

    prompt_cache_breakpoint: dict[str, Any] | None = None
    cache_control: dict[str, Any] | None = None


class _TextPart(_WithExtras, frozen=True, tag_field="type", tag="text"):
    text: str


class _RefusalPart(msgspec.Struct, frozen=True, tag_field="type", tag="refusal"):
    refusal: str


class _ImagePart(_WithExtras, frozen=True, tag_field="type", tag="image_url"):
    image_url: _Url


class _File(msgspec.Struct, frozen=True):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class _FilePart(_WithExtras, frozen=True, tag_field="type", tag="file"):
    file: _File


class _AudioPart(_WithExtras, frozen=True, tag_field="type", tag="input_audio"):
    input_audio: dict[str, Any]


_Part = _TextPart | _ImagePart | _RefusalPart | _FilePart | _AudioPart


class _Function(msgspec.Struct, frozen=True):
    name: str
    arguments: str = "{}"


class _ToolCall(msgspec.Struct, frozen=True):
    id: str
    function: _Function
    type: Literal["function"] = "function"


class _Message(msgspec.Struct, frozen=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[_Part, ...] | None = None
    name: str | None = None
    tool_calls: tuple[_ToolCall, ...] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class _FunctionTool(msgspec.Struct, frozen=True):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Tool(msgspec.Struct, frozen=True):
    function: _FunctionTool
    type: Literal["function"] = "function"


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class _JsonSchema(msgspec.Struct, frozen=True):
    schema: dict[str, Any]


class _SchemaFormat(msgspec.Struct, frozen=True, tag_field="type", tag="json_schema"):
    json_schema: _JsonSchema


class _TextFormat(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    pass


class _ObjectFormat(msgspec.Struct, frozen=True, tag_field="type", tag="json_object"):
    pass


_Tokens = Annotated[int, msgspec.Meta(ge=1)]


class _Common(msgspec.Struct, frozen=True, kw_only=True):
    model: Annotated[str, msgspec.Meta(min_length=1)]
    messages: Annotated[tuple[_Message, ...], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    seed: int | None = None
    stop: str | tuple[str, ...] | None = None
    tools: tuple[_Tool, ...] | None = None
    tool_choice: str | dict[str, Any] | None = None
    n: Literal[1] | None = None


class _Plain(_Common, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body without a response format and unknown fields: the usual case, decoded in one step."""


class _Body(_Common, frozen=True, kw_only=True):
    response_format: _SchemaFormat | _TextFormat | _ObjectFormat | None = None


_KNOWN: Final = frozenset(_Body.__struct_fields__)

_plain: Final = msgspec.json.Decoder(_Plain).decode


class ChatCall(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed body of ``POST /v1/chat/completions``.

    Attributes:
        request: the canonical request.
        stream: whether to stream the answer.
        include_usage: whether the stream ends with a chunk of usage.
    """

    request: ChatRequest
    stream: bool = False
    include_usage: bool = False


def parse_chat(body: bytes) -> ChatCall:
    """Parse the body of ``POST /v1/chat/completions``.

    Raises:
        InvalidRequest: ``malformed_json``, or ``invalid_request`` with the paths of the invalid fields.
    """
    wire: _Common
    schema: dict[str, Any] | None = None
    extra: dict[str, Any] = {}
    try:
        wire = _plain(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        wire, schema, extra = _read(body)
    choice = wire.tool_choice or ""
    if isinstance(choice, dict):
        name = choice["function"].get("name") if isinstance(choice.get("function"), dict) else None
        if isinstance(name, str):
            choice = name
        else:
            extra["tool_choice"] = choice
            choice = ""
    request = ChatRequest(
        model=wire.model,
        messages=tuple(map(_message, wire.messages)),
        schema=schema,
        tools=tuple(map(_tool, wire.tools or ())),
        tool_choice=choice,
        temperature=wire.temperature,
        top_p=wire.top_p,
        max_tokens=wire.max_completion_tokens or wire.max_tokens,
        seed=wire.seed,
        stop=(wire.stop,) if isinstance(wire.stop, str) else wire.stop or (),
        extra=extra,
        dialect=DIALECT,
    )
    options = wire.stream_options
    return ChatCall(
        request=request, stream=bool(wire.stream), include_usage=bool(options is not None and options.include_usage)
    )


def _read(body: bytes) -> tuple[_Body, dict[str, Any] | None, dict[str, Any]]:
    """Parse a body that is not plain, and return its fields, its schema and its extra fields.

    Raises:
        InvalidRequest: as ``parse_chat``.
    """
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(code="malformed_json") from error
    try:
        wire = msgspec.convert(fields, _Body)
    except msgspec.ValidationError as error:
        raise invalid_value(str(error)) from error
    extra = {name: fields[name] for name in fields.keys() - _KNOWN}
    if isinstance(wire.response_format, _SchemaFormat):
        named = {key: value for key, value in fields["response_format"]["json_schema"].items() if key != "schema"}
        extra["response_format"] = {"type": "json_schema", "json_schema": named}
        return wire, wire.response_format.json_schema.schema, extra
    if isinstance(wire.response_format, _ObjectFormat):
        extra["response_format"] = fields["response_format"]
    return wire, None, extra


def _message(wire: _Message) -> ChatMessage:
    content = wire.content or ""
    parts = content if isinstance(content, str) else tuple(map(_part, content))
    if wire.reasoning_content and wire.role == "assistant":
        content_parts = ((TextPart(text=parts),) if parts else ()) if isinstance(parts, str) else parts
        parts = (ReasoningPart(text=wire.reasoning_content), *content_parts)
    return ChatMessage(
        role="system" if wire.role == "developer" else wire.role,
        content=parts,
        tool_calls=tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in wire.tool_calls)
        if wire.tool_calls
        else (),
        tool_call_id=wire.tool_call_id or "",
        name=wire.name or "" if wire.role != "tool" else "",
    )


def _part(wire: _Part) -> ContentPart:
    if isinstance(wire, _RefusalPart):
        return TextPart(text=wire.refusal)
    extras = extras_of(wire, DIALECT, ("prompt_cache_breakpoint", "cache_control"))
    if isinstance(wire, _TextPart):
        return TextPart(text=wire.text, extra=extras)
    if isinstance(wire, _ImagePart):
        return ImagePart(url=wire.image_url.url, detail=wire.image_url.detail or "", extra=extras)
    if isinstance(wire, _FilePart) and wire.file.file_data:
        return FilePart(url=data_url(wire.file.file_data), filename=wire.file.filename or "", extra=extras)
    if isinstance(wire, _FilePart) and not wire.file.file_id:
        raise invalid_field("$.messages", "a `file` needs `file_data` or `file_id`")
    value = msgspec.to_builtins(wire)
    if isinstance(wire, _FilePart):
        value["file"] = {name: field for name, field in value["file"].items() if field is not None}
    value = {name: field for name, field in value.items() if field is not None}
    return VendorPart(dialect=DIALECT, value=value)


def data_url(data: str) -> str:
    """Return a file's data as a ``data:`` URL; data without a media type counts as a PDF."""
    return data if data.startswith("data:") else f"data:application/pdf;base64,{data}"


def _tool(wire: _Tool) -> Tool:
    function = wire.function
    return Tool(
        name=function.name,
        description=function.description or "",
        parameters=function.parameters or {},
        extra=extras_of(function, DIALECT, ("strict",)),
    )
