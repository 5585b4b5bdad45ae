"""Anthropic's messages dialect, the provider's side: encodes requests. ``reader`` reads the answers."""

import base64
from typing import Any, Final

import msgspec

from protocol.json.strict_schema import anthropic_schema
from protocol.llm import (
    ChatMessage,
    ChatRequest,
    ContentPart,
    FilePart,
    ImagePart,
    ReasoningPart,
    TextPart,
    Vendor,
    VendorPart,
)
from protocol.upstream import unsupported_part

DIALECT: Final[Vendor] = "anthropic"
VERSION: Final = "2023-06-01"
DEFAULT_MAX_TOKENS: Final = 4096  # the dialect has no default of its own
MAX_TEMPERATURE: Final = 1.0
BETAS: Final = "anthropic_beta"  # the key in ``ChatRequest.extra`` of the features that a client asked for in a header
UNREADABLE: Final = "INVALID_JSON"  # the key for arguments that are not a JSON object, as Anthropic recommends

_json = msgspec.json.Encoder().encode


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
