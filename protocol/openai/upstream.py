"""OpenAI's chat dialect, the provider's side: encodes requests. ``reader`` reads the answers.

A message of this dialect has one content, one reasoning and one list of calls. A message whose parts come in another
order is put into that form: texts that stood together are joined as they are, texts with another part between them by a
blank line, and calls keep their order.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from protocol.call_ids import fitting_id
from protocol.json.parameters import object_schema
from protocol.json.strict_schema import openai_schema, strict_tool
from protocol.llm import (
    ChatMessage,
    ChatRequest,
    ContentPart,
    FilePart,
    ImagePart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    Tool,
    ToolCall,
    ToolCallPart,
    Vendor,
    VendorPart,
)
from protocol.openai.limits import OF_OTHERS, ChatLimits
from protocol.upstream import no_messages, unsupported_part
from protocol.vendor_extras import vendor_of

DIALECT: Final[Vendor] = "openai"
OTHER: Final[Vendor] = "anthropic"
ERROR: Final = "Error: "  # prefix of the result of a failed tool call: the dialect has no field for it
REFUSAL: Final = "refusal"  # the extra field of a message that has its refusal beside the content, not within it
BLANK_LINE: Final = "\n\n"
NOTHING: Final = {"content": ""}
NO_EXTRAS: Final = ("type", "text")  # the fields of a plain text

LOW_BUDGET: Final = 4096  # tokens of thinking up to which the effort is low
MEDIUM_BUDGET: Final = 16384
_EFFORTS: Final = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}

_json = msgspec.json.Encoder().encode


def chat_body(
    request: ChatRequest,
    model: str,
    *,
    tokens_field: str = "max_tokens",
    max_tokens: int | None = None,
    omit: tuple[str, ...] = (),
    limits: ChatLimits = OF_OTHERS,
    encode: Callable[[Any], bytes] = _json,
) -> bytes:
    """Return the body of a streamed chat completion for an upstream of this dialect.

    Args:
        request: the canonical request.
        model: the upstream's name of the model.
        tokens_field: the name of the token limit: ``max_completion_tokens`` at OpenAI, elsewhere ``max_tokens``.
        max_tokens: the token limit where the request has none.
        omit: top-level fields that this upstream refuses.
        limits: what this upstream takes at most.
        encode: encodes the JSON.

    Raises:
        ProviderError: ``provider_rejected``: the dialect has no form for a part, or no message is left.
    """
    own = request.dialect == DIALECT
    body = dict(request.extra) if own else _translated(request)
    body["model"] = model
    body["messages"] = _wire_messages(request.messages, limits.id_length, own=own)
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
    if request.stop and (stop := [text for text in request.stop if text]):
        body["stop"] = stop[: limits.stops]
    if request.tools or request.extra:
        _add_tools(request, body, own=own)
    if request.schema is not None:
        body["response_format"] = _schema_format(request.schema, body.get("response_format"))
    for field in omit:
        body.pop(field, None)
    return encode(body)


def takes_schema(_schema: dict[str, Any]) -> bool:
    """Whether the dialect's structured output can hold a model to a schema: any, though not every one strictly."""
    return True


# ------------------------------------------------------------------------------------------------ fields of the body


def _translated(request: ChatRequest) -> dict[str, Any]:
    """Return the fields that say what the other dialect's extra fields say."""
    if request.dialect != OTHER or not request.extra:
        return {}
    body: dict[str, Any] = {}
    choice = request.extra.get("tool_choice")
    if isinstance(choice, dict) and choice.get("disable_parallel_tool_use") is True:
        body["parallel_tool_calls"] = False
    effort = _effort(request.extra)
    if effort:
        body["reasoning_effort"] = effort
    return body


def _effort(extra: dict[str, Any]) -> str:
    """Return the reasoning effort; empty where none is asked for."""
    config, thinking = extra.get("output_config"), extra.get("thinking")
    if isinstance(config, dict) and isinstance(config.get("effort"), str):
        return _EFFORTS.get(config["effort"], "")
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    if not isinstance(budget, int | float):
        return ""
    return "low" if budget <= LOW_BUDGET else "medium" if budget <= MEDIUM_BUDGET else "high"


