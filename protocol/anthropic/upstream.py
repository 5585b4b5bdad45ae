"""Anthropic's messages dialect, the provider's side: encodes requests. ``reader`` reads the answers.

The blocks of a turn keep their order, and those that only this vendor has are sent as they came.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from protocol.anthropic.media import PDF, source_of, text_of
from protocol.call_ids import plain_id
from protocol.json.strict_schema import anthropic_schema, strict_anthropic_tool
from protocol.json.values import has_more_values
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
    ToolCallPart,
    Vendor,
    VendorPart,
    parts_of,
)
from protocol.upstream import no_messages, unsupported_part
from protocol.vendor_extras import vendor_of

DIALECT: Final[Vendor] = "anthropic"
OTHER: Final[Vendor] = "openai"
VERSION: Final = "2023-06-01"
DEFAULT_MAX_TOKENS: Final = 4096  # the dialect has no default of its own
MAX_TEMPERATURE: Final = 1.0
BETAS: Final = "anthropic_beta"  # the key in ``ChatRequest.extra`` of the features that a client asked for in a header
UNREADABLE: Final = "INVALID_JSON"  # the key for arguments that are not a JSON object, as Anthropic recommends
SILENCE: Final = "(empty)"  # a last turn of the user's that is blank: the vendor takes no blank texts
CHOICES: Final = {"auto": "auto", "none": "none", "required": "any"}
MAX_ID: Final = 64  # characters of an id, where it has a form that the vendor does not take

_EFFORTS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high"}

_json = msgspec.json.Encoder().encode


def messages_body(request: ChatRequest, model: str, encode: Callable[[Any], bytes] = _json) -> bytes:
    """Return the body of a streamed ``POST /v1/messages``; see :func:`betas_of` for the header.

    The dialect has no seed: it is left out. ``encode`` encodes the JSON.

    Raises:
        ProviderError: ``provider_rejected``: the dialect has no form for a part, or no message is left.
    """
    own = request.dialect == DIALECT
    body = dict(request.extra) if own else _translated(request)
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
    if request.stop and (stop := [text for text in request.stop if text.strip()]):
        body["stop_sequences"] = stop
    if request.tools or request.extra:
        _add_tools(request, body, own=own)
    if request.schema is not None:
        form = {"type": "json_schema", "schema": anthropic_schema(request.schema) or request.schema}
        body["output_config"] = {**body.get("output_config", {}), "format": form}
    return encode(body)


def takes_schema(schema: dict[str, Any]) -> bool:
    """Whether the dialect's structured output can hold a model to ``schema``."""
    return anthropic_schema(schema) is not None


def betas_of(request: ChatRequest) -> tuple[str, ...]:
    """Return the vendor's features that a client of this dialect asked for in the header ``anthropic-beta``."""
    return tuple(request.extra.get(BETAS, ())) if request.dialect == DIALECT else ()


# ------------------------------------------------------------------------------------------------ fields of the body


def _translated(request: ChatRequest) -> dict[str, Any]:
    """Return the fields that say what the other dialect's extra fields say."""
    if request.dialect != OTHER or not request.extra:
        return {}
    effort = request.extra.get("reasoning_effort")
    named = _EFFORTS.get(effort) if isinstance(effort, str) else None
    return {"output_config": {"effort": named}} if named else {}


def _add_tools(request: ChatRequest, body: dict[str, Any], *, own: bool) -> None:
    """Add the tools that this dialect has; without any of them nothing that is about tools is sent."""
    tools = [tool for tool in request.tools if vendor_of(tool) in (None, DIALECT)]
    given = body.pop("tool_choice", None)
    if not tools:
        return
    body["tools"] = [_tool(tool, own=own) for tool in tools]
    choice = dict(given) if isinstance(given, dict) else {}
    names = {tool.name for tool in tools}
    if request.tool_choice in CHOICES or request.tool_choice in names:
        kind = CHOICES.get(request.tool_choice)
        choice |= {"type": kind} if kind else {"type": "tool", "name": request.tool_choice}
    if not own and request.extra.get("parallel_tool_calls") is False and choice.get("type") != "none":
        choice = {"type": "auto", **choice, "disable_parallel_tool_use": True}
    if "type" in choice:
        body["tool_choice"] = choice


def _tool(tool: Tool, *, own: bool) -> dict[str, Any]:
    fields = tool.extra.get(DIALECT, {})
    if vendor_of(tool) is not None:
        return fields
    described = {"description": tool.description} if tool.description else {}
    parameters = tool.parameters if tool.parameters.get("type") else {**tool.parameters, "type": "object"}
    wire = {"name": tool.name, **described, "input_schema": parameters, **fields}
    strict = fields.get("strict", tool.extra.get(OTHER, {}).get("strict"))
    if strict is not True:
        return wire
    wire.pop("strict", None)
    strict_form = strict_anthropic_tool(parameters, as_it_is=own)
    return wire if strict_form is None else {**wire, "input_schema": strict_form, "strict": True}


def _system(messages: tuple[ChatMessage, ...]) -> str | list[dict[str, Any]]:
    """Return the system prompt: a text, or blocks where a message has several parts or vendor extras."""
    system = [message for message in messages if message.role == "system"]
    texts = [message.content for message in system if isinstance(message.content, str)]
    if len(texts) == len(system):
        return "\n\n".join(filter(_is_said, texts))
    return [block for message in system for block in _blocks(message)]


