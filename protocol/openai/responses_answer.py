"""OpenAI's responses dialect, what clients read: the body of a response in any state."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from protocol.answer import content_of
from protocol.context_length import CONTEXT_LENGTH, in_openai_words
from protocol.errors import PROBLEMS, Family, InternalError
from protocol.events import Cancelled, Completed, Failed
from protocol.json.validation import invalid_field
from protocol.llm import ChatMessage, ChatRequest, FinishReason, TextPart, Tool, ToolCall, Usage
from protocol.openai.responses import ID_PREFIX
from protocol.openai.upstream import DIALECT
from protocol.requests import RequestHandle

MESSAGE_PREFIX: Final = "msg_"
REASONING_PREFIX: Final = "rs_"
CALL_PREFIX: Final = "fc_"

REASONS: Final[dict[FinishReason, str]] = {"length": "max_output_tokens", "content_filter": "content_filter"}
ERROR_CODES: Final[dict[Family, str]] = {
    "request": "invalid_prompt",
    "rate_limit": "rate_limit_exceeded",
    "quota": "rate_limit_exceeded",
}

_json = msgspec.json.Encoder(decimal_format="string").encode


def response_body(handle: RequestHandle) -> bytes:
    """Return the body of a response in its current state."""
    return _json(response_of(handle))


def response_of(handle: RequestHandle) -> dict[str, Any]:
    """Return a response in its current state, with its output so far."""
    stream = handle.stream
    if not stream.ended:
        waits = stream.offset <= 1 and handle.delivery.echo.get("background", False)
        return {**response_base(handle), "status": "queued" if waits else "in_progress", "output": _partial(handle)}
    event = stream.since(stream.offset - 1)[-1].event
    if isinstance(event, Completed):
        text, calls = content_of(event, structured=handle.request.schema is not None)
        status = "incomplete" if event.finish_reason in REASONS else "completed"
        reasoning = "".join(thought.text for thought in event.reasoning)
        output = [reasoning_item(handle.request_id, reasoning, status)] if reasoning else []
        output += [message_item(handle.request_id, text, status)] if text else []
        return completed_response(handle, event, [*output, *(call_item(call, status) for call in calls)])
    if isinstance(event, Failed | Cancelled):
        return failed_response(handle, event)
    raise InternalError("a log ended without a terminal entry")


def response_base(handle: RequestHandle) -> dict[str, Any]:
    """Return the fields of a response that do not change: those of the call, and an empty output."""
    request, delivery = handle.request, handle.delivery
    return {
        "id": ID_PREFIX + handle.request_id,
        "object": "response",
        "created_at": int(handle.state().created_at.timestamp()),
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": request.max_tokens,
        "metadata": delivery.metadata,
        "model": request.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": True,
        "temperature": request.temperature,
        "text": {"format": _format(request)},
        "tool_choice": _choice(request.tool_choice),
        "tools": list(map(_tool, request.tools)),
        "top_p": request.top_p,
        "truncation": "disabled",
        "usage": None,
        **delivery.echo,
    }


def completed_response(handle: RequestHandle, event: Completed, output: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a finished response: ``completed``, or ``incomplete`` where the answer was cut short."""
    reason = REASONS.get(event.finish_reason)
    return {
        **response_base(handle),
        "status": "incomplete" if reason else "completed",
        "completed_at": None if reason else int(handle.state().updated_at.timestamp()),
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
        "usage": _usage(event.usage),
    }


def failed_response(handle: RequestHandle, event: Failed | Cancelled) -> dict[str, Any]:
    """Return a response without a complete answer, ``failed`` or ``cancelled``, with its output so far."""
    usage = handle.state().usage
    body = {**response_base(handle), "output": _partial(handle), "usage": None if usage == Usage() else _usage(usage)}
    if isinstance(event, Cancelled):
        return {**body, "status": "cancelled"}
    code, message = event.code, event.message
    if code == CONTEXT_LENGTH:
        message = in_openai_words(message)
    else:
        code = ERROR_CODES.get(PROBLEMS.get(code, PROBLEMS["internal_error"]).family, "server_error")
    error = {"code": code, "message": message, "type": event.code}
    return {**body, "status": "failed", "error": error}


def message_item(request_id: str, text: str | None, status: str) -> dict[str, Any]:
    """Return the item of the answer's text; without content where ``text`` is None."""
    content = [] if text is None else [text_part(text)]
    return {
        "id": MESSAGE_PREFIX + request_id,
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def reasoning_item(request_id: str, text: str | None, status: str) -> dict[str, Any]:
    """Return the item of the reasoning; without content where ``text`` is None."""
    return {
        "id": REASONING_PREFIX + request_id,
        "type": "reasoning",
        "summary": [],
        "content": [] if text is None else [reasoning_part(text)],
        "status": status,
    }


def reasoning_part(text: str) -> dict[str, Any]:
    """Return the content part of the reasoning."""
    return {"type": "reasoning_text", "text": text}


def text_part(text: str) -> dict[str, Any]:
    """Return the content part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def call_item(call: ToolCall, status: str) -> dict[str, Any]:
    """Return the item of a function call."""
    return {
        "id": CALL_PREFIX + call.id,
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "status": status,
    }


def history_of(handle: RequestHandle) -> tuple[ChatMessage, ...]:
    """Return the conversation up to this response and with its answer, without its instructions.

    Raises:
        InvalidRequest: the response has no complete answer.
    """
    stream = handle.stream
    event = stream.since(stream.offset - 1)[-1].event if stream.ended else None
    if not isinstance(event, Completed):
        status = response_of(handle)["status"]
        raise invalid_field("$.previous_response_id", f"must be of a response with an answer, this one is {status}")
    text, calls = content_of(event, structured=handle.request.schema is not None)
    own = 1 if handle.delivery.echo.get("instructions") else 0
    signed = tuple(thought for thought in event.reasoning if thought.signature)
    content = (*signed, *((TextPart(text=text),) if text else ())) if signed else text
    turn = ChatMessage(role="assistant", content=content, tool_calls=calls)
    return (*handle.request.messages[own:], *((turn,) if content or calls else ()))


def _partial(handle: RequestHandle) -> list[dict[str, Any]]:
    stream = handle.stream
    status = "incomplete" if stream.ended else "in_progress"
    snapshot = stream.snapshot()
    output = [reasoning_item(handle.request_id, snapshot.reasoning, status)] if snapshot.reasoning else []
    output += [message_item(handle.request_id, snapshot.text, status)] if snapshot.text else []
    return [*output, *(call_item(call, status) for call in snapshot.tool_calls)]


def _format(request: ChatRequest) -> dict[str, Any]:
    if request.schema is None:
        return {"type": "text"}
    return {"type": "json_schema", "name": "answer", "schema": request.schema}


def _choice(choice: str) -> str | dict[str, str]:
    if choice in ("", "auto", "none", "required"):
        return choice or "auto"
    return {"type": "function", "name": choice}


def _tool(tool: Tool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.extra.get(DIALECT, {}).get("strict"),
    }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_input_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
