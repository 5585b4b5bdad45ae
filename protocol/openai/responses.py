"""OpenAI's responses dialect, what clients send: decodes the body of a call into the canonical model.

Unknown top-level fields are kept in ``ChatRequest.extra``, for upstreams of OpenAI's chat dialect. The vendor's hosted
tools and stored conversations are refused by name.
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
    RefusalPart,
    Role,
    TextPart,
    Tool,
    ToolCallPart,
    VendorPart,
)
from protocol.openai.chat_messages import data_url
from protocol.openai.upstream import DIALECT
from protocol.turns import content_of, turn_of
from protocol.vendor_extras import extras_of

ID_PREFIX: Final = "resp_"


class _WithExtras(msgspec.Struct, frozen=True, kw_only=True):
    """A part with vendor extras."""

    prompt_cache_breakpoint: dict[str, Any] | None = None


class _TextItem(_WithExtras, frozen=True, tag_field="type", tag="input_text"):
    text: str


class _OutputText(msgspec.Struct, frozen=True, tag_field="type", tag="output_text"):
    text: str


class _Refusal(msgspec.Struct, frozen=True, tag_field="type", tag="refusal"):
    refusal: str


class _Image(_WithExtras, frozen=True, tag_field="type", tag="input_image"):
    image_url: str
    detail: str | None = None


class _File(_WithExtras, frozen=True, tag_field="type", tag="input_file"):
    file_data: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    filename: str | None = None


_Part = _TextItem | _OutputText | _Refusal | _Image | _File


class _Message(msgspec.Struct, frozen=True, tag_field="type", tag="message"):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | tuple[_Part, ...]


class _Call(msgspec.Struct, frozen=True, tag_field="type", tag="function_call"):
    call_id: Annotated[str, msgspec.Meta(min_length=1)]
    name: str
    arguments: str = "{}"


class _CallOutput(msgspec.Struct, frozen=True, tag_field="type", tag="function_call_output"):
    call_id: Annotated[str, msgspec.Meta(min_length=1)]
    output: str | tuple[_TextItem | _Image | _File, ...]


class _ThoughtText(msgspec.Struct, frozen=True):
    text: str = ""


class _Thought(msgspec.Struct, frozen=True, tag_field="type", tag="reasoning"):
    summary: tuple[_ThoughtText, ...] | None = None
    content: tuple[_ThoughtText, ...] | None = None


_Item = _Message | _Call | _CallOutput | _Thought


class _Tool(msgspec.Struct, frozen=True, tag_field="type", tag="function"):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _SchemaFormat(msgspec.Struct, frozen=True, tag_field="type", tag="json_schema", omit_defaults=True):
    name: str
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class _TextFormat(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    pass


class _ObjectFormat(msgspec.Struct, frozen=True, tag_field="type", tag="json_object"):
    pass


class _Text(msgspec.Struct, frozen=True, omit_defaults=True):
    format: _SchemaFormat | _TextFormat | _ObjectFormat | None = None
    verbosity: str | None = None


class _Reasoning(msgspec.Struct, frozen=True):
    effort: str | None = None


class ResponseBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a response.

    Attributes:
        model: a model of ``GET /v1/models``.
        input: a text, or items.
        instructions: a system message for this response only.
        previous_response_id: the response whose conversation goes on.
        stream: whether to stream the events.
        background: whether the caller does not wait for the answer.
        store: whether the response can be retrieved.
        metadata: the caller's own key-value pairs.
        temperature: 0..2.
        top_p: 0..1.
        max_output_tokens: the most tokens of the answer.
        seed: makes sampling repeatable where the model supports it.
        tools: functions that the model may call.
        tool_choice: ``auto``, ``none``, ``required``, or a function.
        parallel_tool_calls: whether the model may call several functions at once.
        text: a JSON Schema that the answer has to match.
        reasoning: how much the model reasons.
    """

    model: Annotated[str, msgspec.Meta(min_length=1)]
    input: str | tuple[_Item, ...]
    instructions: str | None = None
    previous_response_id: str | None = None
    stream: bool | None = None
    background: bool | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    seed: int | None = None
    tools: tuple[_Tool, ...] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: _Text | None = None
    reasoning: _Reasoning | None = None


