"""Anthropic's messages dialect, the provider's side: reads the events of a streamed answer, and whole answers.

The deltas of content, which are nearly all events, are decoded into structs; all other events are read loosely. What
can't be read and nobody needs is dropped; content that can't be read fails the answer. An upstream's error text is
never passed on.
"""

from typing import Any, Final

import msgspec

from protocol.anthropic.answer_blocks import AnswerBlocks
from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta
from protocol.llm import Usage
from protocol.reading.claims import Claims
from protocol.reading.content import is_empty
from protocol.reading.failures import failure_in
from protocol.reading.finish import finish_of, word_of
from protocol.reading.loose import clean, decode, place_of, split_name, text_of
from protocol.upstream import Deltas

DONE: Final = b"[DONE]"
_OWN_WORDS: Final = ("pause_turn", "model_context_window_exceeded")  # that have no canonical reason of their own
_METRICS: Final = "amazon-bedrock-invocationMetrics"
_CONTENT: Final = ("text", "thinking", "partial_json", "delta", "content", "content_block")  # where content may stand


class _Delta(msgspec.Struct, gc=False):
    type: str
    text: str = ""
    partial_json: str = ""
    thinking: str = ""


class _Event(msgspec.Struct, gc=False):
    type: str
    index: int | None = None
    delta: _Delta | None = None


_event = msgspec.json.Decoder(_Event).decode


