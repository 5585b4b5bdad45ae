"""Clients over HTTP: server-sent events, and long polls."""

import json
from typing import Any

from protocol.events import (
    Position,
)
from protocol.hub import Mode
from protocol.packed import PAGE_BYTES, PAGE_EVENTS
from service.http import sse
from tests.contracts.delivery.readers import Reader
from tests.contracts.delivery.wires import Pipe, Response
from tests.contracts.delivery.world import World


class HttpReader(Reader):
    """Follows over HTTP: the server's own parser and writer, over a pipe."""

    def __init__(self, world: World, place: int, *, by_header: bool) -> None:
        super().__init__(world, place)
        self.by_header = by_header
        self.pipe = Pipe()
        self.protocol: Any = None
        self.response = Response()

    def exact(self, mode: Mode | None, wanted: Position | None) -> bool:
        return mode == "replay" if wanted is None else not self.by_header and mode in {None, "replay"}

    def send(self, accept: str, query: str, position: Position | None) -> None:
        """Send a request over a new connection."""
        self.disconnect()
        header = ""
        if position is not None and self.by_header:
            header = f"Last-Event-ID: {position}\r\n"
        elif position is not None:
            query += f"&after={position}"
        self.pipe, self.response = Pipe(), Response()
        self.pipe.reading = self.reading
        self.protocol = self.pipe.protocol = self.world.server()
        self.protocol.connection_made(self.pipe)
        head = f"GET /{self.place}?{query} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n{header}\r\n"
        self.protocol.data_received(head.encode())
        self.world.loop.turn()

    def disconnect(self) -> None:
        """Close the connection, if there is one."""
        if self.protocol is not None:
            self.protocol.connection_lost(None)
            self.protocol = None
            self.pipe.abort()
            self.world.loop.turn()

    def cut(self) -> None:
        self.disconnect()
        self.connected = False

    def drain(self) -> None:
        self.reading = self.pipe.reading = True
        self.pipe.take()
        self.world.loop.turn()

    def stop_reading(self) -> bool:
        self.pipe.reading = False
        return super().stop_reading()

    def feed(self) -> bool:
        """Parse what has come, and return whether the position was accepted."""
        self.response.feed(self.pipe.received)
        self.pipe.received = b""
        if self.response.status == 410:
            self.cut()
            self.forget()
            return False
        return True

    def check_bound(self) -> None:
        batch = 8 * (self.world.ring + self.world.largest + PAGE_BYTES) + 256 * PAGE_EVENTS
        assert self.pipe.peak <= self.bound(sse.HIGH_WATER, batch), self.pipe.peak


class EventReader(HttpReader):
    """Follows over server-sent events."""

    def open(self, mode: Mode | None, position: Position | None) -> bool:
        if mode == "live":
            self.begin_live(self.world.log.epoch, self.stream.offset - self.stream.ended)
        query = "" if mode is None else f"mode={mode}"
        self.forgetful = position is not None and position.epoch != self.world.log.epoch and mode != "live"
        self.send("text/event-stream", query, position)
        return self.feed()

    def receive(self) -> None:
        if not self.reading or self.protocol is None or not self.feed():
            return
        *blocks, self.response.body = self.response.body.replace(b": ping\n", b"").split(b"\n\n")
        for block in blocks:
            fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
            frame = json.loads(fields["data"])
            epoch, _, offset = fields["id"].partition(":")
            assert (int(offset), fields["event"]) == (frame["offset"], frame["type"])
            self.take(frame, epoch)
        if self.response.whole:
            assert self.ended
            self.cut()
        elif self.pipe.ended:
            assert not self.attentive
            self.cut()


class PollReader(HttpReader):
    """Follows by long polls."""

    def open(self, mode: Mode | None, position: Position | None) -> bool:
        if mode == "live":
            self.begin_live(self.world.log.epoch, self.stream.offset - self.stream.ended)
        self.forgetful = position is not None and position.epoch != self.world.log.epoch and mode != "live"
        self._poll("" if mode is None else f"mode={mode}", position)
        return self.feed()

    def receive(self) -> None:
        if not self.reading or not self.connected or not self.feed() or not self.response.whole:
            return
        news = json.loads(self.response.body)
        for frame in news["events"]:
            self.take(frame, news["position"]["epoch"])
        here = Position(**news["position"])
        if self.position is None:
            self.position = Position(here.epoch, 0)
        assert here == self.position
        assert news["ended"] == self.ended
        if self.ended:
            self.cut()
        else:
            self._poll("", self.position)

    def _poll(self, query: str, position: Position | None) -> None:
        self.send("application/json", f"{query}&wait=50", position)
