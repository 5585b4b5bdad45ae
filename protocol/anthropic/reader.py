"""Anthropic's messages dialect, the provider's side: reads the events of a streamed answer.

Unknown fields are ignored.
"""

from typing import Any, Final

import msgspec

from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, ToolCallDelta
from protocol.llm import (
    FinishReason,
    Usage,
)
from protocol.refusals import refusal_of
from protocol.upstream import Deltas


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


class _Event(msgspec.Struct):
    type: str
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: Any = None


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
            raise refusal_of(0, event.error)

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