class MessagesReader(AnswerBlocks):
    """Reads one answer, event by event: a ``protocol.upstream.AnswerReader``.

    Attributes:
        finish_reason: why the model stopped; None until the stream says so.
        raw_finish_reason: the upstream's own word, where the canonical reason does not say the same.
        refused: always False: a refusal is a finish reason.
        stop_sequence: the text at which the model stopped.
        usage: tokens; None until they are reported.
        counted: whether the output has been counted at the end, and not only at the beginning.
        model: the upstream's name of the model.
        response_id: the upstream's id of the answer.
        ended: whether the stream's end has been read.
    """

    __slots__ = (
        "_claims",
        "counted",
        "ended",
        "model",
        "refused",
        "response_id",
        "stop_sequence",
        "usage",
    )

    def __init__(self) -> None:
        super().__init__()
        self.refused = False
        self.stop_sequence = ""
        self.usage: Usage | None = None
        self.counted = False
        self.model = ""
        self.response_id = ""
        self.ended = False
        self._claims = Claims()

    @property
    def whole(self) -> bool:
        """Whether the answer is complete: a known finish reason has been read, or any with the stream's end."""
        return self.finish_reason is not None and (self.ended or self.finish_reason != "other")

    def feed(self, data: bytes, into: Deltas) -> None:
        """Read the data of one event and append its content to ``into``.

        Raises:
            ProviderError: ``provider_bad_response``: the data is not an event; or the failure of an in-band error, or
                of a finish reason that says that the answer broke off.
        """
        try:
            event = _event(data)
        except (ValueError, RecursionError):
            pass
        else:
            if event.type == "content_block_delta" and self._add_plain(event, into):
                return
        self._feed_loosely(data, into)

    def close(self, into: Deltas, *, proper: bool) -> None:
        """Read the end of the stream, and append the content that waited for it to ``into``. Idempotent.

        Raises:
            ProviderError: ``provider_bad_response``: all that came is content that can't be read.
        """
        self.ended = self.ended or proper
        if self.ended or self.whole:
            self._end_all(into)
            self._check_read()

    def _add_plain(self, event: _Event, into: Deltas) -> bool:
        """Append a usual delta of an open block; False for one that has to be read loosely."""
        block, delta = self._blocks.get(self._last if event.index is None else event.index), event.delta
        if block is None or delta is None or block.part < 0 or block.half:
            return False
        if delta.type == "text_delta" and block.kind == "text":
            if delta.text:
                into.append(Delta(text=delta.text, part=block.part))
                block.text.append(delta.text)
            return True
        if delta.type == "thinking_delta" and block.kind == "thinking":
            if delta.thinking:
                into.append(ReasoningDelta(text=delta.thinking, part=block.part))
            return True
        if delta.type == "input_json_delta" and block.kind == "tool_use":
            self._add_arguments(block, delta.partial_json, into)
            return True
        return False

    # ---------------------------------------------------------------------------------------------------- loose reading

    def _feed_loosely(self, data: bytes, into: Deltas) -> None:
        name, stripped = split_name(data)
        if stripped == DONE:
            self.close(into, proper=True)
            return
        if name == "ping" or (not stripped and name != "error"):
            return
        try:
            value = decode(stripped)
        except ProviderError:
            if name != "error":
                raise
            value = None
        failure = failure_in(value, name)
        if failure is not None:
            raise failure
        if value is None:
            return
        if not isinstance(value, dict):
            raise ProviderError(code="provider_bad_response")
        try:
            kind = value.get("type")
            self._read_event(value, kind if isinstance(kind, str) else name, into)
        except RecursionError as error:
            raise ProviderError(code="provider_bad_response") from error

    def _read_event(self, value: dict[str, Any], kind: str, into: Deltas) -> None:
        if kind.startswith("content_block_"):
            self._read_block(value, kind, into)
        elif kind == "message_start":
            self._start(value.get("message"))
            self._expect(value.get("message"))
        elif kind == "message_delta":
            self._read_end(value, value.get("delta"), into)
        elif kind == "message_stop":
            self._read_metrics(value.get(_METRICS))
            self.close(into, proper=True)
        elif kind == "message":
            self._read_whole(value, into)
        elif not kind and value:
            raise ProviderError(code="provider_bad_response")
        elif any(not is_empty(value.get(name)) for name in _CONTENT):
            self._unread = True

    def _read_block(self, value: dict[str, Any], kind: str, into: Deltas) -> None:
        index = place_of(value.get("index"))
        if kind == "content_block_delta":
            delta = value.get("delta")
            self._add_delta(index, value if is_empty(delta) else delta, into)
        elif kind == "content_block_start":
            block = value.get("content_block")
            if not is_empty(block):
                self._begin_at(index, block, into)
        elif kind == "content_block_stop":
            self._end(self._last if index is None else index, into)

    def _start(self, message: Any) -> None:  # noqa: ANN401 - any JSON
        if isinstance(message, dict):
            self.response_id = clean(text_of(message.get("id"))) or self.response_id
            self.model = clean(text_of(message.get("model"))) or self.model
            self._count(message.get("usage"))

    def _expect(self, message: Any) -> None:  # noqa: ANN401 - any JSON
        """Keep the content with which a message starts: its blocks may come again, one by one."""
        content = message.get("content") if isinstance(message, dict) else None
        if not is_empty(content):
            self._bound(content)
            self._expected = dict(enumerate(content if isinstance(content, list) else [content]))

    def _read_end(self, value: dict[str, Any], delta: Any, into: Deltas) -> None:  # noqa: ANN401 - any JSON
        self.counted = self._count(value.get("usage")) or self.counted
        self._end_all(into)
        if not isinstance(delta, dict):
            return
        if any(not is_empty(delta.get(name)) for name in _CONTENT if value is not delta):
            self._unread = True
        self._finish(delta.get("stop_reason"))
        self.stop_sequence = clean(text_of(delta.get("stop_sequence"))) or self.stop_sequence

    def _read_whole(self, message: dict[str, Any], into: Deltas) -> None:
        """Read a whole answer, which is what a stream of it would say."""
        self._start(message)
        content = message.get("content")
        blocks = content if isinstance(content, list) else [content]
        self._end_all(into)
        for block in () if self._says_again(blocks) else blocks:
            if not is_empty(block):
                self._begin_at(None, block, into)
                self._end(self._last, into)
        self._read_end(message, message, into)
        self.close(into, proper=True)

    def _finish(self, word: Any) -> None:  # noqa: ANN401 - any JSON
        """Read a stop reason: of several ones the first counts that is not ``stop``."""
        reason = finish_of(word)
        if reason is None or self.finish_reason not in (None, "stop"):
            return
        if reason == "stop" and self._calls:
            reason = "tool_calls"
        self.finish_reason = reason
        own = reason == "other" or (reason != "tool_calls" and word in _OWN_WORDS)
        self.raw_finish_reason = word_of(word) if own else ""

    def _count(self, usage: Any) -> bool:  # noqa: ANN401 - any JSON
        """Add a report of usage. Returns whether it counts the output."""
        counted = self._claims.add(usage)
        if self._claims.seen:
            self.usage = self._claims.exclusive()
        return counted

    def _read_metrics(self, metrics: Any) -> None:  # noqa: ANN401 - any JSON
        """Read Bedrock's own counts, where the model has reported none."""
        if isinstance(metrics, dict) and not self._claims.output:
            usage = {"output_tokens": metrics.get("outputTokenCount")}
            if not self._claims.input:
                usage["input_tokens"] = metrics.get("inputTokenCount")
            self.counted = self._count(usage) or self.counted
