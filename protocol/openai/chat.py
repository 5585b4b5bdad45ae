"""OpenAI's chat completions, what clients send: decodes the body of a call into the canonical model.

Unknown top-level fields are kept in ``ChatRequest.extra``, those of a message, a part, a call or a tool in its own
``extra``, and unknown parts as they are: all for upstreams of the same dialect.
"""

from typing import Annotated, Any, Final, Literal

import msgspec

from protocol.errors import InvalidRequest
from protocol.llm import ChatRequest
from protocol.openai.chat_messages import (
    ChatFunctionTool,
    ChatWireMessage,
    convert,
    loose_messages_of,
    loose_tools_of,
    message_of,
    tool_of,
)
from protocol.openai.upstream import DIALECT


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
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    seed: int | None = None
    stop: str | tuple[str, ...] | None = None
    tool_choice: str | dict[str, Any] | None = None
    n: Literal[1] | None = None


class _Plain(_Common, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body without a response format and unknown fields: the usual case, decoded in one step."""

    messages: Annotated[tuple[ChatWireMessage, ...], msgspec.Meta(min_length=1)]
    tools: tuple[ChatFunctionTool, ...] | None = None


class _Formatted(_Common, frozen=True, kw_only=True):
    """The fields of any body but its messages and tools."""

    response_format: _SchemaFormat | _TextFormat | _ObjectFormat | None = None


class ChatBody(_Formatted, frozen=True, kw_only=True):
    """The body of a chat completion; this form has messages and tools without unknown fields.

    Attributes:
        messages: the conversation.
        model: a model of ``GET /v1/models``.
        stream: whether to stream the answer.
        stream_options: ``include_usage`` ends a stream with a chunk of usage.
        temperature: 0..2.
        top_p: 0..1.
        max_tokens: the older name of ``max_completion_tokens``.
        max_completion_tokens: the most tokens of the answer.
        seed: makes sampling repeatable where the model supports it.
        stop: texts at which the model stops, at most 4.
        tools: functions that the model may call.
        tool_choice: ``auto``, ``none``, ``required``, or a function.
        response_format: a JSON Schema that the answer has to match.
        n: always 1.
    """

    messages: Annotated[tuple[ChatWireMessage, ...], msgspec.Meta(min_length=1)]
    tools: tuple[ChatFunctionTool, ...] | None = None


class _Loose(_Formatted, frozen=True, kw_only=True):
    """Any other body."""

    messages: Annotated[tuple[dict[str, Any], ...], msgspec.Meta(min_length=1)]
    tools: tuple[dict[str, Any], ...] | None = None


_KNOWN: Final = frozenset(ChatBody.__struct_fields__)
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
    wire: _Plain | ChatBody | _Loose
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
        messages=loose_messages_of(wire.messages)
        if isinstance(wire, _Loose)
        else tuple(map(message_of, wire.messages)),
        schema=schema,
        tools=loose_tools_of(wire.tools or ()) if isinstance(wire, _Loose) else tuple(map(tool_of, wire.tools or ())),
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


def _read(body: bytes) -> tuple[ChatBody | _Loose, dict[str, Any] | None, dict[str, Any]]:
    """Parse a body that is not plain, and return its fields, its schema and its extra fields.

    Raises:
        InvalidRequest: as ``parse_chat``.
    """
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(code="malformed_json") from error
    wire: ChatBody | _Loose
    try:
        wire = msgspec.convert(fields, ChatBody)
    except msgspec.ValidationError:
        wire = convert(fields, _Loose)
    extra = {name: fields[name] for name in fields.keys() - _KNOWN}
    if isinstance(wire.response_format, _SchemaFormat):
        named = {key: value for key, value in fields["response_format"]["json_schema"].items() if key != "schema"}
        extra["response_format"] = {"type": "json_schema", "json_schema": named}
        return wire, wire.response_format.json_schema.schema, extra
    if isinstance(wire.response_format, _ObjectFormat):
        extra["response_format"] = fields["response_format"]
    return wire, None, extra
