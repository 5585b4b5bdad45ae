"""Anthropic's messages dialect, the provider's side: reads the events of a streamed answer, and whole answers.

The deltas of content, which are nearly all events, are decoded into structs; all other events are read loosely. What
can't be read, and what nobody needs, is dropped. An upstream's error text is never passed on.
"""

from typing import Any, Final

import msgspec

from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, ToolCallDelta, VendorBlock
from protocol.ids import call_id
from protocol.llm import FinishReason, Usage
from protocol.reading.claims import Claims
from protocol.reading.failures import failure_in
from protocol.reading.finish import finish_of, word_of
from protocol.reading.loose import (
    clean,
    decode,
    encode,
    extra_of,
    json_text,
    name_of,
    place_of,
    split_half,
    split_name,
    text_of,
)
from protocol.upstream import Deltas

DONE: Final = b"[DONE]"
MAX_KEPT_BYTES: Final = 4 * 1024 * 1024  # of blocks that are given on when they end
MAX_CALLS: Final = 256
_DIALECT: Final = "anthropic"
_HALF: Final = "\ufffd"
_CALL_FIELDS: Final = frozenset({"type", "id", "name", "input"})
_OWN_WORDS: Final = ("pause_turn", "model_context_window_exceeded")  # that have no canonical reason of their own
_METRICS: Final = "amazon-bedrock-invocationMetrics"


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


