"""OpenAI's chat dialect as its clients speak it: what they send us, and what they read.

Only values and their mapping to the canonical model. Top-level fields that we don't know are kept in
``ChatRequest.extra``, for an upstream of the same dialect.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec

from protocol.answer import content_of
from protocol.errors import PROBLEMS, FieldError, InvalidRequest, TidegateError
from protocol.events import (
    Cancelled,
    Completed,
    Delta,
    Entry,
    Event,
    Failed,
    ReasoningDelta,
    ToolCallDelta,
)
from protocol.gateway import ModelInfo
from protocol.json.validation import at, misfit
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
    Usage,
    Vendor,
    VendorPart,
)
from protocol.vendor_extras import marks_of

DIALECT: Final[Vendor] = "openai"
ID_PREFIX: Final = "chatcmpl-"
DONE_FRAME: Final = b"data: [DONE]\n\n"

ERROR_TYPES: Final = {
    "request": "invalid_request_error",
    "authentication": "authentication_error",
    "permission": "permission_error",
    "not_found": "invalid_request_error",
    "rate_limit": "rate_limit_error",
    "quota": "insufficient_quota",
    "overloaded": "overloaded_error",
    "timeout": "timeout_error",
    "server": "server_error",
}

_json = msgspec.json.Encoder(decimal_format="string").encode

# --------------------------------------------------------------------------------------------- what a client sends


class _Url(msgspec.Struct, frozen=True):
    url: str
    detail: str | None = None


class _Marked(msgspec.Struct, frozen=True, kw_only=True):
    """A part that may have marks for the vendor beside its content."""

    prompt_cache_breakpoint: dict[str, Any] | None = None
    cache_control: dict[str, Any] | None = None


class _TextPart(_Marked, frozen=True, tag_field="type", tag="text"):
    text: str


class _RefusalPart(msgspec.Struct, frozen=True, tag_field="type", tag="refusal"):
    refusal: str


class _ImagePart(_Marked, frozen=True, tag_field="type", tag="image_url"):
    image_url: _Url


class _File(msgspec.Struct, frozen=True):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class _FilePart(_Marked, frozen=True, tag_field="type", tag="file"):
    file: _File


class _AudioPart(_Marked, frozen=True, tag_field="type", tag="input_audio"):
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
    """A body of nothing that has to be kept word for word: most are."""


class _Body(_Common, frozen=True, kw_only=True):
    response_format: _SchemaFormat | _TextFormat | _ObjectFormat | None = None


_KNOWN: Final = frozenset(_Body.__struct_fields__)

_plain: Final = msgspec.json.Decoder(_Plain).decode


class ChatCall(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed body of ``POST /v1/chat/completions``.

    Attributes:
        request: what the model is asked.
        stream: whether the answer is to be streamed.
        include_usage: whether the stream ends with a chunk of usage.
    """

    request: ChatRequest
    stream: bool = False
    include_usage: bool = False


def parse_chat(body: bytes) -> ChatCall:
    """Read the body of ``POST /v1/chat/completions``.

    Raises:
        InvalidRequest: ``malformed_json``, or ``invalid_request`` with the path of what is wrong in ``errors``.
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
    """Read a body that is not plain: its fields, its schema, and what goes on to the upstream word for word.

    Raises:
        InvalidRequest: as ``parse_chat`` says.
    """
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(code="malformed_json") from error
    try:
        wire = msgspec.convert(fields, _Body)
    except msgspec.ValidationError as error:
        raise misfit(str(error)) from error
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
        said = ((TextPart(text=parts),) if parts else ()) if isinstance(parts, str) else parts
        parts = (ReasoningPart(text=wire.reasoning_content), *said)
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
    marks = marks_of(wire, DIALECT, ("prompt_cache_breakpoint", "cache_control"))
    if isinstance(wire, _TextPart):
        return TextPart(text=wire.text, extra=marks)
    if isinstance(wire, _ImagePart):
        return ImagePart(url=wire.image_url.url, detail=wire.image_url.detail or "", extra=marks)
    if isinstance(wire, _FilePart) and wire.file.file_data:
        return FilePart(url=data_url(wire.file.file_data), filename=wire.file.filename or "", extra=marks)
    if isinstance(wire, _FilePart) and not wire.file.file_id:
        raise at("$.messages", "a `file` needs `file_data` or `file_id`")
    value = msgspec.to_builtins(wire)
    if isinstance(wire, _FilePart):
        value["file"] = {name: field for name, field in value["file"].items() if field is not None}
    value = {name: field for name, field in value.items() if field is not None}
    return VendorPart(dialect=DIALECT, value=value)


def data_url(data: str) -> str:
    """Return a file's data as a URL; what does not say what it is is a PDF, which is what the vendor takes first."""
    return data if data.startswith("data:") else f"data:application/pdf;base64,{data}"


