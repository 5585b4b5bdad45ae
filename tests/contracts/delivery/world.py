"""One answer that two requests share, what was written to it, and the ways to read it."""

from collections.abc import Callable
from typing import Any, cast

from aiohttp import web

from actors.delivery.fanout import Fanout
from actors.log.event_log import EventLog
from actors.requests.stream import RequestStream
from protocol.errors import UnrecoverablePosition
from protocol.events import (
    AttemptFailed,
    Delta,
    Entry,
    Event,
    ReasoningDelta,
    Terminal,
    ToolCallDelta,
)
from protocol.requests import RequestHandle
from protocol.websocket.out import snapshot_json, update_json
from service.context import CALL, CallContext
from service.frames import Joiner, text_frame
from service.http import long_poll, sse
from tests.contracts.delivery.wires import Loop


class Content:
    """The content of an answer at some offset.

    Attributes:
        ended: the type of the terminal frame; empty before it.
    """

    def __init__(self) -> None:
        self.ended = ""
        self.void()

    def void(self) -> None:
        """Discard everything."""
        self.text = ""
        self.reasoning = ""
        self.calls: dict[int, str] = {}

    def add(self, event: Event) -> None:
        """Apply an event."""
        if isinstance(event, Delta):
            self.text += event.text
        elif isinstance(event, ReasoningDelta):
            self.reasoning += event.text
        elif isinstance(event, ToolCallDelta):
            self.calls[event.index] = self.calls.get(event.index, "") + event.arguments
        elif isinstance(event, AttemptFailed) and event.restart:
            self.void()
        elif isinstance(event, Terminal):
            self.ended = "complete" if event.__struct_config__.tag == "completed" else "error"

    def take(self, frame: dict[str, Any]) -> None:
        """Apply a frame."""
        data = frame.get("data", {})
        if frame.get("snapshot") or data.get("attemptFailed", {}).get("restart"):
            self.void()
        self.text += data.get("text", "") + data.get("delta", "")
        if frame["type"] != "complete":
            self.reasoning += data.get("reasoning", "")
        for call in [*data.get("toolCalls", []), *([data["toolCall"]] if "toolCall" in data else [])]:
            self.calls[call["index"]] = self.calls.get(call["index"], "") + call["arguments"]
        if frame["type"] == "complete" or frame.get("terminal"):
            self.ended = frame["type"]

    def copy(self) -> "Content":
        """Return a copy."""
        other = Content()
        vars(other).update(vars(self), calls=dict(self.calls))
        return other

    def same(self, other: "Content") -> bool:
        """Whether both are equal."""
        return vars(self) == vars(other)


class World:
    """One log that two requests share, what was written to it, and the ways to read it."""

    def __init__(self, *, ring: int, high_water: int) -> None:
        self.loop = Loop()
        self.log = EventLog(epoch="k3", max_bytes=ring)
        self.streams = [RequestStream(name, self.log) for name in ("req_a", "req_b")]
        self.events: list[list[Event]] = [[], []]
        self._contents = [[Content()], [Content()]]
        self.high_water = high_water
        self.ring = ring
        self.largest = 0
        self.whole = 0
        self.gone = False
        self.join = Joiner()
        self.soon: list[Callable[[], None]] = []
        self.fanout = self.new_hub()
        self.server = self.loop.run_until_complete(self._serve())

    def new_hub(self) -> Fanout:
        """Return a new hub."""
        self.soon.clear()
        return Fanout(
            text_frame,
            high_water=self.high_water,
            max_subscriptions=10,
            clock=self.loop.time,
            call_soon=self.soon.append,
            on_lag=lambda: None,
        )

    def write(self, *events: Event) -> None:
        """Append to the log."""
        self.largest = max(self.largest, *(len(update_of(event)) for event in events))
        for stream, truth in zip(self.streams, self.events, strict=True):
            if not stream.ended:
                truth.extend(events)
        self.log.extend(events)
        self.whole = max(self.whole, len(snapshot_json("req_a", self.log.epoch, self.log.snapshot())))

    def cancel(self, place: int, event: Event) -> None:
        """End one request's view."""
        if not self.streams[place].ended:
            self.events[place].append(event)
            self.streams[place].cut(event)

    def tick(self) -> None:
        """Run everything that is due."""
        due, self.soon[:] = list(self.soon), []
        assert len(due) <= 1
        for call in due:
            call()
        self.loop.turn()

    def content(self, place: int, base: int, offset: int) -> Content:
        """Return a reader's content after the events from ``base`` to ``offset``."""
        known = self._contents[place]
        if base:
            return _sum(Content(), self.events[place][base:offset])
        while len(known) <= offset:
            known.append(_sum(known[-1], self.events[place][len(known) - 1 : len(known)]))
        return known[offset]

    async def _serve(self) -> web.Server:
        return web.Server(self._answer, handler_cancellation=True, access_log=None)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        handle = cast("RequestHandle", _Handle(self.streams[int(request.path[-1])]))
        asked = cast("web.Request", request)
        asked[CALL] = CallContext("", "0" * 32, 0.0)
        try:
            answer = long_poll.respond_new_events if long_poll.accepts_json(asked) else sse.event_stream
            return await answer(asked, handle)
        except UnrecoverablePosition:
            return web.Response(status=410)
        except ConnectionError:
            return web.Response(status=499)


def _sum(content: Content, events: list[Event]) -> Content:
    content = content.copy()
    for event in events:
        content.add(event)
    return content


class _Handle:
    source = "upstream"

    def __init__(self, stream: RequestStream) -> None:
        self.stream = stream
        self.request_id = stream.request_id


def update_of(event: Event) -> bytes:
    """Return an event's frame, for its size."""
    return update_json("req_a", Entry(1, event))
