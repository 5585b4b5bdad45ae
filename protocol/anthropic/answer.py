"""Anthropic's messages dialect, what clients read: whole answers, streams, errors and models."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from protocol.answer import content_of
from protocol.anthropic.upstream import DIALECT, thinking, tool_input
from protocol.errors import PROBLEMS, Family, TidegateError
from protocol.events import (
    Cancelled,
    Completed,
    Delta,
    Entry,
    Failed,
    ReasoningDelta,
    ToolCallDelta,
)
from protocol.gateway import ModelInfo
from protocol.llm import FinishReason, ReasoningPart, Usage

ID_PREFIX: Final = "msg_"
OVERLOADED_STATUS: Final = 529  # Anthropic's own status

ERROR_TYPES: Final[dict[Family, str]] = {
    "request": "invalid_request_error",
    "authentication": "authentication_error",
    "permission": "permission_error",
    "not_found": "not_found_error",
    "rate_limit": "rate_limit_error",
    "quota": "billing_error",
    "overloaded": "overloaded_error",
    "timeout": "timeout_error",
    "server": "api_error",
}
STOP_REASONS: Final[dict[FinishReason, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}

_json = msgspec.json.Encoder(decimal_format="string").encode


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _json({"type": kind, **fields}))


PING_EVENT: Final = _event("ping", {})

_DELTA: Final = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":'
_TEXT: Final = b'{"type":"text_delta","text":%b}}\n\n'
_THOUGHT: Final = b'{"type":"thinking_delta","thinking":%b}}\n\n'
_SIGNATURE: Final = b'{"type":"signature_delta","signature":%b}}\n\n'
_ARGUMENTS: Final = b'{"type":"input_json_delta","partial_json":%b}}\n\n'


class MessagesEventEncoder:
    """Encodes one client's stream of events as SSE bytes.

    The tail of each delta is the same for all clients of a log and is built once an entry; the prefix depends on the
    blocks that this client has. ``message_start`` is sent with the first content, so that a failure before it can still
    be an HTTP error.

    A block ends when the next one begins. Later pieces of a tool call, from an upstream that mixes the pieces of
    several calls, still have the index of their own block.

    Args:
        request_id: the answer's id is ``msg_`` and the request's id.
        model: the model name that the client used.
        call_id: the ``request_id`` of an error.
    """

    __slots__ = (
        "_call_id",
        "_calls",
        "_count",
        "_model",
        "_open",
        "_prefix",
        "_request_id",
        "_started",
        "_text",
        "_thinks",
    )

    def __init__(self, request_id: str, model: str, call_id: str) -> None:
        self._request_id = request_id
        self._model = model
        self._call_id = call_id
        self._started = False
        self._count = 0  # blocks so far: the next index
        self._open = False  # whether the last block is open
        self._text = False  # whether the open block is text
        self._thinks = False  # whether the open block is thinking
        self._prefix = b""  # of a delta of the open block
        self._calls: dict[int, int] = {}  # a call's index: the index of its block

    def encode(self, entries: Sequence[Entry]) -> bytes:
        """Return the SSE bytes of ``entries``; a terminal one, if any, is the last."""
        into: list[bytes] = []
        for entry in entries:
            event = entry.event
            if isinstance(event, Delta):
                if not self._text:
                    self._begin_text(into)
                into += (self._prefix, entry.frame(DIALECT, _tail))
            elif isinstance(event, ToolCallDelta):
                self._begin_call(event, into)
                if event.arguments:
                    into += (_DELTA % self._calls[event.index], entry.frame(DIALECT, _tail))
            elif isinstance(event, ReasoningDelta):
                self._add_thinking(event, entry, into)
            elif isinstance(event, Completed):
                self._complete(event, into)
            elif isinstance(event, Failed):
                into.append(_event("error", _error(event.code, event.message, self._call_id)))
            elif isinstance(event, Cancelled):
                into.append(_event("error", _error("cancelled", PROBLEMS["cancelled"].title, self._call_id)))
        return b"".join(into)

    def _begin_text(self, into: list[bytes]) -> None:
        index = self._begin({"type": "text", "text": ""}, into)
        self._text = True
        self._prefix = _DELTA % index

    def _add_thinking(self, event: ReasoningDelta, entry: Entry, into: list[bytes]) -> None:
        if event.redacted:
            self._begin(thinking(ReasoningPart(signature=event.signature, redacted=True)), into)
            return
        if not self._thinks:
            index = self._begin(thinking(ReasoningPart()), into)
            self._thinks = True
            self._prefix = _DELTA % index
        if event.text:
            into += (self._prefix, entry.frame(DIALECT, _tail))
        if event.signature:
            into += (self._prefix, _SIGNATURE % _json(event.signature))
            self._thinks = False

    def _begin_call(self, event: ToolCallDelta, into: list[bytes]) -> None:
        if event.index not in self._calls:
            block = {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}
            self._calls[event.index] = self._begin(block, into)

    def _begin(self, block: dict[str, Any], into: list[bytes]) -> int:
        self._start(into)
        self._end(into)
        index = self._count
        into.append(_event("content_block_start", {"index": index, "content_block": block}))
        self._count += 1
        self._open = True
        return index

    def _start(self, into: list[bytes]) -> None:
        if not self._started:
            self._started = True
            message = _message(self._request_id, self._model, [], Usage())
            into.append(_event("message_start", {"message": message}))

    def _end(self, into: list[bytes]) -> None:
        if self._open:
            into.append(_event("content_block_stop", {"index": self._count - 1}))
        self._open = self._text = self._thinks = False

    def _complete(self, event: Completed, into: list[bytes]) -> None:
        self._start(into)
        self._end(into)
        delta = _stop_reason(event)
        into.append(_event("message_delta", {"delta": delta, "usage": _usage(event.usage)}))
        into.append(_event("message_stop", {}))


def _tail(entry: Entry) -> bytes:
    event = entry.event
    if isinstance(event, Delta):
        return _TEXT % _json(event.text)
    if isinstance(event, ReasoningDelta):
        return _THOUGHT % _json(event.text)
    return _ARGUMENTS % _json(event.arguments) if isinstance(event, ToolCallDelta) else b""


def message_body(request_id: str, model: str, completed: Completed, *, structured: bool) -> bytes:
    """Return the body of a whole ``message``.

    Args:
        request_id: the answer's id is ``msg_`` and the request's id.
        model: the model name that the client used.
        completed: the last event of the log.
        structured: whether the request had a schema.
    """
    text, calls = content_of(completed, structured=structured)
    blocks = list(map(thinking, completed.reasoning))
    if text:
        blocks.append({"type": "text", "text": text})
    blocks += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": tool_input(call.arguments)} for call in calls
    ]
    return _json({**_message(request_id, model, blocks, completed.usage), **_stop_reason(completed)})


def _stop_reason(completed: Completed) -> dict[str, str | None]:
    """Return the fields that say why the model stopped."""
    if completed.stop_sequence:
        return {"stop_reason": "stop_sequence", "stop_sequence": completed.stop_sequence}
    return {"stop_reason": STOP_REASONS[completed.finish_reason], "stop_sequence": None}


def _message(request_id: str, model: str, content: list[dict[str, Any]], usage: Usage) -> dict[str, Any]:
    return {
        "id": ID_PREFIX + request_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(usage),
    }


def _usage(usage: Usage) -> dict[str, Any]:
    """Return the tokens as Anthropic counts them: input tokens without those read from and written to the cache."""
    written = usage.cache_write_input_tokens
    wire: dict[str, Any] = {
        "input_tokens": usage.input_tokens - usage.cached_input_tokens - written,
        "cache_creation_input_tokens": written or None,
        "cache_read_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
    }
    if usage.reasoning_tokens:
        wire["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return wire


def count_body(tokens: int) -> bytes:
    """Return the body of ``POST /v1/messages/count_tokens``."""
    return _json({"input_tokens": tokens})


def models_body(models: Sequence[ModelInfo], created: int) -> bytes:
    """Return the body of ``GET /v1/models``, always one page; ``created`` is Unix time in seconds."""
    listed = [_model(model, created) for model in models]
    ends = (listed[0]["id"], listed[-1]["id"]) if listed else (None, None)
    return _json({"data": listed, "has_more": False, "first_id": ends[0], "last_id": ends[1]})


def model_body(model: ModelInfo, created: int) -> bytes:
    """Return the body of ``GET /v1/models/{model}``."""
    return _json(_model(model, created))


def _model(model: ModelInfo, created: int) -> dict[str, Any]:
    moment = datetime.fromtimestamp(created, UTC)
    return {"type": "model", "id": model.name, "display_name": model.name, "created_at": moment, "lifecycle": "active"}


def error_status(error: TidegateError, status: int) -> int:
    """Return the HTTP status of ``error`` in this dialect; ``status`` is its status in the others."""
    return OVERLOADED_STATUS if error.problem.family == "overloaded" else status


def error_body(error: TidegateError, call_id: str) -> bytes:
    """Return Anthropic's error envelope for ``error``, with our code as ``details.error_code``."""
    return _json({"type": "error", **_error(error.code, error.detail, call_id)})


def _error(code: str, message: str, call_id: str) -> dict[str, Any]:
    problem = PROBLEMS.get(code, PROBLEMS["internal_error"])
    kind = "request_too_large" if code == "body_too_large" else ERROR_TYPES[problem.family]
    return {"error": {"type": kind, "message": message, "details": {"error_code": code}}, "request_id": call_id}
