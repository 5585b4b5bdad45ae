"""Anthropic's messages dialect, what clients read: whole answers, streams, errors and models."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from protocol.answer import unshown
from protocol.anthropic.extras import BESIDE, of_message, of_usage
from protocol.anthropic.upstream import DIALECT, thinking, tool_input
from protocol.context_length import CONTEXT_LENGTH, in_anthropic_words
from protocol.errors import PROBLEMS, Family, TidegateError
from protocol.events import (
    Cancelled,
    Completed,
    Delta,
    Entry,
    Event,
    Failed,
    ReasoningDelta,
    RefusalDelta,
    ToolCallDelta,
    VendorBlock,
)
from protocol.gateway import ModelInfo
from protocol.llm import AnswerPart, FinishReason, ReasoningPart, TextPart, ToolCallPart, Usage, VendorPart
from protocol.parts import NOWHERE, PartSequence, Piece, fields_of_text
from protocol.reading.failures import raise_found

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
_CITATION: Final = b'{"type":"citations_delta","citation":%b}}\n\n'
_FIELD: Final = b"%b}\n\n"
_START: Final = b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,"content_block":%b}\n\n'


class MessagesEventEncoder:
    """Encodes one client's stream of events as SSE bytes.

    The tail of each delta is the same for all clients of a log and is built once an entry; the prefix depends on the
    blocks that this client has. ``message_start`` is sent with the first content, so that a failure before it can still
    be an HTTP error.

    The blocks have the order of the answer's parts: a block ends when the next one begins. Where an upstream mixes the
    pieces of several calls, ``PartSequence`` holds back what comes after the first call.

    Args:
        request_id: the answer's id is ``msg_`` and the request's id.
        model: the model name that the client used.
        call_id: the ``request_id`` of an error.
        usage: returns the tokens that are counted by now, for ``message_start``.
    """

    __slots__ = (
        "_call_id",
        "_count",
        "_model",
        "_open",
        "_prefix",
        "_request_id",
        "_sequence",
        "_started",
        "_text",
        "_usage",
    )

    def __init__(self, request_id: str, model: str, call_id: str, usage: Callable[[], Usage] = Usage) -> None:
        self._request_id = request_id
        self._model = model
        self._call_id = call_id
        self._usage = usage
        self._sequence = PartSequence()
        self._started = False
        self._count = 0  # blocks so far: the next index
        self._open = False  # whether the last block is open
        self._text = NOWHERE  # the `part` of a piece of text that belongs to the open block
        self._prefix = b""  # of a delta of the open block

    def encode(self, entries: Sequence[Entry]) -> bytes:
        """Return the SSE bytes of ``entries``; a terminal one, if any, is the last."""
        into: list[bytes] = []
        for entry in entries:
            event = entry.event
            if isinstance(event, Delta) and event.part == self._text:
                into += (self._prefix, entry.frame(DIALECT, _tail))
            elif isinstance(event, Piece):
                self._add(self._sequence.add(entry, event), into)
                self._text = self._sequence.text_part
            elif isinstance(event, Completed):
                self._complete(event, into)
            elif isinstance(event, Failed):
                self._fail(event.code, event.message, into)
            elif isinstance(event, Cancelled):
                self._fail("cancelled", PROBLEMS["cancelled"].title, into)
        return b"".join(into)

    def _add(self, entries: Iterable[tuple[Entry, bool]], into: list[bytes]) -> None:
        for entry, begins in entries:
            if isinstance(entry.event, VendorBlock) and entry.event.dialect != DIALECT:
                continue
            if begins:
                self._begin(entry.event, into)
            tail = entry.frame(DIALECT, _tail)
            if tail:
                into += (self._prefix, tail)
            if isinstance(entry.event, ReasoningDelta) and entry.event.signature and not entry.event.redacted:
                into += (self._prefix, _SIGNATURE % _json(entry.event.signature))
            elif isinstance(entry.event, VendorBlock) and not begins:
                into += self._fields(entry.event)

    def _fields(self, event: VendorBlock) -> Iterable[bytes]:
        """Return the deltas of the further fields of the text that is open: one for each citation and other field."""
        for name, value in (fields_of_text(event) or {}).items():
            if name != "citations":
                yield self._prefix
                yield _FIELD % _json({"type": f"{name}_delta", name: value})
                continue
            for citation in value if isinstance(value, list) else ():
                yield self._prefix
                yield _CITATION % _json(citation)

    def _begin(self, event: Event, into: list[bytes]) -> None:
        self._start(into)
        self._end(into)
        index = self._count
        into.append(_START % (index, _first_block(event)))
        self._count += 1
        self._open = True
        self._prefix = _DELTA % index

    def _start(self, into: list[bytes]) -> None:
        if not self._started:
            self._started = True
            counted = self._usage()
            begun = msgspec.structs.replace(counted, output_tokens=min(counted.output_tokens, 1), reasoning_tokens=0)
            message = _message(self._request_id, self._model, [], begun)
            into.append(_event("message_start", {"message": message}))

    def _end(self, into: list[bytes]) -> None:
        if self._open:
            into.append(_event("content_block_stop", {"index": self._count - 1}))
        self._open = False

    def _complete(self, event: Completed, into: list[bytes]) -> None:
        failure = unshown(event.parts, DIALECT)
        if failure is not None:
            self._fail(failure.code, failure.detail, into)
            return
        self._start(into)
        self._add(self._sequence.rest(), into)
        self._end(into)
        delta: dict[str, Any] = {**_stop_reason(event)}
        fields: dict[str, Any] = {"delta": delta, "usage": {**_usage(event.usage), **of_usage(event.extra)}}
        for name, value in of_message(event.extra).items():
            (fields if name in BESIDE else delta)[name] = value
        into.append(_event("message_delta", fields))
        into.append(_event("message_stop", {}))

    def denial(self, error: TidegateError) -> bytes:
        """Return the SSE bytes that end this client's stream with ``error``, and nothing else; the log goes on."""
        return _event("error", _error(error.code, error.detail, self._call_id))

    def _fail(self, code: str, message: str, into: list[bytes]) -> None:
        self._add(self._sequence.rest(), into)
        into.append(_event("error", _error(code, message, self._call_id)))


