"""OpenAI's chat dialect, the provider's side: encodes requests. ``reader`` reads the answers."""

from typing import Any, Final

import msgspec

from protocol.json.strict_schema import openai_schema
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
    Vendor,
    VendorPart,
)
from protocol.upstream import unsupported_part

DIALECT: Final[Vendor] = "openai"
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