# --------------------------------------------------------------------------------------------------------- messages


def _messages(messages: tuple[ChatMessage, ...]) -> list[dict[str, Any]]:
    """Return the turns. Tool results that follow each other, and what the user says after them, are one turn.

    What the vendor refuses is left out: blank texts, turns without anything else, and blanks at the end of a last turn
    of the assistant's.
    """
    turns: list[dict[str, Any]] = []
    results: list[dict[str, Any]] | None = None
    for message in messages:
        if message.role == "system":
            continue
        if message.role == "tool":
            if results is None:
                results = []
                turns.append({"role": "user", "content": results})
            results.append(_result(message))
            continue
        if results is not None and message.role == "user":
            results += _blocks(message)
        elif content := _content(message):
            turns.append({"role": message.role, "content": content})
        results = None
    if not turns:
        raise no_messages(DIALECT)
    _end(turns, messages[-1])
    return turns


def _end(turns: list[dict[str, Any]], last: ChatMessage) -> None:
    """Make the end of ``turns`` one that the vendor answers; a silent user does not let the assistant go on."""
    if turns[-1]["role"] != "assistant":
        return
    if last.role == "user":
        turns.append({"role": "user", "content": SILENCE})
        return
    content = turns[-1]["content"]
    if isinstance(content, str):
        turns[-1]["content"] = content.rstrip()
    elif content[-1].get("type") == "text":
        content[-1] = {**content[-1], "text": content[-1]["text"].rstrip()}


def _result(message: ChatMessage) -> dict[str, Any]:
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": plain_id(message.tool_call_id, MAX_ID)}
    content = _content(message)
    if content:
        result["content"] = content
    failed = {"is_error": True} if message.is_error else {}
    return {**result, **failed, **message.extra.get(DIALECT, {})}


def _content(message: ChatMessage) -> str | list[dict[str, Any]]:
    """Return what a message says, without blank texts; empty where it says nothing."""
    content = message.content
    if isinstance(content, str) and not message.tool_calls:
        return content if _is_said(content) else ""
    return _blocks(message)


def _blocks(message: ChatMessage) -> list[dict[str, Any]]:
    of_assistant = message.role == "assistant"
    return [_block(part) for part in parts_of(message) if _is_sent(part, of_assistant=of_assistant)]


def _is_sent(part: ContentPart, *, of_assistant: bool) -> bool:
    """Whether a part is sent: not a blank text, unsigned reasoning, or another vendor's part of an answer."""
    if isinstance(part, TextPart | RefusalPart):
        return _is_said(part.text)
    if isinstance(part, ReasoningPart):
        return bool(part.signature)
    return not (of_assistant and isinstance(part, VendorPart) and part.dialect != DIALECT)


def _is_said(text: str) -> bool:
    return bool(text) and not text.isspace()


def thinking(part: ReasoningPart) -> dict[str, Any]:
    """Return a block of thinking, for both sides of the dialect."""
    if part.redacted:
        return {"type": "redacted_thinking", "data": part.signature}
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def _block(part: ContentPart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        block: dict[str, Any] = {"type": "text", "text": part.text}
    elif isinstance(part, ToolCallPart):
        tool_use = {"type": "tool_use", "id": plain_id(part.id, MAX_ID), "name": part.name}
        block = {**tool_use, "input": tool_input(part.arguments)}
    elif isinstance(part, ReasoningPart):
        return thinking(part)
    elif isinstance(part, RefusalPart):
        return {"type": "text", "text": part.text}
    elif isinstance(part, VendorPart):
        if part.dialect != DIALECT:
            raise unsupported_part(part, DIALECT)
        return part.value
    elif isinstance(part, ImagePart):
        block = {"type": "image", "source": source_of(part.url)}
    else:
        block = _document(part)
    return {**block, **part.extra.get(DIALECT, {})}


def _document(part: FilePart) -> dict[str, Any]:
    """Return a document, or the image that a file is. As data the dialect takes only PDFs and texts."""
    title = {"title": part.filename} if part.filename else {}
    source = {} if part.text else source_of(part.url)
    if source.get("type") == "base64" and source["media_type"] != PDF:
        if source["media_type"].startswith("image/") and text_of(source) is None:
            return {"type": "image", "source": source}
        text = text_of(source)
    else:
        text = part.text
    if text is None:
        raise unsupported_part(part, DIALECT, source["media_type"])
    if text:
        source = {"type": "text", "media_type": "text/plain", "data": text}
    return {"type": "document", "source": source, **title}


def tool_input(arguments: str) -> msgspec.Raw | dict[str, str]:
    """Return a call's arguments as an object: unchanged where the model wrote a JSON object.

    Nothing, null, and the empty list that some languages make of an empty object are an empty object. Arguments of more
    values than a body may have are not read.
    """
    if arguments.strip() in ("", "null", "[]"):
        return {}
    encoded = arguments.encode()
    if has_more_values(encoded):
        return {UNREADABLE: arguments}
    try:
        msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return {UNREADABLE: arguments}
    return msgspec.Raw(encoded)