def _first_block(event: Event) -> bytes:
    """Return the block that begins with ``event``, without what its deltas say."""
    if isinstance(event, ToolCallDelta):
        extra = event.extra.get(DIALECT, {})
        return _json({"type": "tool_use", "id": event.id, "name": event.name, "input": {}, **extra})
    if isinstance(event, ReasoningDelta):
        redacted = event.redacted
        return _json(thinking(ReasoningPart(signature=event.signature if redacted else "", redacted=redacted)))
    if isinstance(event, VendorBlock):
        return bytes(event.value)
    return _EMPTY_TEXT


_EMPTY_TEXT: Final = b'{"type":"text","text":""}'


def _tail(entry: Entry) -> bytes:
    event = entry.event
    if isinstance(event, Delta | RefusalDelta):
        return _TEXT % _json(event.text)
    if isinstance(event, ReasoningDelta):
        return _THOUGHT % _json(event.text) if event.text else b""
    if isinstance(event, ToolCallDelta):
        return _ARGUMENTS % _json(event.arguments) if event.arguments else b""
    return b""


def message_body(request_id: str, model: str, completed: Completed) -> bytes:
    """Return the body of a whole ``message``; raises ``ProviderError`` for an answer that this dialect can't show.

    Args:
        request_id: the answer's id is ``msg_`` and the request's id.
        model: the model name that the client used.
        completed: the last event of the log.
    """
    raise_found(unshown(completed.parts, DIALECT))
    blocks = [block for part in completed.parts if (block := _block(part)) is not None]
    message = _message(request_id, model, blocks, completed.usage)
    message["usage"].update(of_usage(completed.extra))
    return _json({**message, **_stop_reason(completed), **of_message(completed.extra)})


def _block(part: AnswerPart) -> dict[str, Any] | None:
    """Return a part as a block; None where this dialect can't show it. A refusal is a text."""
    if isinstance(part, ToolCallPart):
        extra = part.extra.get(DIALECT, {})
        return {"type": "tool_use", "id": part.id, "name": part.name, "input": tool_input(part.arguments), **extra}
    if isinstance(part, ReasoningPart):
        return thinking(part)
    if isinstance(part, VendorPart):
        return part.value if part.dialect == DIALECT else None
    extra = part.extra.get(DIALECT, {}) if isinstance(part, TextPart) else {}
    return {"type": "text", "text": part.text, **extra} if part.text or extra else None


def _stop_reason(completed: Completed) -> dict[str, str | None]:
    """Return the fields that say why the model stopped. Reasons without an equivalent are the provider's own words."""
    if completed.stop_sequence:
        return {"stop_reason": "stop_sequence", "stop_sequence": completed.stop_sequence}
    known = STOP_REASONS.get(completed.finish_reason, completed.finish_reason)
    return {"stop_reason": completed.raw_finish_reason or known, "stop_sequence": None}


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
        "cache_creation_input_tokens": written,
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
    if code == CONTEXT_LENGTH:
        message = in_anthropic_words(message)
    kind = "request_too_large" if code == "body_too_large" else ERROR_TYPES[problem.family]
    return {"error": {"type": kind, "message": message, "details": {"error_code": code}}, "request_id": call_id}
