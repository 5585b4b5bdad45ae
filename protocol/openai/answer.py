"""OpenAI's chat completions, what clients read: whole answers, streams, errors and the list of models."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from protocol.answer import unshown
from protocol.context_length import CONTEXT_LENGTH, in_openai_words
from protocol.errors import PROBLEMS, FieldError, TidegateError
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
from protocol.llm import AnswerPart, ReasoningPart, TextPart, Usage, VendorPart, calls_of
from protocol.openai.upstream import DIALECT, wire_call
from protocol.parts import Piece, merged_fields
from protocol.reading.failures import raise_found

ID_PREFIX: Final = "chatcmpl-"
DONE_FRAME: Final = b"data: [DONE]\n\n"

FINISH_REASONS: Final = frozenset({"stop", "length", "tool_calls", "content_filter"})  # of this dialect
ERROR_TYPES: Final = {
    "request": "invalid_request_error",
    "authentication": "authentication_error",
    "permission": "permission_error",
    "not_found": "invalid_request_error",
    "rate_limit": "rate_limit_error",
    "quota": "insufficient_quota",
    "overloaded": "overloaded_error",
    "timeout": "timeout_error",
    "server": "server_error",
}

_json = msgspec.json.Encoder(decimal_format="string").encode


class ChunkEncoder:
    """Encodes one client's stream of ``chat.completion.chunk`` events as SSE bytes.

    The tail of each chunk is the same for all clients of a log and is built once an entry; the client's own prefix
    precedes it. The role chunk is sent with the first content, so that a failure before it can still be an HTTP error.

    Args:
        request_id: the answer's id is ``chatcmpl-`` and the request's id.
        created: Unix time in seconds.
        model: the model name that the client used.
        include_usage: whether to send a chunk of usage before ``[DONE]``.
    """

    __slots__ = ("_opened", "_plain", "_prefix", "_usage")

    def __init__(self, request_id: str, created: int, model: str, include_usage: bool = False) -> None:  # noqa: FBT001, FBT002
        self._plain = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,' % (
            _json(ID_PREFIX + request_id),
            created,
            _json(model),
        )
        self._prefix = self._plain + b'"usage":null,' if include_usage else self._plain
        self._usage = include_usage
        self._opened = False

    def encode(self, entries: Sequence[Entry]) -> bytes:
        """Return the SSE bytes of ``entries``; a terminal one, if any, is the last."""
        tails = [tail for entry in entries if (tail := entry.frame(DIALECT, _tail))]
        end = b""
        if entries and entries[-1].terminal:
            event = entries[-1].event
            if isinstance(event, Completed) and unshown(event.parts, DIALECT) is None:
                end = self._plain + _usage_tail(event.usage) + DONE_FRAME if self._usage else DONE_FRAME
            else:
                end = tails.pop()
        if not tails:
            return end
        if not self._opened:
            self._opened = True
            tails.insert(0, _ROLE)
        prefix = self._prefix
        return prefix + prefix.join(tails) + end

    def denial(self, error: TidegateError) -> bytes:
        """Return the SSE bytes that end this client's stream with ``error``, and nothing else; the log goes on."""
        return b"data: %b\n\n" % error_body(error)


_CHOICE = b'"choices":[{"index":0,"delta":{%b},"logprobs":null,"finish_reason":%b}]}\n\n'
_TEXT_WITH_LOGPROBS = (
    b'"choices":[{"index":0,"delta":{"content":%b},"logprobs":{"content":%b,"refusal":null},"finish_reason":null}]}\n\n'
)
_ROLE = _CHOICE % (b'"role":"assistant","content":"","refusal":null', b"null")
_DELTA_START, _DELTA_END = (_CHOICE % (b"|", b"null")).split(b"|")
_TEXT_START = _DELTA_START + b'"content":'
_REASONING = b'"reasoning_content":'


def _delta_tail(delta: bytes) -> bytes:
    return _DELTA_START + delta + _DELTA_END


def _tail(entry: Entry) -> bytes:
    event = entry.event
    if isinstance(event, Delta):
        if event.logprobs:
            return _TEXT_WITH_LOGPROBS % (_json(event.text), event.logprobs.encode())
        return _TEXT_START + _json(event.text) + _DELTA_END
    if isinstance(event, Piece):
        delta = _delta(event)
        return _delta_tail(delta) if delta else b""
    return _last_tail(event)


def _delta(piece: ReasoningDelta | ToolCallDelta | RefusalDelta | VendorBlock) -> bytes:
    """Return the fields of a delta; empty for what this dialect does not show."""
    if isinstance(piece, ReasoningDelta):
        return _REASONING + _json(piece.text) if piece.text else b""
    if isinstance(piece, ToolCallDelta):
        says = piece.id or piece.name or piece.arguments or piece.extra
        return b'"tool_calls":[%b]' % _json(_call_delta(piece)) if says else b""
    if isinstance(piece, RefusalDelta):
        return b'"refusal":' + _json(piece.text)
    return _fields_delta(piece.value) if piece.dialect == DIALECT else b""


def _fields_delta(value: msgspec.Raw) -> bytes:
    """Return a vendor's own fields; a part of a type that is not known is one of ``content_parts``."""
    fields = bytes(value).strip()
    if b'"type"' in fields and "type" in msgspec.json.decode(fields, type=dict[str, msgspec.Raw]):
        return b'"%b":[%b]' % (_PARTS.encode(), fields)
    return fields[1:-1].strip()


