"""Anthropic's messages dialect, the provider's side: reads the events of a streamed answer, and whole answers.

The deltas of content, which are nearly all events, are decoded into structs; all other events are read loosely. What
can't be read and nobody needs is dropped; content that can't be read fails the answer. An upstream's error text is
never passed on.
"""

from typing import Any, Final

import msgspec

from protocol.anthropic.block_reader import BlockDelta, BlockReader
from protocol.anthropic.extras import AnswerFields
from protocol.errors import ProviderError
from protocol.llm import Extra, FinishReason, Usage
from protocol.reading.claims import Claims
from protocol.reading.content import is_empty
from protocol.reading.failures import failure_in, raise_found
from protocol.reading.finish import finish_of, word_of
from protocol.reading.loose import clean, decode, label_of, split_name, text_of
from protocol.upstream import Deltas

DONE: Final = b"[DONE]"
MAX_STOP: Final = 4096  # characters of the text at which the model stopped
_OWN_WORDS: Final = ("pause_turn", "model_context_window_exceeded")  # that have no canonical reason of their own
_METRICS: Final = "amazon-bedrock-invocationMetrics"
_CONTENT: Final = ("text", "thinking", "partial_json", "delta", "content", "content_block")  # where content may stand


class _Event(msgspec.Struct, gc=False):
    type: str
    index: int | None = None
    delta: BlockDelta | None = None


_event = msgspec.json.Decoder(_Event).decode


class MessagesReader:
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
        "_blocks",
        "_claims",
        "_fields",
        "counted",
        "ended",
        "finish_reason",
        "model",
        "raw_finish_reason",
        "refused",
        "response_id",
        "stop_sequence",
        "usage",
    )

    def __init__(self) -> None:
        self.finish_reason: FinishReason | None = None
        self.raw_finish_reason = ""
        self.refused = False
        self.stop_sequence = ""
        self.usage: Usage | None = None
        self.counted = False
        self.model = ""
        self.response_id = ""
        self.ended = False
        self._blocks = BlockReader()
        self._claims = Claims()
        self._fields = AnswerFields()

    @property
    def whole(self) -> bool:
        """Whether the answer is complete: a known finish reason has been read, or any with the stream's end."""
        return self.finish_reason is not None and (self.ended or self.finish_reason != "other")

    @property
    def extra(self) -> Extra:
        """Fields of the answer and of its usage that only this dialect has, as in ``events.Completed``."""
        return self._fields.extra

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
            if event.type == "content_block_delta" and self._blocks.add_plain(event.index, event.delta, into):
                return
        self._feed_loosely(data, into)

    def close(self, into: Deltas, *, proper: bool) -> None:
        """Read the end of the stream, and append the content that waited for it to ``into``. Idempotent.

        Raises:
            ProviderError: ``provider_bad_response``: all that came is content that can't be read.
        """
        self.ended = self.ended or proper
        if self.ended or self.whole:
            self._blocks.end_all(into)
            self._blocks.check_read()

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
        try:
            raise_found(failure_in(value, name))
            if isinstance(value, dict):
                self._read_event(value, _kind_of(value, name), into)
            elif value is not None:
                raise ProviderError(code="provider_bad_response")
        except RecursionError as error:
            raise ProviderError(code="provider_bad_response") from error

    def _read_event(self, value: dict[str, Any], kind: str, into: Deltas) -> None:
        if kind.startswith("content_block_"):
            self._blocks.read(value, kind, into)
            if self._blocks.calls and self.finish_reason == "stop":
                self.finish_reason, self.raw_finish_reason = "tool_calls", ""
        elif kind == "message_start":
            self._start(value.get("message"))
            message = value.get("message")
            self._blocks.expect(message.get("content") if isinstance(message, dict) else None)
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
            self._blocks.unread = True

    def _start(self, message: Any) -> None:  # noqa: ANN401 - any JSON
        if isinstance(message, dict):
            self.response_id = label_of(message.get("id")) or self.response_id
            self.model = label_of(message.get("model")) or self.model
            self._count(message.get("usage"))
            self._fields.add(message)

    def _read_end(self, value: dict[str, Any], delta: Any, into: Deltas) -> None:  # noqa: ANN401 - any JSON
        self.counted = self._count(value.get("usage")) or self.counted
        self._blocks.end_all(into)
        self._fields.add(value)
        if not isinstance(delta, dict):
            return
        if value is not delta and any(not is_empty(delta.get(name)) for name in _CONTENT):
            self._blocks.unread = True
        self._fields.add(delta)
        self._finish(delta.get("stop_reason"))
        self.stop_sequence = clean(text_of(delta.get("stop_sequence"))[:MAX_STOP]) or self.stop_sequence

    def _read_whole(self, message: dict[str, Any], into: Deltas) -> None:
        """Read a whole answer, which is what a stream of it would say."""
        self._start(message)
        self._blocks.read_whole(message.get("content"), into)
        self._read_end(message, message, into)
        self.close(into, proper=True)

    def _finish(self, word: Any) -> None:  # noqa: ANN401 - any JSON
        """Read a stop reason: of several ones the first counts that is not ``stop``."""
        reason = finish_of(word)
        if reason is None or self.finish_reason not in (None, "stop"):
            return
        if reason == "stop" and self._blocks.calls:
            reason = "tool_calls"
        self.finish_reason = reason
        own = reason == "other" or (reason != "tool_calls" and word in _OWN_WORDS)
        self.raw_finish_reason = word_of(word) if own else ""

    def _count(self, usage: Any) -> bool:  # noqa: ANN401 - any JSON
        """Add a report of usage. Returns whether it counts the output."""
        counted = self._claims.add(usage)
        if self._claims.seen:
            self.usage = self._claims.exclusive()
        if isinstance(usage, dict):
            self._fields.add_usage(usage)
        return counted

    def _read_metrics(self, metrics: Any) -> None:  # noqa: ANN401 - any JSON
        """Read Bedrock's own counts, where the model has reported none."""
        if isinstance(metrics, dict) and not self._claims.output:
            usage = {"output_tokens": metrics.get("outputTokenCount")}
            if not self._claims.input:
                usage["input_tokens"] = metrics.get("inputTokenCount")
            self.counted = self._count(usage) or self.counted


def _kind_of(value: dict[str, Any], name: str) -> str:
    """Return the type of an event; where it has none, its name, or the type that its fields belong to."""
    kind = value.get("type")
    if name or (kind and isinstance(kind, str)):
        return kind if kind and isinstance(kind, str) else name
    delta = value.get("delta")
    if isinstance(delta, dict):
        return "message_delta" if "stop_reason" in delta else "content_block_delta"
    if isinstance(value.get("content_block"), dict):
        return "content_block_start"
    if isinstance(value.get("message"), dict):
        return "message_start"
    return "message" if "content" in value and "stop_reason" in value else ""
