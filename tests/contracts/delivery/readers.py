"""Clients, each of which assembles an answer by the rules of ``docs/websocket.md``."""

import asyncio
import json
from abc import ABC, abstractmethod
from typing import Any, Final

from actors.delivery.topic import PAGE_BYTES
from actors.log.follow import Follower, follow
from protocol.errors import UnrecoverablePosition
from protocol.events import (
    Entry,
    Position,
    Snapshot,
)
from protocol.hub import Mode, Subscribe
from protocol.websocket.out import snapshot_json, update_json
from service.websocket.transport import SocketTransport
from tests.contracts.delivery.wires import Pipe, messages
from tests.contracts.delivery.world import Content, World

TEXT: Final = 1
CLOSE: Final = 8
PING: Final = 9
RELEASED: Final = frozenset({4010, 1000})  # the hub went, not the client
ASLEEP: Final = frozenset({4008, 4012})  # what becomes of those who don't read


class Reader(ABC):
    """A client that follows one request, keeps its position, and resumes at it.

    Attributes:
        position: up to where it has everything; None while it has nothing.
        content: the assembled content.
        base: the offset after which its content begins; 0 unless it began ``live``.
        saved: earlier positions with their content, to resume at.
        connected: whether it follows now.
        attentive: whether it has always read what came over this connection.
    """

    def __init__(self, world: World, place: int) -> None:
        self.world = world
        self.place = place
        self.stream = world.streams[place]
        self.position: Position | None = None
        self.content = Content()
        self.base = 0
        self.saved: list[tuple[Position | None, Content, int]] = []
        self.connected = False
        self.attentive = True
        self.reading = True
        self.forgetful = False
        self.mode: Mode | None = None

    @property
    def ended(self) -> bool:
        """Whether it has the end."""
        return bool(self.content.ended)

    def connect(self, mode: Mode | None = None, position: Position | None = None) -> None:
        """Connect at its own position, or at ``position`` if there is one."""
        if self.connected or self.ended:
            return
        self.attentive = self.reading = True
        self.forgetful = False
        self.mode = mode
        wanted = self.position if position is None else position
        refused = self._is_to_be_refused(mode, wanted)
        self.connected = True
        accepted = self.open(mode, wanted)
        assert accepted != refused, f"{wanted} in 1..{self.stream.offset}, {mode}: {accepted}"
        if refused:
            self.connected = False
            self.forget()
            self.connect()

    def _is_to_be_refused(self, mode: Mode | None, wanted: Position | None) -> bool:
        stream, after = self.stream, 0 if wanted is None else wanted.offset
        known = wanted is None or wanted.epoch == stream.epoch
        if known and after > stream.offset:
            return True
        return self.exact(mode, wanted) and not known

    def exact(self, mode: Mode | None, _: Position | None) -> bool:
        """Whether it wants every entry, and a refusal rather than a snapshot."""
        return mode == "replay"

    def forget(self) -> None:
        """Discard everything."""
        self.position, self.content, self.base = None, Content(), 0

    def save(self) -> None:
        """Save the position and the content."""
        self.saved.append((self.position, self.content.copy(), self.base))

    def go_back(self) -> None:
        """Restore what was saved last, as a suspended page does."""
        if self.saved and not self.connected:
            position, content, self.base = self.saved[-1]
            self.position, self.content = position, content.copy()

    def take(self, frame: dict[str, Any], epoch: str) -> None:
        """Apply a frame; check that it is the next one, and that the content is what was written."""
        assert not self.ended, "something came after the end"
        offset = frame["offset"]
        if frame.get("snapshot"):
            assert self.mode == "snapshot" or self.forgetful, "a snapshot that it has not asked for"
            assert self.position is None or self.forgetful or offset >= self.position.offset
            self.base = 0
        else:
            assert not self.forgetful, "it was to get a snapshot"
            last = self.base if self.position is None else self.position.offset
            assert frame.get("from", offset) == last + 1, f"after {last} came {frame}"
        self.forgetful = False
        self.content.take(frame)
        self.position = Position(epoch, offset)
        truth = self.world.content(self.place, self.base, offset)
        assert self.content.same(truth), (vars(self.content), vars(truth))

    def begin_live(self, epoch: str, offset: int) -> None:
        """Begin without earlier content, with everything from here on."""
        self.content, self.base, self.position = Content(), offset, Position(epoch, offset)

    def stop_reading(self) -> bool:
        """Stop reading, and return whether that is possible."""
        if self.connected:
            self.attentive = self.reading = False
        return self.connected

    @abstractmethod
    def open(self, mode: Mode | None, position: Position | None) -> bool:
        """Connect, and return whether the position was accepted; it may be refused later."""

    @abstractmethod
    def receive(self) -> None:
        """Read what has come."""

    @abstractmethod
    def cut(self) -> None:
        """Lose the connection, with everything that is not read yet."""

    def drain(self) -> None:
        """Read on."""
        self.reading = True

    @abstractmethod
    def check_bound(self) -> None:
        """Check the bound of the server's memory for it."""

    def bound(self, mark: int, page: int) -> int:
        """Return how much a connection may hold: the mark, and one write that begins just below it."""
        return mark + max(page + page // 8, self.world.whole) + self.world.largest + 4096


class SocketReader(Reader):
    """Follows over the hub's own socket."""

    def __init__(self, world: World, place: int, *, batch: bool) -> None:
        super().__init__(world, place)
        self.batch = batch
        self.pipe = Pipe()
        self.transport: SocketTransport | None = None
        self.acked = False

    def open(self, mode: Mode | None, position: Position | None) -> bool:
        self.pipe, self.acked = Pipe(), False
        self.transport = SocketTransport(self.pipe, self.world.loop.call_later)
        if self.batch:
            self.transport.batch(self.world.join)
        return self.subscribe(mode, position)

    def subscribe(self, mode: Mode | None, position: Position | None) -> bool:
        """Subscribe, or subscribe again."""
        assert self.transport is not None
        message = Subscribe(socket=self.transport, stream=self.stream, after=position, mode=mode, ack_id=1)
        try:
            self.world.fanout.subscribe(message)
        except UnrecoverablePosition:
            self.cut()
            return False
        return True

    def receive(self) -> None:
        if not self.reading or self.transport is None:
            return
        found, self.pipe.received = messages(self.pipe.received)
        for opcode, payload in found:
            if opcode == PING:
                self.transport.received = True
            elif opcode == CLOSE:
                code = int.from_bytes(payload[:2], "big")
                assert code in RELEASED or (code in ASLEEP and not self.attentive), code
                self.cut()
                return
            else:
                assert opcode == TEXT
                lines = payload.splitlines()
                assert len(lines) == 1 or self.batch
                for line in lines:
                    self._read(json.loads(line))
        if self.pipe.ended:
            assert not self.attentive
            self.cut()

    def _read(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "disconnect":
            return
        assert frame["requestId"] == self.stream.request_id
        if frame["type"] != "ack":
            assert self.acked, "something came before the acknowledgement"
            assert self.position is not None or frame.get("snapshot") or self.mode != "live"
            self.take(frame, self.world.log.epoch)
            return
        self.acked = True
        data = frame["data"]
        if self.mode == "live":
            ended = data["state"] in {"completed", "failed", "cancelled"}
            self.begin_live(data["epoch"], data["offset"] - ended)
        elif not data["recovered"]:
            self.forget()
            self.forgetful = True
        if self.position is None:
            self.position = Position(data["epoch"], 0)

    def cut(self) -> None:
        if self.transport is not None:
            self.world.fanout.remove(self.transport)
            self.transport.finish()
            self.pipe.abort()
            self.transport = None
        self.connected = False

    def drain(self) -> None:
        self.reading = True
        self.pipe.reading = True
        self.pipe.take()

    def stop_reading(self) -> bool:
        self.pipe.reading = False
        return super().stop_reading()

    def check_bound(self) -> None:
        assert self.pipe.peak <= self.bound(self.world.high_water, PAGE_BYTES), self.pipe.peak


class LoopReader(Reader):
    """Follows in process."""

    def __init__(self, world: World, place: int) -> None:
        super().__init__(world, place)
        self.task: asyncio.Task[None] | None = None
        self.awake = asyncio.Event()
        self.awake.set()

    def open(self, mode: Mode | None, position: Position | None) -> bool:
        if mode == "live":
            self.begin_live(self.world.log.epoch, self.stream.offset - self.stream.ended)
        self.forgetful = position is not None and position.epoch != self.world.log.epoch and mode != "live"
        try:
            items = self.world.loop.run_until_complete(self._follow(mode, position))
        except UnrecoverablePosition:
            return False
        self.awake.set()
        self.task = self.world.loop.create_task(self._read(items))
        return True

    async def _follow(self, mode: Mode | None, position: Position | None) -> Follower:
        return follow(self.stream, position, mode)

    async def _read(self, items: Follower) -> None:
        async with items:
            async for item in items:
                await self.awake.wait()
                self.take(json.loads(self._frame(item)), self.stream.epoch)

    def _frame(self, item: Entry | Snapshot) -> bytes:
        if isinstance(item, Snapshot):
            return snapshot_json(self.stream.request_id, self.stream.epoch, item)
        return update_json(self.stream.request_id, item)

    def receive(self) -> None:
        if self.task is not None and self.task.done():
            self.task.result()
            assert self.ended
            self.cut()

    def cut(self) -> None:
        if self.task is not None:
            self.task.cancel()
            self.world.loop.turn()
            assert self.task.done()
            self.task = None
        self.connected = False

    def stop_reading(self) -> bool:
        self.awake.clear()
        return super().stop_reading()

    def drain(self) -> None:
        self.reading = True
        self.awake.set()

    def check_bound(self) -> None:
        """It holds only what the log holds."""
