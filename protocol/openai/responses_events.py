"""OpenAI's responses dialect, what clients read: the events of a stream, and their sequence numbers.

A ``sequence_number`` depends on the log alone: every reader gets the same number for the same event. The first entry
gives two events, each later one before the end gives one. The first delta of a message or of the reasoning has two more
events before it, the first delta of a call has one. The last entry ends all items. So the number after an entry follows
from its offset and from the items that have begun.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from protocol.answer import content_of
from protocol.events import (
    Cancelled,
    Completed,
    Delta,
    Entry,
    Failed,
    ReasoningDelta,
    Started,
    ToolCallDelta,
)
from protocol.llm import ToolCall
from protocol.openai.responses_answer import (
    CALL_PREFIX,
    MESSAGE_PREFIX,
    REASONING_PREFIX,
    REASONS,
    call_item,
    completed_response,
    failed_response,
    message_item,
    reasoning_item,
    reasoning_part,
    response_base,
    text_part,
)
from protocol.requests import RequestHandle

NO_EVENT: Final = -1  # the number of the last event, for a reader that has none

_TEXT: Final = (
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","item_id":%b,"output_index":%d,'
    b'"content_index":0,"logprobs":[],"delta":'
)
_THOUGHT: Final = (
    b'event: response.reasoning_text.delta\ndata: {"type":"response.reasoning_text.delta","item_id":%b,'
    b'"output_index":%d,"content_index":0,"delta":'
)
_NUMBER: Final = b',"sequence_number":%d}\n\n'

_json = msgspec.json.Encoder(decimal_format="string").encode


class ResponseEventEncoder:
    """Encodes one client's stream of events as SSE bytes.

    Args:
        handle: the request.
        after: the number of the last event that the client has; only later events are sent.
        held: whether to delay the first events until the first content, so that a failure before it can still be an
            HTTP error.

    Attributes:
        sequence: the number of the next event.
    """

    __slots__ = (
        "_after",
        "_calls",
        "_handle",
        "_held",
        "_items",
        "_message",
        "_pending",
        "_reasoning",
        "_text",
        "_thought",
        "sequence",
    )

    def __init__(self, handle: RequestHandle, *, after: int = NO_EVENT, held: bool = False) -> None:
        self.sequence = 0
        self._handle = handle
        self._after = after
        self._held = held
        self._pending: list[bytes] = []
        self._items = 0  # items so far: the next output index
        self._message: int | None = None  # the message's output index
        self._reasoning: int | None = None  # the reasoning's output index
        self._text = b""  # the start of a delta of the message
        self._thought = b""  # the start of a delta of the reasoning
        self._calls: dict[int, tuple[int, ToolCall]] = {}  # a call's index: its output index, and its id and name

    def encode(self, entries: Sequence[Entry]) -> bytes:
        """Return the SSE bytes of ``entries``; a terminal one, if any, is the last."""
        into = self._pending
        for entry in entries:
            self._entry(entry, into)
        if self._held and all(isinstance(entry.event, Started) for entry in entries):
            return b""
        self._held, self._pending = False, []
        return b"".join(into)

    def _entry(self, entry: Entry, into: list[bytes]) -> None:
        event = entry.event
        if isinstance(event, Delta):
            self._add_text(event.text, into)
        elif isinstance(event, ToolCallDelta):
            self._add_call(event, into)
        elif isinstance(event, ReasoningDelta):
            self._add_reasoning(event.text, into)
        elif isinstance(event, Completed):
            self._complete(event, into)
        elif isinstance(event, Failed | Cancelled):
            self._emit("response.failed", {"response": failed_response(self._handle, event)}, into)
        else:
            response = response_base(self._handle)
            if isinstance(event, Started):
                self._emit("response.created", {"response": response}, into)
            self._emit("response.in_progress", {"response": response}, into)

    def _add_text(self, text: str, into: list[bytes]) -> None:
        if self._message is None:
            self._begin_message(into)
        if self.sequence > self._after:
            into += (self._text, _json(text), _NUMBER % self.sequence)
        self.sequence += 1

    def _begin_message(self, into: list[bytes]) -> None:
        index = self._open_message()
        item = message_item(self._handle.request_id, None, "in_progress")
        self._emit("response.output_item.added", {"output_index": index, "item": item}, into)
        place = {"item_id": item["id"], "output_index": index, "content_index": 0}
        self._emit("response.content_part.added", {**place, "part": text_part("")}, into)

    def _open_message(self) -> int:
        index = self._message = self._items
        self._items += 1
        self._text = _TEXT % (_json(MESSAGE_PREFIX + self._handle.request_id), index)
        return index

    def _add_reasoning(self, text: str, into: list[bytes]) -> None:
        if self._reasoning is None:
            index = self._open_reasoning()
            item = reasoning_item(self._handle.request_id, None, "in_progress")
            self._emit("response.output_item.added", {"output_index": index, "item": item}, into)
            place = {"item_id": item["id"], "output_index": index, "content_index": 0}
            self._emit("response.content_part.added", {**place, "part": reasoning_part("")}, into)
        if self.sequence > self._after:
            into += (self._thought, _json(text), _NUMBER % self.sequence)
        self.sequence += 1

    def _open_reasoning(self) -> int:
        index = self._reasoning = self._items
        self._items += 1
        self._thought = _THOUGHT % (_json(REASONING_PREFIX + self._handle.request_id), index)
        return index

    def _add_call(self, event: ToolCallDelta, into: list[bytes]) -> None:
        if event.index not in self._calls:
            call = ToolCall(id=event.id, name=event.name, arguments="")
            self._calls[event.index] = self._items, call
            fields = {"output_index": self._items, "item": call_item(call, "in_progress")}
            self._items += 1
            self._emit("response.output_item.added", fields, into)
        index, call = self._calls[event.index]
        place = {"item_id": CALL_PREFIX + call.id, "output_index": index}
        self._emit("response.function_call_arguments.delta", {**place, "delta": event.arguments}, into)

    def _complete(self, event: Completed, into: list[bytes]) -> None:
        """Send the content that is not sent yet, end the items, and end the response."""
        handle = self._handle
        status = "incomplete" if event.finish_reason in REASONS else "completed"
        text, calls = content_of(event, structured=handle.request.schema is not None)
        if text and self._message is None:
            self._add_text(text, into)
        for index, call in enumerate(calls[len(self._calls) :], len(self._calls)):
            self._add_call(ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments), into)
        output: dict[int, dict[str, Any]] = {}
        if self._reasoning is not None:
            reasoning = "".join(thought.text for thought in event.reasoning)
            output[self._reasoning] = reasoning_item(handle.request_id, reasoning, status)
        if self._message is not None:
            output[self._message] = message_item(handle.request_id, text, status)
        for (_, (index, begun)), call in zip(sorted(self._calls.items()), calls, strict=False):
            output[index] = call_item(msgspec.structs.replace(call, id=begun.id), status)
        items = [output[index] for index in sorted(output)]
        for index in sorted(output):
            self._end(index, output[index], into)
        kind = f"response.{status}"
        self._emit(kind, {"response": completed_response(handle, event, items)}, into)

    def _end(self, index: int, item: dict[str, Any], into: list[bytes]) -> None:
        place = {"item_id": item["id"], "output_index": index}
        if item["type"] in ("message", "reasoning"):
            part = item["content"][0]
            content_place = {**place, "content_index": 0}
            whole = {"text": part["text"]} if item["type"] == "reasoning" else {"text": part["text"], "logprobs": []}
            self._emit(f"response.{part['type']}.done", {**content_place, **whole}, into)
            self._emit("response.content_part.done", {**content_place, "part": part}, into)
        else:
            done = {**place, "name": item["name"], "arguments": item["arguments"]}
            self._emit("response.function_call_arguments.done", done, into)
        self._emit("response.output_item.done", {"output_index": index, "item": item}, into)

    def _emit(self, kind: str, fields: dict[str, Any], into: list[bytes]) -> None:
        number = self.sequence
        self.sequence += 1
        if number > self._after:
            data = _json({"type": kind, **fields, "sequence_number": number})
            into.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), data))
