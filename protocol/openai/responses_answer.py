"""OpenAI's responses dialect, what clients read: the body of a response in any state."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from protocol.answer import message_of, unshown
from protocol.context_length import CONTEXT_LENGTH, in_openai_words
from protocol.errors import PROBLEMS, Family, InternalError
from protocol.events import Cancelled, Completed, Failed
from protocol.json.validation import invalid_field
from protocol.llm import (
    AnswerPart,
    ChatMessage,
    ChatRequest,
    FinishReason,
    ReasoningPart,
    RefusalPart,
    TextPart,
    Tool,
    ToolCallPart,
    Usage,
    VendorPart,
)
from protocol.openai.responses import ID_PREFIX
from protocol.openai.upstream import DIALECT
from protocol.reading.failures import raise_found
from protocol.requests import RequestHandle

PREFIXES: Final[dict[type[AnswerPart], str]] = {  # of the ids of items
    TextPart: "msg_",
    RefusalPart: "msg_",
    ReasoningPart: "rs_",
    ToolCallPart: "fc_",
}
WHOLE: Final[frozenset[FinishReason]] = frozenset({"stop", "tool_calls"})  # reasons at which an answer is whole
REASONS: Final[dict[FinishReason, str]] = {"length": "max_output_tokens", "content_filter": "content_filter"}
ERROR_CODES: Final[dict[Family, str]] = {
    "request": "invalid_prompt",
    "rate_limit": "rate_limit_exceeded",
    "quota": "rate_limit_exceeded",
}

_json = msgspec.json.Encoder(decimal_format="string").encode


def answered_body(handle: RequestHandle, event: Completed) -> bytes:
    """Return a response that has ended with ``event``; raises ``ProviderError`` where this dialect can't show it."""
    raise_found(unshown(event.parts))
    return response_body(handle)


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
        return completed_response(handle, event)
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


def completed_response(handle: RequestHandle, event: Completed) -> dict[str, Any]:
    """Return a finished response: ``completed``, ``incomplete`` where the answer was cut short, or ``failed``.

    It has failed where this dialect can't show the answer.
    """
    failure = unshown(event.parts)
    if failure is not None:
        return failed_response(handle, Failed(code=failure.code, message=failure.detail))
    reason = incomplete_reason(event)
    status = "incomplete" if reason else "completed"
    return {
        **response_base(handle),
        "status": status,
        "completed_at": None if reason else int(handle.state().updated_at.timestamp()),
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output_items(handle.request_id, event.parts, status),
        "usage": _usage(event.usage),
    }


def incomplete_reason(event: Completed) -> str:
    """Return why the answer is incomplete; empty where the model ended it by itself."""
    reason = event.finish_reason
    return "" if reason in WHOLE else REASONS.get(reason) or event.raw_finish_reason or reason


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


def output_items(request_id: str, parts: Sequence[AnswerPart], status: str) -> list[dict[str, Any]]:
    """Return the items of an answer, in the order of its parts; ``status`` is the last one's."""
    shown = [part for part in parts if _is_shown(part)]
    numbers = ItemNumbers()
    ends = [*["completed"] * (len(shown) - 1), status]
    return [item_of(request_id, part, numbers.next(part), end) for part, end in zip(shown, ends, strict=False)]


def _is_shown(part: AnswerPart) -> bool:
    return isinstance(part, ToolCallPart) or (not isinstance(part, VendorPart) and bool(part.text))


class ItemNumbers:
    """Numbers the items of each kind, from 0, so that their ids differ."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def next(self, part: AnswerPart) -> int:
        """Return the number of the next item, which shows ``part``."""
        prefix = PREFIXES.get(type(part), "")
        self._counts[prefix] += 1
        return self._counts[prefix] - 1


def item_of(request_id: str, part: AnswerPart, number: int, status: str) -> dict[str, Any]:
    """Return the item that shows ``part``; ``number`` counts the items of its kind before it."""
    prefix = PREFIXES.get(type(part), "")
    if isinstance(part, ToolCallPart):
        return {
            "id": prefix + part.id,
            "type": "function_call",
            "call_id": part.id,
            "name": part.name,
            "arguments": part.arguments,
            "status": status,
        }
    name = f"{prefix}{request_id}_{number}" if number else prefix + request_id
    content = [] if isinstance(part, VendorPart) or not part.text else [content_part(part)]
    if isinstance(part, ReasoningPart):
        return {"id": name, "type": "reasoning", "summary": [], "content": content, "status": status}
    return {"id": name, "type": "message", "role": "assistant", "status": status, "content": content}


def content_part(part: AnswerPart) -> dict[str, Any]:
    """Return the content of the item that shows ``part``."""
    if isinstance(part, ReasoningPart):
        return {"type": "reasoning_text", "text": part.text}
    if isinstance(part, RefusalPart):
        return {"type": "refusal", "refusal": part.text}
    text = part.text if isinstance(part, TextPart) else ""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


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
    own = 1 if handle.delivery.echo.get("instructions") else 0
    return (*handle.request.messages[own:], *((message_of(event.parts),) if event.parts else ()))


def _partial(handle: RequestHandle) -> list[dict[str, Any]]:
    stream = handle.stream
    return output_items(handle.request_id, stream.snapshot().parts, "incomplete" if stream.ended else "in_progress")


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
