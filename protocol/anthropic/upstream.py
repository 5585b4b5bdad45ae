"""Anthropic's messages dialect, upstream: encodes requests, and reads streamed answers.

Unknown fields of an answer are ignored; an upstream's error text is never passed on.
"""

import base64
from typing import Any, Final

import msgspec

from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, ToolCallDelta
from protocol.json.strict_schema import anthropic_schema
from protocol.llm import (
    ChatMessage,
    ChatRequest,
    ContentPart,
    FilePart,
    FinishReason,
    ImagePart,
    ReasoningPart,
    TextPart,
    Usage,
    Vendor,
    VendorPart,
)
from protocol.upstream import Deltas, unsupported_part

DIALECT: Final[Vendor] = "anthropic"
VERSION: Final = "2023-06-01"
DEFAULT_MAX_TOKENS: Final = 4096  # the dialect has no default of its own
MAX_TEMPERATURE: Final = 1.0
BETAS: Final = "anthropic_beta"  # the key in ``ChatRequest.extra`` of the features that a client asked for in a header
UNREADABLE: Final = "INVALID_JSON"  # the key for arguments that are not a JSON object, as Anthropic recommends

_json = msgspec.json.Encoder().encode


# --------------------------------------------------------------------------------------------------------- requests


def messages_body(request: ChatRequest, model: str) -> bytes:
    """Return the body of a streamed ``POST /v1/messages``; see :func:`betas_of` for the header.

    The dialect has no seed: it is left out.
    """
    body: dict[str, Any] = dict(request.extra) if request.dialect == DIALECT else {}
    body.pop(BETAS, None)
    body["model"] = model
    body["max_tokens"] = request.max_tokens or DEFAULT_MAX_TOKENS
    body["messages"] = _messages(request.messages)
    body["stream"] = True
    system = _system(request.messages)
    if system:
        body["system"] = system
    if request.temperature is not None:
        body["temperature"] = min(request.temperature, MAX_TEMPERATURE)
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop_sequences"] = request.stop
    if request.tools:
        body["tools"] = [
            {
                "name": tool.name,
                "description": tool.description,
                "input_schema": tool.parameters or {"type": "object"},
                **tool.extra.get(DIALECT, {}),
            }
            for tool in request.tools
        ]
    if request.tool_choice:
        body["tool_choice"] = {**body.get("tool_choice", {}), **_tool_choice(request.tool_choice)}
    if request.schema is not None:
        form = {"type": "json_schema", "schema": anthropic_schema(request.schema) or request.schema}
        body["output_config"] = {**body.get("output_config", {}), "format": form}
    return _json(body)


def betas_of(request: ChatRequest) -> tuple[str, ...]:
    """Return the vendor's features that a client of this dialect asked for in the header ``anthropic-beta``."""
    return tuple(request.extra.get(BETAS, ())) if request.dialect == DIALECT else ()


def _tool_choice(choice: str) -> dict[str, str]:
    kind = {"auto": "auto", "none": "none", "required": "any"}.get(choice)
    return {"type": kind} if kind else {"type": "tool", "name": choice}


def _messages(messages: tuple[ChatMessage, ...]) -> list[dict[str, Any]]:
    """Return the messages; consecutive tool results become one user message."""
    turns: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            continue
        if message.role == "tool":
            if not results:
                turns.append({"role": "user", "content": results})
            results.append(_result(message))
            continue
        results = []
        content = _content(message)
        if content or not message.content:
            turns.append({"role": message.role, "content": content})
    return turns


def _result(message: ChatMessage) -> dict[str, Any]:
    result = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": _content(message)}
    failed = {"is_error": True} if message.is_error else {}
    return {**result, **failed, **message.extra.get(DIALECT, {})}