def _last_tail(event: Event) -> bytes:
    if isinstance(event, Completed):
        failure = unshown(event.parts, DIALECT)
        if failure is not None:
            return b"data: %b\n\n" % _envelope(failure.code, failure.detail, ())
        return _CHOICE % (b"", _json(_finish_reason(event)))
    if isinstance(event, Failed):
        return b"data: %b\n\n" % _envelope(event.code, event.message, event.errors)
    if isinstance(event, Cancelled):
        return b"data: %b\n\n" % _envelope("cancelled", PROBLEMS["cancelled"].title, ())
    return b""


def _finish_reason(completed: Completed) -> str:
    """Return the finish reason; the provider's own word for one that this dialect does not have."""
    reason = completed.finish_reason
    return reason if reason in FINISH_REASONS else completed.raw_finish_reason or reason


def _call_delta(event: ToolCallDelta) -> dict[str, Any]:
    function = {"name": event.name, "arguments": event.arguments} if event.name else {"arguments": event.arguments}
    call: dict[str, Any] = {"index": event.index, "function": function}
    if event.id:
        call |= {"id": event.id, "type": "function"}
    extra = event.extra.get(DIALECT) if event.extra else None
    if not extra:
        return call
    if "type" in extra:
        return {"index": event.index, **extra}  # a call of another kind: its extras are the whole call
    return {**call, **extra, "function": {**function, **extra.get("function", {})}}


def _usage_tail(usage: Usage) -> bytes:
    return b'"choices":[],"usage":%b}\n\n' % _usage(usage)


_USAGE = (
    b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
    b'"prompt_tokens_details":{"cached_tokens":%d,"cache_write_tokens":%d},'
    b'"completion_tokens_details":{"reasoning_tokens":%d}}'
)


def _usage(usage: Usage) -> bytes:
    return _USAGE % (
        usage.input_tokens,
        usage.output_tokens,
        usage.input_tokens + usage.output_tokens,
        usage.cached_input_tokens,
        usage.cache_write_input_tokens,
        usage.reasoning_tokens,
    )


_OWN_FIELDS: Final = frozenset({"content", "refusal", "role"})
_PARTS: Final = "content_parts"  # the field of parts of the content whose type is not known
_COMPLETION = (
    b'{"id":%b,"object":"chat.completion","created":%d,"model":%b,"choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":%b,"refusal":%b%b},"logprobs":%b,"finish_reason":%b}],"usage":%b}'
)


def completion_body(request_id: str, created: int, model: str, completed: Completed) -> bytes:
    """Return the body of a whole ``chat.completion``; raises ``ProviderError`` for one that this dialect can't show.

    Args:
        request_id: the answer's id is ``chatcmpl-`` and the request's id.
        created: Unix time in seconds.
        model: the model name that the client used.
        completed: the last event of the log.
    """
    parts = completed.parts
    first = parts[0] if len(parts) == 1 else None
    if isinstance(first, TextPart):
        text, refusal, fields = first.text, "", {}
    else:
        raise_found(unshown(parts, DIALECT))
        text, refusal, fields = completed.text, completed.refusal, _further_fields(parts)
    return _COMPLETION % (
        _json(ID_PREFIX + request_id),
        created,
        _json(model),
        _json(text) if text or not (refusal or "tool_calls" in fields) else b"null",
        _json(refusal) if refusal else b"null",
        b"," + _json(fields)[1:-1] if fields else b"",
        b'{"content":%b,"refusal":null}' % completed.logprobs.encode() if completed.logprobs else b"null",
        _json(_finish_reason(completed)),
        _usage(completed.usage),
    )


def _further_fields(parts: Sequence[AnswerPart]) -> dict[str, Any]:
    """Return the fields of a message beside its texts: reasoning, tool calls, and those of the vendor's own."""
    fields: dict[str, Any] = {}
    reasoning = "".join([part.text for part in parts if isinstance(part, ReasoningPart)])
    if reasoning:
        fields["reasoning_content"] = reasoning
    calls = calls_of(parts)
    if calls:
        fields["tool_calls"] = [wire_call(call) for call in calls]
    for part in parts:
        if isinstance(part, VendorPart) and part.dialect == DIALECT:
            own = {_PARTS: [part.value]} if "type" in part.value else part.value
            fields = merged_fields(fields, {name: own[name] for name in own.keys() - _OWN_FIELDS})
    return fields


def error_body(error: TidegateError) -> bytes:
    """Return OpenAI's error envelope for ``error``."""
    return _envelope(error.code, error.detail, error.errors)


def _envelope(code: str, message: str, errors: Sequence[FieldError]) -> bytes:
    family = PROBLEMS.get(code, PROBLEMS["internal_error"]).family
    if code == CONTEXT_LENGTH:
        message = in_openai_words(message)
    param = errors[0].path.removeprefix("$").removeprefix(".") or None if errors else None
    return _json({"error": {"message": message, "type": ERROR_TYPES[family], "param": param, "code": code}})


def models_body(models: Sequence[ModelInfo], created: int) -> bytes:
    """Return the body of ``GET /v1/models``; ``created`` is Unix time in seconds."""
    return _json({"object": "list", "data": [_model(model, created) for model in models]})


def model_body(model: ModelInfo, created: int) -> bytes:
    """Return the body of ``GET /v1/models/{model}``."""
    return _json(_model(model, created))


def _model(model: ModelInfo, created: int) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": created, "owned_by": model.provider}