def _tool(wire: _Tool) -> Tool:
    function = wire.function
    return Tool(
        name=function.name,
        description=function.description or "",
        parameters=function.parameters or {},
        extra=marks_of(function, DIALECT, ("strict",)),
    )


# --------------------------------------------------------------------------------------------- what a client reads


class ChunkEncoder:
    """One client's stream of ``chat.completion.chunk`` events, as SSE bytes.

    What all clients of one log have in common, the tail of each chunk, is built once an entry; what is this client's
    own stands in front of it. The role chunk comes with the first content, so that a failure before it can still be an
    HTTP error.

    Args:
        request_id: the answer's id is ``chatcmpl-`` and this.
        created: Unix time in seconds.
        model: the model as the client named it.
        include_usage: whether to send a chunk of usage before ``[DONE]``.
    """

    __slots__ = ("_opened", "_plain", "_prefix", "_usage")

    def __init__(self, request_id: str, created: int, model: str, include_usage: bool = False) -> None:  # noqa: FBT001, FBT002
        self._plain = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,' % (
            _json(ID_PREFIX + request_id),
            created,
            _json(model),
        )
        self._prefix = self._plain + b'"usage":null,' if include_usage else self._plain
        self._usage = include_usage
        self._opened = False

    def encode(self, entries: Sequence[Entry]) -> bytes:
        """Return the SSE bytes of ``entries``; a terminal one, if any, is the last."""
        tails = [tail for entry in entries if (tail := entry.frame(DIALECT, _tail))]
        end = b""
        if entries and entries[-1].terminal:
            event = entries[-1].event
            if isinstance(event, Completed):
                end = self._plain + _usage_tail(event.usage) + DONE_FRAME if self._usage else DONE_FRAME
            else:
                end = tails.pop()
        if not tails:
            return end
        if not self._opened:
            self._opened = True
            tails.insert(0, _ROLE)
        prefix = self._prefix
        return prefix + prefix.join(tails) + end


_CHOICE = b'"choices":[{"index":0,"delta":{%b},"logprobs":null,"finish_reason":%b}]}\n\n'
_LIKELY = (
    b'"choices":[{"index":0,"delta":{"content":%b},"logprobs":{"content":%b,"refusal":null},"finish_reason":null}]}\n\n'
)
_ROLE = _CHOICE % (b'"role":"assistant","content":"","refusal":null', b"null")
_DELTA_START, _DELTA_END = (_CHOICE % (b"|", b"null")).split(b"|")
_TEXT_START = _DELTA_START + b'"content":'
_REASONING = b'"reasoning_content":'


def _delta_tail(delta: bytes) -> bytes:
    return _DELTA_START + delta + _DELTA_END


def _tail(entry: Entry) -> bytes:
    event = entry.event
    if isinstance(event, Delta):
        if event.logprobs:
            return _LIKELY % (_json(event.text), event.logprobs.encode())
        return _TEXT_START + _json(event.text) + _DELTA_END
    if isinstance(event, ReasoningDelta):
        return _delta_tail(_REASONING + _json(event.text)) if event.text else b""
    if isinstance(event, ToolCallDelta):
        return _delta_tail(b'"tool_calls":[%b]' % _json(_call_delta(event)))
    return _last_tail(event)