def _system(messages: tuple[ChatMessage, ...]) -> str | list[dict[str, Any]]:
    """Return the system prompt: a text, or blocks where one of them has vendor extras."""
    system = [message for message in messages if message.role == "system"]
    parts = [part for message in system if not isinstance(message.content, str) for part in message.content]
    if not any(isinstance(part, TextPart) and DIALECT in part.extra for part in parts):
        return "\n\n".join(map(_text, system))
    blocks: list[dict[str, Any]] = []
    for message in system:
        content = message.content
        blocks += [_part(part) for part in ((TextPart(text=content),) if isinstance(content, str) else content)]
    return blocks


def _content(message: ChatMessage) -> str | list[dict[str, Any]]:
    content = message.content
    if not message.tool_calls:
        return content if isinstance(content, str) else [_part(part) for part in content if _is_sent(part)]
    parts = (TextPart(text=content),) if isinstance(content, str) else content
    blocks = [_part(part) for part in parts if _is_sent(part) and not (isinstance(part, TextPart) and not part.text)]
    blocks.extend(
        {
            "type": "tool_use",
            "id": call.id,
            "name": call.name,
            "input": tool_input(call.arguments),
            **call.extra.get(DIALECT, {}),
        }
        for call in message.tool_calls
    )
    return blocks


def _is_sent(part: ContentPart) -> bool:
    """Whether an upstream gets ``part``: of the reasoning only signed parts."""
    return not isinstance(part, ReasoningPart) or bool(part.signature)


def thinking(part: ReasoningPart) -> dict[str, Any]:
    """Return a block of thinking, for both sides of the dialect."""
    if part.redacted:
        return {"type": "redacted_thinking", "data": part.signature}
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def _part(part: ContentPart) -> dict[str, Any]:
    if isinstance(part, ReasoningPart):
        return thinking(part)
    if isinstance(part, VendorPart):
        if part.dialect != DIALECT:
            raise unsupported_part(part, DIALECT)
        return part.value
    if isinstance(part, TextPart):
        block: dict[str, Any] = {"type": "text", "text": part.text}
    elif isinstance(part, ImagePart):
        block = {"type": "image", "source": _source(part.url)}
    else:
        block = _document(part)
    return {**block, **part.extra.get(DIALECT, {})}


def _source(url: str) -> dict[str, str]:
    head, comma, encoded = url.partition(",")
    if comma and head.startswith("data:") and head.endswith(";base64"):
        media_type = head.removeprefix("data:").removesuffix(";base64")
        return {"type": "base64", "media_type": media_type, "data": encoded}
    return {"type": "url", "url": url}


def _document(part: FilePart) -> dict[str, Any]:
    """Return a document. A text type becomes a text source: the dialect accepts only PDFs as data."""
    source = _source(part.url)
    text = part.text
    if not text and source.get("media_type", "").startswith("text/"):
        try:
            text = base64.b64decode(source["data"], validate=True).decode()
        except ValueError as error:
            raise unsupported_part(part, DIALECT) from error
    if text:
        source = {"type": "text", "media_type": "text/plain", "data": text}
    title = {"title": part.filename} if part.filename else {}
    return {"type": "document", "source": source, **title}


def _text(message: ChatMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in message.content if isinstance(part, TextPart))


def tool_input(arguments: str) -> msgspec.Raw | dict[str, str]:
    """Return a call's arguments as an object: unchanged where the model wrote a JSON object."""
    if not arguments.strip():
        return {}
    try:
        msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return {UNREADABLE: arguments}
    return msgspec.Raw(arguments.encode())


# ------------------------------------------------------------------------------------------------ streamed answers


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class _Message(msgspec.Struct):
    id: str = ""
    model: str = ""
    usage: _Usage | None = None


class _Block(msgspec.Struct):
    type: str = ""
    id: str = ""
    name: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    data: str = ""


class _Delta(msgspec.Struct):
    type: str = ""
    text: str = ""
    partial_json: str = ""
    thinking: str = ""
    signature: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _Error(msgspec.Struct):
    type: str = ""


class _Event(msgspec.Struct):
    type: str
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: _Error | None = None


_event = msgspec.json.Decoder(_Event).decode

