"""OpenAI's responses dialect, what clients read: the events of a stream, and their sequence numbers.

A ``sequence_number`` depends on the log alone: every reader gets the same number for the same event. The items have the
order of the answer's parts, one after the other. An item ends when the next one begins, and the last one with the last
entry. Pieces without text, and parts that the dialect can't show, give no event.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from protocol.errors import TidegateError
from protocol.events import (
    Cancelled,
    Completed,
    Delta,
    Entry,
    Event,
    Failed,
    ReasoningDelta,
    RefusalDelta,
    Started,
    ToolCallDelta,
    VendorBlock,
)
from protocol.llm import AnswerPart, ToolCallPart
from protocol.openai.responses_answer import (
    ItemNumbers,
    completed_response,
    content_part,
    failed_response,
    incomplete_reason,
    item_of,
    response_base,
)
from protocol.parts import NOWHERE, PartSequence, Piece, begun_part
from protocol.requests import RequestHandle

NO_EVENT: Final = -1  # the number of the last event, for a reader that has none

_DELTA: Final = b'event: %b\ndata: {"type":"%b","item_id":%b,"output_index":%d,%b"delta":'
_NUMBER: Final = b',"sequence_number":%d}\n\n'
_IN_CONTENT: Final = b'"content_index":0,'
_DELTAS: Final[dict[type[Event], tuple[bytes, bytes]]] = {  # the name of each kind of delta, and its further fields
    Delta: (b"response.output_text.delta", _IN_CONTENT + b'"logprobs":[],'),
    ReasoningDelta: (b"response.reasoning_text.delta", _IN_CONTENT),
    RefusalDelta: (b"response.refusal.delta", _IN_CONTENT),
    ToolCallDelta: (b"response.function_call_arguments.delta", b""),
}

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
        "_delta",
        "_handle",
        "_held",
        "_item",
        "_items",
        "_number",
        "_numbers",
        "_parts",
        "_pending",
        "_place",
        "_text",
        "sequence",
    )

    def __init__(self, handle: RequestHandle, *, after: int = NO_EVENT, held: bool = False) -> None:
        self.sequence = 0
        self._handle = handle
        self._after = after
        self._held = held
        self._pending: list[bytes] = []
        self._parts = PartSequence()
        self._place = NOWHERE  # the place of the part that is open
        self._text = NOWHERE  # the `part` of a piece of text that belongs to it
        self._item = ""  # the id of its item; empty where it has none
        self._items = 0  # items so far: the next output index
        self._numbers = ItemNumbers()
        self._number = 0  # the item's
        self._delta = b""  # the start of the item's deltas

    def encode(self, entries: Sequence[Entry]) -> bytes:
        """Return the SSE bytes of ``entries``; a terminal one, if any, is the last."""
        into = self._pending
        for entry in entries:
            event = entry.event
            if isinstance(event, Delta) and event.part == self._text:
                self._write(event.text, into)
            else:
                self._entry(entry, event, into)
        if self._held and all(isinstance(entry.event, Started) for entry in entries):
            return b""
        self._held, self._pending = False, []
        return b"".join(into)

    def denial(self, error: TidegateError) -> bytes:
        """Return the SSE bytes that end this client's stream with ``error``, and none of the answer; the log goes on.

        Its number is that of the last event, so that a client with other rights can go on after that.
        """
        fields = {"code": error.code, "message": error.detail, "param": None}
        data = _json({"type": "error", **fields, "sequence_number": max(0, self.sequence - 1)})
        return b"event: error\ndata: %b\n\n" % data

    def _entry(self, entry: Entry, event: Event, into: list[bytes]) -> None:
        if isinstance(event, Piece):
            self._add(self._parts.add(entry, event), into)
            self._text = self._parts.text_part
        elif isinstance(event, Completed):
            self._complete(event, into)
        elif isinstance(event, Failed | Cancelled):
            self._add(self._parts.rest(), into)
            self._emit("response.failed", {"response": failed_response(self._handle, event)}, into)
        else:
            response = response_base(self._handle)
            if isinstance(event, Started):
                self._emit("response.created", {"response": response}, into)
            self._emit("response.in_progress", {"response": response}, into)

    def _add(self, entries: Iterable[tuple[Entry, bool]], into: list[bytes]) -> None:
        for entry, begins in entries:
            event = entry.event
            if begins:
                if self._item:
                    self._end(self._parts_so_far()[self._place], "completed", into)
                self._place += 1
            if not isinstance(event, Piece) or isinstance(event, VendorBlock):
                continue
            text = event.arguments if isinstance(event, ToolCallDelta) else event.text
            if begins and (text or isinstance(event, ToolCallDelta)):
                self._begin(event, into)
            if self._item:
                self._write(text, into)

    def _write(self, text: str, into: list[bytes]) -> None:
        if not text:
            return
        if self.sequence > self._after:
            into += (self._delta, _json(text), _NUMBER % self.sequence)
        self.sequence += 1

    def _begin(self, event: Piece, into: list[bytes]) -> None:
        """Begin the item of the part that begins with ``event``."""
        part = begun_part(event)
        index, self._number = self._items, self._numbers.next(part)
        self._items += 1
        item = item_of(self._handle.request_id, part, self._number, "in_progress")
        self._item = item["id"]
        name, fields = _DELTAS[type(event)]
        self._delta = _DELTA % (name, name, _json(self._item), index, fields)
        self._emit("response.output_item.added", {"output_index": index, "item": item}, into)
        if not isinstance(part, ToolCallPart):
            self._emit("response.content_part.added", {**self._content_place, "part": content_part(part)}, into)

    @property
    def _content_place(self) -> dict[str, Any]:
        return {"item_id": self._item, "output_index": self._items - 1, "content_index": 0}

    def _end(self, part: AnswerPart, status: str, into: list[bytes]) -> None:
        """End the open item, which shows ``part``."""
        item = item_of(self._handle.request_id, part, self._number, status)
        if isinstance(part, ToolCallPart):
            done = {"name": part.name, "arguments": part.arguments}
            place = {"item_id": self._item, "output_index": self._items - 1}
            self._emit("response.function_call_arguments.done", {**place, **done}, into)
        else:
            content, place = item["content"][0], self._content_place
            whole = {name: value for name, value in content.items() if name not in ("type", "annotations")}
            self._emit(f"response.{content['type']}.done", {**place, **whole}, into)
            self._emit("response.content_part.done", {**place, "part": content}, into)
        self._emit("response.output_item.done", {"output_index": self._items - 1, "item": item}, into)
        self._item = ""

    def _parts_so_far(self) -> Sequence[AnswerPart]:
        """Return the parts of the log so far, in which all those before the newest are whole."""
        stream = self._handle.stream
        event = stream.since(stream.offset - 1)[-1].event if stream.ended else None
        if isinstance(event, Completed) and event.result is msgspec.UNSET:
            return event.parts
        return stream.snapshot().parts

    def _complete(self, event: Completed, into: list[bytes]) -> None:
        """End the items, and end the response."""
        self._add(self._parts.rest(), into)
        status = "incomplete" if incomplete_reason(event) else "completed"
        if self._item:
            parts = event.parts if len(event.parts) > self._place else self._parts_so_far()
            self._end(parts[self._place], status, into)
        response = completed_response(self._handle, event)
        self._emit(f"response.{response['status']}", {"response": response}, into)

    def _emit(self, kind: str, fields: dict[str, Any], into: list[bytes]) -> None:
        number = self.sequence
        self.sequence += 1
        if number > self._after:
            data = _json({"type": kind, **fields, "sequence_number": number})
            into.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), data))
