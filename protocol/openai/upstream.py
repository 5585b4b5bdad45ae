"""OpenAI's chat dialect, upstream: encodes requests, and reads streamed answers.

Unknown fields of an answer are ignored; an upstream's error text is never passed on.
"""

from typing import Any, Final, NoReturn

import msgspec

from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, ToolCallDelta
from protocol.json.strict_schema import openai_schema
from protocol.llm import (
    ChatMessage,
    ChatRequest,
    ContentPart,
    FilePart,
    FinishReason,
    ImagePart,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCall,
    Usage,
    Vendor,
    VendorPart,
)
from protocol.upstream import Deltas, code_of, unsupported_part

DIALECT: Final[Vendor] = "openai"
DONE: Final = b"[DONE]"
ERROR: Final = "Error: "  # prefix of the result of a failed tool call: the dialect has no field for it

_json = msgspec.json.Encoder().encode


def chat_body(
    request: ChatRequest,
    model: str,
    *,
    tokens_field: str = "max_tokens",
    max_tokens: int | None = None,
    omit: tuple[str, ...] = (),
) -> bytes:
    """Return the body of a streamed chat completion for an upstream of this dialect.

    Args:
        request: the canonical request.
        model: the upstream's name of the model.
        tokens_field: the name of the token limit: ``max_completion_tokens`` at OpenAI, elsewhere ``max_tokens``.
        max_tokens: the token limit where the request has none.
        omit: top-level fields that this upstream refuses.
    """
    body = dict(request.extra) if request.dialect == DIALECT else {}
    body["model"] = model
    body["messages"] = _wire_messages(request.messages)
    body["stream"] = True
    body["stream_options"] = {"include_usage": True}
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.seed is not None:
        body["seed"] = request.seed
    bound = request.max_tokens or max_tokens
    if bound is not None:
        body[tokens_field] = bound
    if request.stop:
        body["stop"] = request.stop
    if request.tools:
        body["tools"] = [_wire_tool(tool) for tool in request.tools]
    if request.tool_choice:
        body["tool_choice"] = _wire_choice(request.tool_choice)
    if request.schema is not None:
        body["response_format"] = _schema_format(request.schema, body.get("response_format"))
    for field in omit:
        body.pop(field, None)
    return _json(body)


def _wire_choice(choice: str) -> Any:  # noqa: ANN401 - a string, or an object with the tool's name
    return choice if choice in ("auto", "none", "required") else {"type": "function", "function": {"name": choice}}