_FINISH: Final[dict[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_CODES: Final = {
    "invalid_request_error": "provider_rejected",
    "not_found_error": "provider_rejected",
    "request_too_large": "provider_rejected",
    "authentication_error": "provider_credentials",
    "permission_error": "provider_credentials",
    "billing_error": "provider_credentials",
    "rate_limit_error": "provider_rate_limited",
    "timeout_error": "provider_timeout",
    "overloaded_error": "provider_unavailable",
}


class MessagesReader:
    """Reads one streamed answer, event by event: a ``protocol.upstream.AnswerReader``."""

    __slots__ = ("_calls", "_tokens", "ended", "finish_reason", "model", "response_id", "stop_sequence", "usage")

    def __init__(self) -> None:
        self.finish_reason: FinishReason | None = None
        self.stop_sequence = ""
        self.usage: Usage | None = None
        self.model = ""
        self.response_id = ""
        self.ended = False
        self._calls: dict[int, int] = {}
        self._tokens = _Usage()

    @property
    def whole(self) -> bool:
        """Whether the answer is complete: the finish reason has been read."""
        return self.finish_reason is not None

    def feed(self, data: bytes, into: Deltas) -> None:
        """Read the data of one event and append its content to ``into``.

        Raises:
            ProviderError: ``provider_bad_response``: the data is not an event; or the failure of an in-band error.
        """
        try:
            event = _event(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProviderError(code="provider_bad_response") from error
        kind = event.type
        if kind == "content_block_delta":
            self._delta(event, into)
        elif kind == "content_block_start":
            self._block(event, into)
        elif kind == "message_start" and event.message is not None:
            self.response_id, self.model = event.message.id, event.message.model
            self._count(event.message.usage)
        elif kind == "message_delta":
            if event.delta is not None and event.delta.stop_reason:
                self.finish_reason = _FINISH.get(event.delta.stop_reason, "stop")
                self.stop_sequence = event.delta.stop_sequence or ""
            self._count(event.usage)
        elif kind == "message_stop":
            self.ended = True
        elif kind == "error":
            raise ProviderError(code=_CODES.get(event.error.type if event.error else "", "provider_error"))

    def _delta(self, event: _Event, into: Deltas) -> None:
        delta = event.delta
        if delta is None:
            return
        if delta.text:
            into.append(Delta(text=delta.text))
        elif delta.partial_json and event.index in self._calls:
            into.append(ToolCallDelta(index=self._calls[event.index], arguments=delta.partial_json))
        elif delta.thinking or delta.signature:
            into.append(ReasoningDelta(text=delta.thinking, signature=delta.signature))

    def _block(self, event: _Event, into: Deltas) -> None:
        block = event.content_block
        if block is None:
            return
        if block.type == "tool_use":
            index = self._calls[event.index] = len(self._calls)
            into.append(ToolCallDelta(index=index, id=block.id, name=block.name))
        elif block.type == "text" and block.text:
            into.append(Delta(text=block.text))
        elif block.type == "thinking" and (block.thinking or block.signature):
            into.append(ReasoningDelta(text=block.thinking, signature=block.signature))
        elif block.type == "redacted_thinking":
            into.append(ReasoningDelta(signature=block.data, redacted=True))

    def _count(self, usage: _Usage | None) -> None:
        """Merge ``usage``: counts of a later event replace those of an earlier one."""
        if usage is None:
            return
        tokens = self._tokens
        for name in _Usage.__struct_fields__:
            value = getattr(usage, name)
            if value is not None:
                setattr(tokens, name, value)
        cached, written = tokens.cache_read_input_tokens or 0, tokens.cache_creation_input_tokens or 0
        details = tokens.output_tokens_details
        self.usage = Usage(
            input_tokens=(tokens.input_tokens or 0) + written + cached,
            output_tokens=tokens.output_tokens or 0,
            cached_input_tokens=cached,
            cache_write_input_tokens=written,
            reasoning_tokens=(details.thinking_tokens or 0) if details is not None else 0,
        )