class _Block:
    """A block that has begun.

    Attributes:
        kind: ``text``, ``thinking``, ``tool_use``, or ``vendor`` for a block of any other type.
        part: the index of its part; -1 before its first content: an empty block is no part.
        call: the number of its call.
        value: the block as it began; what comes after that is added for a vendor's block.
        given: whether its content was given on: of a call, its arguments.
        text: the text so far, for a block that is given on whole too.
        pieces: the JSON of a vendor's block's input.
        half: the first half of a surrogate pair at the end of the last piece.
    """

    __slots__ = ("call", "given", "half", "kind", "part", "pieces", "text", "value")

    def __init__(self, kind: str, value: dict[str, Any]) -> None:
        self.kind = kind
        self.part = -1
        self.value = value
        self.call = 0
        self.given = False
        self.half = ""
        self.text: list[str] = []
        self.pieces: list[str] = []


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
        "_calls",
        "_claims",
        "_ids",
        "_kept_bytes",
        "_last",
        "_next",
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
        self._blocks: dict[int, _Block] = {}  # the open ones, by index
        self._last: int = 0  # the index of the last one
        self._next = 0  # the index of the next part
        self._calls = 0
        self._ids: set[str] = set()
        self._claims = Claims()
        self._kept_bytes = 0

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
        """Read the end of the stream, and append the content that waited for it to ``into``. Idempotent."""
        self.ended = self.ended or proper
        if self.ended or self.whole:
            self._end_all(into)

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
        elif kind == "message_delta":
            self._read_end(value, value.get("delta"), into)
        elif kind == "message_stop":
            self._read_metrics(value.get(_METRICS))
            self.close(into, proper=True)
        elif kind == "message":
            self._read_whole(value, into)
        elif not kind and value:
            raise ProviderError(code="provider_bad_response")

    def _read_block(self, value: dict[str, Any], kind: str, into: Deltas) -> None:
        index, delta, block = place_of(value.get("index")), value.get("delta"), value.get("content_block")
        if kind == "content_block_delta" and isinstance(delta, dict):
            self._add_delta(index, delta, into)
        elif kind == "content_block_start" and isinstance(block, dict):
            self._begin(index, block, into)
        elif kind == "content_block_stop":
            self._end(self._last if index is None else index, into)

    def _start(self, message: Any) -> None:  # noqa: ANN401 - any JSON
        if isinstance(message, dict):
            self.response_id = clean(text_of(message.get("id"))) or self.response_id
            self.model = clean(text_of(message.get("model"))) or self.model
            self._count(message.get("usage"))

    def _read_end(self, value: dict[str, Any], delta: Any, into: Deltas) -> None:  # noqa: ANN401 - any JSON
        self.counted = self._count(value.get("usage")) or self.counted
        self._end_all(into)
        if not isinstance(delta, dict):
            return
        self._finish(delta.get("stop_reason"))
        self.stop_sequence = clean(text_of(delta.get("stop_sequence"))) or self.stop_sequence

    def _read_whole(self, message: dict[str, Any], into: Deltas) -> None:
        """Read a whole answer, which is what a stream of it would say."""
        self._start(message)
        content = message.get("content")
        blocks = content if isinstance(content, list) else [content]
        for block in blocks:
            if isinstance(block, dict):
                self._begin(None, block, into)
            elif isinstance(block, str) and block:
                self._begin(None, {"type": "text", "text": block}, into)
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

    # ------------------------------------------------------------------------------------------------------- the blocks

    def _begin(self, index: int | None, value: dict[str, Any], into: Deltas) -> _Block:
        """Begin a block. The one at its index ends, and so do all but calls, whose pieces may be mixed."""
        if index is None:
            index = self._last + 1 if self._last in self._blocks else self._last
        for other, open_block in [*self._blocks.items()]:
            if other == index or open_block.kind != "tool_use":
                self._end(other, into)
        kind = text_of(value.get("type"))
        block = _Block(kind if kind in ("text", "thinking", "tool_use") else "vendor", value)
        self._last = index
        self._blocks[index] = block
        if block.kind == "text":
            if value.get("citations"):
                self._cite(block, "")
            self._add_text(block, text_of(value.get("text")), into)
        elif block.kind == "thinking":
            self._add_thought(block, text_of(value.get("thinking")), clean(text_of(value.get("signature"))), into)
        elif kind == "redacted_thinking":
            data = clean(text_of(value.get("data")))
            into.append(ReasoningDelta(signature=data, redacted=True, part=self._part_of(block)))
            del self._blocks[index]
        elif block.kind == "tool_use":
            self._begin_call(block, value, into)
        else:
            self._bound(value)
        return block

    def _part_of(self, block: _Block) -> int:
        """Return the index of a block's part, which begins with its first content."""
        if block.part < 0:
            block.part = self._next
            self._next += 1
        return block.part

    def _begin_call(self, block: _Block, value: dict[str, Any], into: Deltas) -> None:
        if self._calls >= MAX_CALLS:
            raise ProviderError(code="response_too_large")
        name, id_ = name_of(value.get("name")), name_of(value.get("id"))
        if not name:
            raise ProviderError(code="provider_bad_response")
        if not id_ or id_ in self._ids:
            id_ = call_id("toolu_")
        self._ids.add(id_)
        block.call = self._calls
        self._calls += 1
        self._bound(value)
        extra = extra_of(_DIALECT, value, _CALL_FIELDS)
        into.append(ToolCallDelta(index=block.call, id=id_, name=name, part=self._part_of(block), extra=extra))
        if self.finish_reason == "stop":
            self.finish_reason, self.raw_finish_reason = "tool_calls", ""

    def _add_delta(self, index: int | None, delta: dict[str, Any], into: Deltas) -> None:
        """Add a delta. One whose block has not begun begins it."""
        block = self._blocks.get(self._last if index is None else index)
        if block is not None and block.kind == "vendor":
            self._add_to_vendor(block, delta)
            return
        text, thought = text_of(delta.get("text")), text_of(delta.get("thinking"))
        signature = clean(text_of(delta.get("signature")))
        if text:
            self._add_text(self._block_of("text", block, index, into), text, into)
        elif thought or signature:
            self._add_thought(self._block_of("thinking", block, index, into), thought, signature, into)
        elif block is not None and block.kind == "tool_use":
            self._add_arguments(block, json_text(delta.get("partial_json")), into)
        elif block is not None and delta.get("citation") is not None:
            self._cite(block, delta["citation"])

    def _block_of(self, kind: str, block: _Block | None, index: int | None, into: Deltas) -> _Block:
        return block if block is not None and block.kind == kind else self._begin(index, {"type": kind}, into)

    def _add_text(self, block: _Block, text: str, into: Deltas) -> None:
        text, block.half = split_half(block.half + text)
        if text:
            into.append(Delta(text=text, part=self._part_of(block)))
            block.text.append(text)

    def _add_thought(self, block: _Block, thought: str, signature: str, into: Deltas) -> None:
        thought, block.half = split_half(block.half + thought)
        if thought or signature:
            into.append(ReasoningDelta(text=thought, signature=signature, part=self._part_of(block)))

    def _add_arguments(self, block: _Block, text: str, into: Deltas) -> None:
        text, block.half = split_half(block.half + text)
        if not block.given:
            text = text.lstrip()
        if text:
            block.given = True
            into.append(ToolCallDelta(index=block.call, arguments=text, part=block.part))

    def _add_to_vendor(self, block: _Block, delta: dict[str, Any]) -> None:
        """Add a delta to a block that is given on whole: its input, or a text of its own."""
        self._bound(delta)
        piece = delta.get("partial_json")
        if piece is not None:
            block.pieces.append(json_text(piece))
            return
        for name in ("text", "thinking", "signature", "data", "content"):
            item = delta.get(name)
            if isinstance(item, str):
                before = block.value.get(name)
                block.value[name] = (before if isinstance(before, str) else "") + item

    def _cite(self, block: _Block, citation: Any) -> None:  # noqa: ANN401 - any JSON
        """Add a citation of a text."""
        self._bound(citation)
        citations = block.value.get("citations")
        if not isinstance(citations, list):
            citations = block.value["citations"] = []
        if citation:
            citations.append(citation)

    def _end_all(self, into: Deltas) -> None:
        for index in [*self._blocks]:
            self._end(index, into)

    def _end(self, index: int, into: Deltas) -> None:
        """End a block, where one is open: what waited for its end is given on."""
        block = self._blocks.pop(index, None)
        if block is None:
            return
        half, block.half = (_HALF if block.half else ""), ""
        if block.kind == "tool_use":
            rest = half if block.given else _arguments(block.value.get("input"))
            if rest:
                into.append(ToolCallDelta(index=block.call, arguments=rest, part=block.part))
        elif block.kind == "vendor":
            self._give(block, into)
        else:
            if half:
                self._add_half(block, into)
            if block.value.get("citations"):
                block.value["text"] = "".join(block.text)
                self._give(block, into)

    def _add_half(self, block: _Block, into: Deltas) -> None:
        if block.kind == "text":
            self._add_text(block, _HALF, into)
        else:
            into.append(ReasoningDelta(text=_HALF, part=self._part_of(block)))

    def _give(self, block: _Block, into: Deltas) -> None:
        """Append a block in the vendor's own form."""
        value = block.value
        if block.pieces:
            try:
                value["input"] = decode("".join(block.pieces).encode("utf-8", "surrogatepass"))
            except ProviderError:
                value["input"] = {}
        into.append(VendorBlock(dialect=_DIALECT, value=msgspec.Raw(encode(value)), part=self._part_of(block)))

    def _bound(self, value: Any) -> None:  # noqa: ANN401 - any JSON
        self._kept_bytes += len(encode(value))
        if self._kept_bytes > MAX_KEPT_BYTES:
            raise ProviderError(code="response_too_large")


def _arguments(value: Any) -> str:  # noqa: ANN401 - any JSON
    """Return the arguments of a call whose input came at its begin, or not at all."""
    text = json_text(value).strip()
    return text or "{}"