def _schema_format(schema: dict[str, Any], given: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the response format: strict where the schema can be converted, unless the client chose otherwise."""
    options = given["json_schema"] if given else {"strict": True}
    prepared = openai_schema(schema) if options.get("strict") else None
    strict = {} if "strict" not in options else {"strict": prepared is not None}
    form = {"name": "answer", **options, **strict, "schema": schema if prepared is None else prepared}
    return {"type": "json_schema", "json_schema": form}


def _wire_messages(messages: tuple[ChatMessage, ...]) -> list[dict[str, Any]]:
    """Return the messages. A tool message can only be text: its other parts follow in a user message."""
    wire: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "tool":
            wire.append(_wire_result(message, moved))
            continue
        if moved:
            wire.append({"role": "user", "content": moved})
            moved = []
        if isinstance(message.content, str) or not _only_signed_reasoning(message):
            wire.append(_wire_message(message))
    return [*wire, {"role": "user", "content": moved}] if moved else wire


def _wire_result(message: ChatMessage, moved: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a tool message, and add its parts that are not text to ``moved``."""
    content = message.content
    others: list[dict[str, Any]] = []
    if not isinstance(content, str):
        parts = [_wire_part(part) for part in content]
        others = [part for part in parts if part["type"] != "text"]
        content = "\n".join(part["text"] for part in parts if part["type"] == "text")
    if others:
        moved += [{"type": "text", "text": f"What the call {message.tool_call_id} has shown:"}, *others]
    if message.is_error:
        content = f"{ERROR}{content}"
    return {"role": "tool", "content": content, "tool_call_id": message.tool_call_id}


def _wire_message(message: ChatMessage) -> dict[str, Any]:
    content = message.content
    wire: dict[str, Any] = {"role": message.role, "content": content}
    if not isinstance(content, str):
        wire = {"role": message.role, **_wire_content(content)}
    if message.tool_calls:
        if wire["content"] == "":
            wire["content"] = None
        wire["tool_calls"] = [wire_call(call) for call in message.tool_calls]
    if message.name:
        wire["name"] = message.name
    return wire


def wire_call(call: ToolCall) -> dict[str, Any]:
    """Return a tool call, for both sides of the dialect."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _wire_content(content: tuple[ContentPart, ...]) -> dict[str, Any]:
    """Return the content, and the unsigned reasoning in a field of its own."""
    thoughts = [part for part in content if isinstance(part, ReasoningPart)]
    rest = _without_reasoning(content) if thoughts else content
    encoded = rest if isinstance(rest, str) else [_wire_part(part) for part in rest]
    reasoning = "".join(thought.text for thought in thoughts if not thought.signature)
    return {"reasoning_content": reasoning, "content": encoded} if reasoning else {"content": encoded}


def _only_signed_reasoning(message: ChatMessage) -> bool:
    """Whether a message has only reasoning signed by another vendor."""
    content = message.content
    if isinstance(content, str) or not content or message.tool_calls:
        return False
    return all(isinstance(part, ReasoningPart) and part.signature for part in content)


def _without_reasoning(content: tuple[ContentPart, ...]) -> str | tuple[ContentPart, ...]:
    """Return the content without its reasoning; joined to one text where only texts remain."""
    rest = tuple(part for part in content if not isinstance(part, ReasoningPart))
    texts = [part.text for part in rest if isinstance(part, TextPart)]
    return "".join(texts) if len(texts) == len(rest) else rest


def _wire_part(part: ContentPart) -> dict[str, Any]:
    if isinstance(part, VendorPart):
        if part.dialect != DIALECT:
            raise unsupported_part(part, DIALECT)
        return part.value
    return {**_own_part(part), **part.extra.get(DIALECT, {})} if not isinstance(part, ReasoningPart) else {}


def _own_part(part: TextPart | ImagePart | FilePart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, ImagePart):
        detail = {"detail": part.detail} if part.detail else {}
        return {"type": "image_url", "image_url": {"url": part.url, **detail}}
    if part.text:
        return {"type": "text", "text": f"{part.filename}\n\n{part.text}" if part.filename else part.text}
    if not part.url.startswith("data:"):
        raise unsupported_part(part, DIALECT)
    name = {"filename": part.filename} if part.filename else {}
    return {"type": "file", "file": {"file_data": part.url, **name}}


def _wire_tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    function |= tool.extra.get(DIALECT, {})
    return {"type": "function", "function": function}


# ------------------------------------------------------------------------------------------------ streamed answers


class _FunctionDelta(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _CallDelta(msgspec.Struct, gc=False):
    index: int = 0
    id: str | None = None
    function: _FunctionDelta | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    refusal: str | None = None
    tool_calls: tuple[_CallDelta, ...] | None = None


class _Logprobs(msgspec.Struct, gc=False):
    content: list[Any] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


class _Error(msgspec.Struct, gc=False):
    type: str | None = None
    code: str | int | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: tuple[_Choice, ...] | None = None
    usage: _Usage | None = None
    error: _Error | str | None = None


class _FirstChunk(_Chunk, gc=False):
    id: str | None = None
    model: str | None = None


_chunk = msgspec.json.Decoder(_Chunk).decode
_first_chunk = msgspec.json.Decoder(_FirstChunk).decode

_FINISH: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_STATUS_DIGITS: Final = 3
_RATE_LIMIT_WORDS: Final = ("rate_limit", "insufficient_quota", "tokens", "requests")
_REJECTED_WORDS: Final = ("invalid_request", "context_length", "not_found")


class ChatReader:
    """Reads one streamed answer, event by event.

    Attributes:
        finish_reason: why the model stopped; None until the stream says so.
        stop_sequence: always empty: the dialect does not report it.
        usage: tokens; None until they are reported.
        model: the upstream's name of the model.
        response_id: the upstream's id of the answer.
        ended: whether the stream's end marker has been read.
    """

    __slots__ = ("ended", "finish_reason", "model", "response_id", "stop_sequence", "usage")

    def __init__(self) -> None:
        self.finish_reason: FinishReason | None = None
        self.stop_sequence = ""
        self.usage: Usage | None = None
        self.model = ""
        self.response_id = ""
        self.ended = False

    @property
    def whole(self) -> bool:
        """Whether the answer is complete: the finish reason has been read."""
        return self.finish_reason is not None

    def feed(self, data: bytes, into: Deltas) -> None:
        """Read the data of one event and append its content to ``into``.

        Raises:
            ProviderError: ``provider_bad_response``: the data is not a chunk; or the failure of an in-band error.
        """
        if data == DONE:
            self.ended = True
            return
        try:
            chunk = _chunk(data) if self.response_id else self._first(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProviderError(code="provider_bad_response") from error
        if chunk.choices:
            for choice in chunk.choices:
                if choice.index == 0:
                    self._choice(choice, into)
        elif chunk.error is not None:
            _in_band(chunk.error)
        if chunk.usage is not None:
            self.usage = _canonical_usage(chunk.usage)

    def _first(self, data: bytes) -> _Chunk:
        """Read the first chunk, with the id and the model, which are the same in all chunks."""
        chunk = _first_chunk(data)
        self.response_id = chunk.id or ""
        self.model = chunk.model or ""
        return chunk

    def _choice(self, choice: _Choice, into: Deltas) -> None:
        delta = choice.delta
        if delta is not None:
            thought = delta.reasoning_content or delta.reasoning
            if thought and isinstance(thought, str):
                into.append(ReasoningDelta(text=thought))
            text = delta.content or delta.refusal
            if choice.logprobs is not None and choice.logprobs.content:
                into.append(Delta(text=text or "", logprobs=_json(choice.logprobs.content).decode()))
            elif text:
                into.append(Delta(text=text))
            if delta.tool_calls:
                into.extend(map(_tool_delta, delta.tool_calls))
        if choice.finish_reason:
            self.finish_reason = _FINISH.get(choice.finish_reason, "stop")


def _tool_delta(call: _CallDelta) -> ToolCallDelta:
    function = call.function or _FunctionDelta()
    return ToolCallDelta(
        index=call.index, id=call.id or "", name=function.name or "", arguments=function.arguments or ""
    )


def _canonical_usage(wire: _Usage) -> Usage:
    """Return the tokens by class. Tokens written to the cache are at most those that were not read from it."""
    inputs, outputs = wire.prompt_tokens_details, wire.completion_tokens_details
    total = wire.prompt_tokens or 0
    cached = (inputs.cached_tokens or 0) if inputs else 0
    written = (inputs.cache_write_tokens or 0) if inputs else 0
    return Usage(
        input_tokens=total,
        output_tokens=wire.completion_tokens or 0,
        cached_input_tokens=cached,
        reasoning_tokens=(outputs.reasoning_tokens or 0) if outputs else 0,
        cache_write_input_tokens=min(written, max(0, total - cached)),
    )


def _in_band(error: _Error | str) -> NoReturn:
    kind, code = ("", "") if isinstance(error, str) else (str(error.type or ""), str(error.code or ""))
    text = f"{kind} {code}".lower()
    if code.isdigit() and len(code) == _STATUS_DIGITS:
        raise ProviderError(code=code_of(int(code)))
    if any(word in text for word in _RATE_LIMIT_WORDS):
        raise ProviderError(code="provider_rate_limited")
    if any(word in text for word in _REJECTED_WORDS):
        raise ProviderError(code="provider_rejected")
    raise ProviderError(code="provider_error")