def _last_tail(event: Event) -> bytes:
    if isinstance(event, Completed):
        return _CHOICE % (b"", _json(event.finish_reason))
    if isinstance(event, Failed):
        return b"data: %b\n\n" % _envelope(event.code, event.message, event.errors)
    if isinstance(event, Cancelled):
        return b"data: %b\n\n" % _envelope("cancelled", PROBLEMS["cancelled"].title, ())
    return b""


def _call_delta(event: ToolCallDelta) -> dict[str, Any]:
    function = {"name": event.name, "arguments": event.arguments} if event.name else {"arguments": event.arguments}
    call: dict[str, Any] = {"index": event.index, "function": function}
    if event.id:
        call |= {"id": event.id, "type": "function"}
    return call


def _usage_tail(usage: Usage) -> bytes:
    return b'"choices":[],"usage":%b}\n\n' % _usage(usage)


_USAGE = (
    b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
    b'"prompt_tokens_details":{"cached_tokens":%d,"cache_write_tokens":%d},'
    b'"completion_tokens_details":{"reasoning_tokens":%d}}'
)


def _usage(usage: Usage) -> bytes:
    return _USAGE % (
        usage.input_tokens,
        usage.output_tokens,
        usage.input_tokens + usage.output_tokens,
        usage.cached_input_tokens,
        usage.cache_write_input_tokens,
        usage.reasoning_tokens,
    )


_COMPLETION = (
    b'{"id":%b,"object":"chat.completion","created":%d,"model":%b,"choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":%b,"refusal":null%b},"logprobs":%b,"finish_reason":%b}],"usage":%b}'
)


def completion_body(request_id: str, created: int, model: str, completed: Completed, *, structured: bool) -> bytes:
    """Return the body of a whole ``chat.completion``.

    Args:
        request_id: the answer's id is ``chatcmpl-`` and this.
        created: Unix time in seconds.
        model: the model as the client named it.
        completed: the end of the log.
        structured: whether the request had a schema.
    """
    text, calls = content_of(completed, structured=structured)
    more = b""
    if completed.reasoning and (reasoning := "".join(thought.text for thought in completed.reasoning)):
        more = b"," + _REASONING + _json(reasoning)
    if calls:
        more += b',"tool_calls":' + _json([wire_call(call) for call in calls])
    return _COMPLETION % (
        _json(ID_PREFIX + request_id),
        created,
        _json(model),
        _json(text) if text or not calls else b"null",
        more,
        b'{"content":%b,"refusal":null}' % completed.logprobs.encode() if completed.logprobs else b"null",
        _json(completed.finish_reason),
        _usage(completed.usage),
    )


def wire_call(call: ToolCall) -> dict[str, Any]:
    """Return a tool call as both sides of this dialect write it."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def error_body(error: TidegateError) -> bytes:
    """Return OpenAI's error envelope for ``error``."""
    return _envelope(error.code, error.detail, error.errors)


def _envelope(code: str, message: str, errors: Sequence[FieldError]) -> bytes:
    family = PROBLEMS.get(code, PROBLEMS["internal_error"]).family
    param = errors[0].path.removeprefix("$").removeprefix(".") or None if errors else None
    return _json({"error": {"message": message, "type": ERROR_TYPES[family], "param": param, "code": code}})


def models_body(models: Sequence[ModelInfo], created: int) -> bytes:
    """Return the body of ``GET /v1/models``; ``created`` is Unix time in seconds."""
    return _json({"object": "list", "data": [_model(model, created) for model in models]})


def model_body(model: ModelInfo, created: int) -> bytes:
    """Return the body of ``GET /v1/models/{model}``."""
    return _json(_model(model, created))


def _model(model: ModelInfo, created: int) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": created, "owned_by": model.provider}