def _add_tools(request: ChatRequest, body: dict[str, Any], *, own: bool) -> None:
    """Add the tools that this dialect has; without any of them nothing that is about tools is sent."""
    tools = [tool for tool in request.tools if vendor_of(tool) in (None, DIALECT)]
    if not tools:
        body.pop("tool_choice", None)
        body.pop("parallel_tool_calls", None)
        return
    body["tools"] = [_wire_tool(tool, own=own) for tool in tools]
    choice = request.tool_choice
    if choice in ("auto", "none", "required"):
        body["tool_choice"] = choice
    elif any(tool.name == choice and vendor_of(tool) is None for tool in tools):
        body["tool_choice"] = {"type": "function", "function": {"name": choice}}


def _wire_tool(tool: Tool, *, own: bool) -> dict[str, Any]:
    fields = tool.extra.get(DIALECT, {})
    if vendor_of(tool) is not None:
        return fields
    described = {"description": tool.description} if tool.description else {}
    parameters = object_schema(tool.parameters)
    function = {"name": tool.name, **described, "parameters": parameters, **fields}
    strict = fields.get("strict", tool.extra.get(OTHER, {}).get("strict"))
    if strict is not True:
        return {"type": "function", "function": function}
    function.pop("strict", None)
    strict_form = strict_tool(parameters, as_it_is=own)
    if strict_form is not None:
        function |= {"parameters": strict_form, "strict": True}
    return {"type": "function", "function": function}