_IGNORED: Final = frozenset({"include", "max_tool_calls", "stream_options", "top_logprobs", "truncation"})
_REFUSED: Final = ("conversation", "prompt", "moderation")
_HOSTED: Final = (
    "code_interpreter_call",
    "file_search_call",
    "image_generation_call",
    "mcp_call",
    "mcp_list_tools",
    "web_search_call",
)
_KNOWN: Final = frozenset({*ResponseBody.__struct_fields__, *_IGNORED})
_ECHOED: Final = ("instructions", "previous_response_id", "background", "store", "parallel_tool_calls")


class ResponseCall(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed body of ``POST /v1/responses``.

    Attributes:
        request: the canonical request, without the messages of ``previous``.
        stream: whether to stream the answer.
        background: whether the caller does not wait for the answer.
        previous: the id of the previous request of the conversation; empty for none.
        metadata: the caller's own key-value pairs.
        echo: fields of the call that the response repeats, beside those of the request.
    """

    request: ChatRequest
    stream: bool = False
    background: bool = False
    previous: str = ""
    metadata: dict[str, str] = {}
    echo: dict[str, Any] = {}

    def after(self, history: tuple[ChatMessage, ...]) -> ChatRequest:
        """Return the request with ``history`` before its input and after its instructions."""
        messages = self.request.messages
        own = 1 if self.echo.get("instructions") else 0
        return msgspec.structs.replace(self.request, messages=(*messages[:own], *history, *messages[own:]))


def request_id_of(response_id: str) -> str:
    """Return the request's id of a response's id."""
    return response_id.removeprefix(ID_PREFIX)


def parse_response(body: bytes) -> ResponseCall:
    """Parse the body of ``POST /v1/responses``.

    Raises:
        InvalidRequest: ``malformed_json``, or ``invalid_request`` with the path of the invalid field.
    """
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(code="malformed_json") from error
    wire = _read(fields)
    messages = _messages(wire.input)
    if not messages:
        raise invalid_field("$.input", "must have a message")
    if wire.instructions:
        messages.insert(0, ChatMessage(role="system", content=wire.instructions))
    if wire.background and wire.store is False:
        raise invalid_field(
            "$.store", "must not be false for a response in the background: it could never be retrieved"
        )
    echo = {name: value for name in _ECHOED if (value := getattr(wire, name)) is not None}
    if wire.text is not None and wire.text.format is not None:
        echo["text"] = msgspec.to_builtins(wire.text)
    if wire.reasoning is not None and wire.reasoning.effort is not None:
        echo["reasoning"] = {"effort": wire.reasoning.effort}
    return ResponseCall(
        request=_request(wire, fields, tuple(messages)),
        stream=bool(wire.stream),
        background=bool(wire.background),
        previous=request_id_of(wire.previous_response_id or ""),
        metadata=wire.metadata or {},
        echo=echo,
    )


def _read(fields: Any) -> ResponseBody:  # noqa: ANN401 - any JSON
    if isinstance(fields, dict):
        for name in _REFUSED:
            if fields.get(name) is not None:
                raise invalid_field(f"$.{name}", f"`{name}` is not supported")
        _refuse_hosted(fields.get("tools"))
        if isinstance(fields.get("input"), list):
            fields = {**fields, "input": list(map(_item, fields["input"]))}
    try:
        return msgspec.convert(fields, ResponseBody)
    except msgspec.ValidationError as error:
        raise invalid_value(str(error)) from error


def _item(item: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return an item with its type. Calls of the vendor's own tools are left out, as an empty thought."""
    if not isinstance(item, dict):
        return item
    return {"type": "reasoning"} if item.get("type") in _HOSTED else {"type": "message", **item}


def _refuse_hosted(tools: Any) -> None:  # noqa: ANN401 - any JSON
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if isinstance(kind, str) and kind != "function":
            raise invalid_field(
                f"$.tools[{index}].type", f"`{kind[:64]}` is the vendor's own tool; only `function` is supported"
            )


def _request(wire: ResponseBody, fields: dict[str, Any], messages: tuple[ChatMessage, ...]) -> ChatRequest:
    extra = {name: fields[name] for name in fields.keys() - _KNOWN if fields[name] is not None}
    if wire.reasoning is not None and wire.reasoning.effort is not None:
        extra["reasoning_effort"] = wire.reasoning.effort
    if wire.parallel_tool_calls is not None and wire.tools:
        extra["parallel_tool_calls"] = wire.parallel_tool_calls
    schema = None
    text = wire.text or _Text()
    if text.verbosity is not None:
        extra["verbosity"] = text.verbosity
    if isinstance(text.format, _SchemaFormat):
        schema = text.format.schema
        named = {key: value for key, value in msgspec.to_builtins(text.format).items() if key not in ("type", "schema")}
        extra["response_format"] = {"type": "json_schema", "json_schema": named}
    elif isinstance(text.format, _ObjectFormat):
        extra["response_format"] = {"type": "json_object"}
    return ChatRequest(
        model=wire.model,
        messages=messages,
        schema=schema,
        tools=tuple(
            Tool(
                name=tool.name,
                description=tool.description or "",
                parameters=tool.parameters or {},
                extra=extras_of(tool, DIALECT, ("strict",)),
            )
            for tool in wire.tools or ()
        ),
        tool_choice=_choice(wire.tool_choice),
        temperature=wire.temperature,
        top_p=wire.top_p,
        max_tokens=wire.max_output_tokens,
        seed=wire.seed,
        extra=extra,
        dialect=DIALECT,
    )


def _choice(choice: str | dict[str, Any] | None) -> str:
    if not isinstance(choice, dict):
        return choice or ""
    name = choice.get("name")
    if choice.get("type") != "function" or not isinstance(name, str):
        raise invalid_field("$.tool_choice", "must be `auto`, `none`, `required` or the name of a function")
    return name


def _messages(given: str | tuple[_Item, ...]) -> list[ChatMessage]:
    """Return the messages. The items of one turn of the model's are one message, whose parts have their order."""
    if isinstance(given, str):
        return [ChatMessage(role="user", content=given)] if given else []
    messages: list[ChatMessage] = []
    turn: list[ContentPart] = []
    for item in given:
        parts = _parts_of_turn(item)
        if parts is None:
            messages += _turn(turn)
            turn = []
            messages.append(_message(item))
            continue
        if turn and parts and isinstance(turn[-1], TextPart) and isinstance(parts[0], TextPart):
            messages += _turn(turn)
            turn = []
        turn += parts
    return messages + _turn(turn)


def _parts_of_turn(item: _Item) -> list[ContentPart] | None:
    """Return the parts that an item adds to the model's turn; None where it is none of the model's."""
    if isinstance(item, _Call):
        return [ToolCallPart(id=item.call_id, name=item.name, arguments=item.arguments)]
    if isinstance(item, _Thought):
        text = "\n\n".join(part.text for part in item.content or item.summary or () if part.text)
        return [ReasoningPart(text=text)] if text else []
    if isinstance(item, _Message) and item.role == "assistant":
        content = item.content
        return [TextPart(text=content)] if isinstance(content, str) else list(map(_part, content))
    return None


def _turn(parts: list[ContentPart]) -> list[ChatMessage]:
    return [turn_of("assistant", parts)] if parts else []


def _message(item: _Item) -> ChatMessage:
    if isinstance(item, _CallOutput):
        return ChatMessage(role="tool", content=_content(item.output), tool_call_id=item.call_id)
    role: Role = "user" if not isinstance(item, _Message) else "system" if item.role == "developer" else item.role
    return ChatMessage(role=role, content=_content(item.content) if isinstance(item, _Message) else "")


def _content(content: str | tuple[_Part, ...]) -> str | tuple[ContentPart, ...]:
    return content if isinstance(content, str) else content_of(list(map(_part, content)))


def _part(part: _Part) -> ContentPart:
    if isinstance(part, _Refusal):
        return RefusalPart(text=part.refusal)
    if isinstance(part, _OutputText):
        return TextPart(text=part.text)
    extras = extras_of(part, DIALECT, ("prompt_cache_breakpoint",))
    if isinstance(part, _TextItem):
        return TextPart(text=part.text, extra=extras)
    if isinstance(part, _Image):
        return ImagePart(url=part.image_url, detail=part.detail or "", extra=extras)
    url = data_url(part.file_data) if part.file_data else part.file_url
    if url:
        return FilePart(url=url, filename=part.filename or "", extra=extras)
    if not part.file_id:
        raise invalid_field("$.input", "an `input_file` needs `file_data`, `file_url` or `file_id`")
    return VendorPart(dialect=DIALECT, value={"type": "file", "file": {"file_id": part.file_id}})