def _schema_format(schema: dict[str, Any], given: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the response format: strict where the schema can be converted, unless the client chose otherwise."""
    options = given["json_schema"] if given else {"strict": True}
    prepared = openai_schema(schema) if options.get("strict") else None
    strict = {} if "strict" not in options else {"strict": prepared is not None}
    form = {"name": "answer", **options, **strict, "schema": schema if prepared is None else prepared}
    return {"type": "json_schema", "json_schema": form}


# --------------------------------------------------------------------------------------------------------- messages


def _wire_messages(messages: tuple[ChatMessage, ...], id_length: int, *, own: bool) -> list[dict[str, Any]]:
    """Return the messages. A tool message can only be text: its other parts follow in a user message."""
    wire: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "tool":
            wire.append(_wire_result(message, moved, id_length, own=own))
            continue
        if moved:
            wire.append({"role": "user", "content": moved})
            moved = []
        if (encoded := _wire_message(message, id_length, own=own)) is not None:
            wire.append(encoded)
    if moved:
        wire.append({"role": "user", "content": moved})
    if not wire:
        raise no_messages(DIALECT)
    return wire


def _wire_result(message: ChatMessage, moved: list[dict[str, Any]], id_length: int, *, own: bool) -> dict[str, Any]:
    """Return a tool message, and add its parts that are not text to ``moved``.

    Several texts of a client of this dialect stay the parts that they are; those of another one are joined by line
    ends.
    """
    call_id = fitting_id(message.tool_call_id, id_length)
    content: str | list[dict[str, Any]]
    if isinstance(message.content, str):
        content = message.content
    else:
        parts = [_wire_part(part) for part in message.content]
        texts = [part for part in parts if part.get("type") == "text"]
        apart = own and not message.is_error and (len(texts) > 1 or any(len(part) > len(NO_EXTRAS) for part in texts))
        content = texts if apart else "\n".join(part["text"] for part in texts)
        if len(texts) < len(parts):
            others = [part for part in parts if part.get("type") != "text"]
            moved += [{"type": "text", "text": f"What the call {call_id} has shown:"}, *others]
    if message.is_error:
        content = f"{ERROR}{content}"
    wire: dict[str, Any] = {"role": "tool", "content": content, "tool_call_id": call_id}
    if message.name:
        wire["name"] = message.name
    return {**wire, **message.extra.get(DIALECT, {})}


def _wire_message(message: ChatMessage, id_length: int, *, own: bool) -> dict[str, Any] | None:
    """Return a message; None where nothing of it is for this dialect."""
    content = message.content
    wire: dict[str, Any] = {"role": message.role, "content": content}
    if isinstance(content, str) and not (message.tool_calls or message.name or message.extra):
        return wire
    calls = [_sent_call(call, id_length) for call in message.tool_calls]
    if not isinstance(content, str):
        fields = _wire_content(content, message, own=own)
        calls = [_sent_call(part, id_length) for part in content if isinstance(part, ToolCallPart)] + calls
        if content and message.role == "assistant" and fields == NOTHING and not (calls or DIALECT in message.extra):
            return None
        wire = {"role": message.role, **fields}
    if calls:
        wire["content"] = wire["content"] or None
        wire["tool_calls"] = calls
    if message.name:
        wire["name"] = message.name
    return {**wire, **message.extra[DIALECT]} if DIALECT in message.extra else wire


def _sent_call(call: ToolCall | ToolCallPart, id_length: int) -> dict[str, Any]:
    """Return a tool call with an id that the upstream takes."""
    wire = wire_call(call)
    return wire if len(call.id) <= id_length else {**wire, "id": fitting_id(call.id, id_length)}


def wire_call(call: ToolCall | ToolCallPart) -> dict[str, Any]:
    """Return a tool call, for both sides of the dialect."""
    wire = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    extra = call.extra.get(DIALECT)
    if not extra:
        return wire
    if "type" in extra:
        return extra  # a call of another kind: its extras are the whole call
    return {**wire, **extra, "function": {**wire["function"], **extra.get("function", {})}}  # type: ignore[dict-item]


def _wire_content(content: tuple[ContentPart, ...], message: ChatMessage, *, own: bool) -> dict[str, Any]:
    """Return the content, and the unsigned reasoning, the refusal and the vendor's fields in fields of their own."""
    thoughts: list[str] = []
    fields: dict[str, Any] = {}
    rest: list[ContentPart | None] = []
    beside = REFUSAL in message.extra.get(DIALECT, {})
    for part in content:
        kept: ContentPart | None = None
        if isinstance(part, ReasoningPart):
            thoughts += () if part.signature else (part.text,)
        elif isinstance(part, RefusalPart) and (beside or not own):
            fields[REFUSAL] = fields.get(REFUSAL, "") + part.text
        elif isinstance(part, VendorPart) and message.role == "assistant":
            kept = _vendor_part(part, fields)
        elif not isinstance(part, ToolCallPart):
            kept = part
        rest.append(kept)
        if message.role == "system":
            rest.append(None)  # the blocks of a system prompt are apart
    reasoning = {"reasoning_content": BLANK_LINE.join(thoughts)} if thoughts else {}
    as_parts = own or message.role not in {"assistant", "system"}
    if message.role == "assistant" and as_parts:
        was_text = bool(thoughts or beside) and len(rest) - rest.count(None) == 1
        as_parts = not was_text and not any(isinstance(part, ToolCallPart) for part in content)
    encoded = _encoded(rest, as_parts=as_parts)
    return {**reasoning, "content": encoded or None if REFUSAL in fields else encoded, **fields}


def _vendor_part(part: VendorPart, fields: dict[str, Any]) -> VendorPart | None:
    """Return a vendor's part of an answer, for the content; one without a type is fields of the message.

    Those of another vendor, such as its server's tools, mean nothing here, and are left out.
    """
    if part.dialect != DIALECT or "type" in part.value:
        return part if part.dialect == DIALECT else None
    for name, value in part.value.items():
        before = fields.get(name)
        fields[name] = [*before, *value] if isinstance(before, list) and isinstance(value, list) else value
    return None


def _encoded(parts: list[ContentPart | None], *, as_parts: bool) -> str | list[dict[str, Any]]:
    """Return a content: its parts, or one text where they are plain texts and don't have to be parts.

    Empty texts are left out.

    Args:
        parts: None for one that is not in the content.
        as_parts: whether texts stay parts.
    """
    kept = [part for part in parts if part is not None and not (isinstance(part, TextPart) and not part.text)]
    if not kept or not (as_parts or any(not isinstance(part, TextPart) or DIALECT in part.extra for part in kept)):
        return "".join(_joined(parts))
    return [_wire_part(part) for part in kept]


def _joined(parts: list[ContentPart | None]) -> Iterator[str]:
    """Yield the texts, and a blank line between those that did not stand together."""
    begun = apart = False
    for part in parts:
        if not isinstance(part, TextPart):
            apart = True
        elif part.text:
            if begun and apart:
                yield BLANK_LINE
            yield part.text
            begun, apart = True, False


def _wire_part(part: ContentPart) -> dict[str, Any]:
    if isinstance(part, VendorPart):
        if part.dialect != DIALECT:
            raise unsupported_part(part, DIALECT)
        return part.value
    if isinstance(part, RefusalPart):
        return {"type": "refusal", "refusal": part.text}
    if isinstance(part, ReasoningPart | ToolCallPart):
        raise unsupported_part(part, DIALECT)  # only messages of the assistant have them
    return {**_own_part(part), **part.extra.get(DIALECT, {})}


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
