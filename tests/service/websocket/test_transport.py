"""The transport of a WebSocket."""

import asyncio
from collections.abc import Callable

import pytest

from service.frames import PING_INTERVAL, close_frame
from service.websocket.transport import CLOSE_TIMEOUT, PONG_TIMEOUT, SocketTransport

PING = b"\x89\x00"


class Wire(asyncio.Transport):
    """A transport that records what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.size = 0
        self.end = ""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.size

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high
        assert low

    def is_closing(self) -> bool:
        return bool(self.end)

    def close(self) -> None:
        self.end = self.end or "closed"

    def abort(self) -> None:
        self.end = "aborted"


class Timers:
    """Timers that the test fires: ``run`` fires the last one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.delay = 0.0
        self.handle: asyncio.TimerHandle | None = None
        self._callback: Callable[[], None] | None = None

    def later(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        self.delay, self._callback = delay, callback
        self.handle = self._loop.call_later(3600, callback)
        return self.handle

    def run(self) -> float:
        """Fire the last timer, and return its delay."""
        delay, callback = self.delay, self._callback
        assert self.handle is not None
        assert callback is not None
        assert not self.handle.cancelled()
        self.handle.cancel()
        callback()
        return delay


@pytest.fixture
async def timers() -> Timers:
    """Timers that only the test fires."""
    return Timers(asyncio.get_running_loop())


def test_a_client_that_answers_stays(timers: Timers) -> None:
    """A ping every interval; any message since then counts as the answer."""
    wire = Wire()
    socket = SocketTransport(wire, timers.later)
    assert timers.run() == PING_INTERVAL
    socket.received = True
    assert timers.run() == PONG_TIMEOUT
    assert timers.run() == PING_INTERVAL - PONG_TIMEOUT
    assert wire.written == [PING, PING]
    socket.paused = True
    timers.run()
    assert not socket.closing


@pytest.mark.parametrize(("heartbeat", "waits"), [(40.0, [40.0, 10.0, 30.0]), (4.0, [4.0, 4.0, 0.0])])
def test_the_heartbeat_can_be_set(timers: Timers, heartbeat: float, waits: list[float]) -> None:
    """Pings are ``heartbeat`` seconds apart; where that is less than the time for a pong, so is that time."""
    socket = SocketTransport(Wire(), timers.later, heartbeat)
    for wait in waits:
        socket.received = True
        assert timers.run() == wait


def test_a_client_that_does_not_answer_is_closed(timers: Timers) -> None:
    """Without a pong the socket is closed with 4012; a client that does not read that is aborted."""
    wire = Wire()
    socket = SocketTransport(wire, timers.later)
    timers.run()
    timers.run()
    assert wire.written == [PING, close_frame(4012, "no pong")]
    assert socket.closing
    assert timers.run() == CLOSE_TIMEOUT
    assert wire.end == "aborted"


def test_closing_twice_closes_once(timers: Timers) -> None:
    """A closing socket writes nothing."""
    wire = Wire()
    socket = SocketTransport(wire, timers.later)
    socket.close(1000, "bye")
    socket.close(4008, "slow")
    socket.write(b"more")
    socket.pong(b"")
    assert wire.written == [close_frame(1000, "bye")]


def test_finishing_never_waits(timers: Timers) -> None:
    """With an empty buffer no timer is left; a full one has the close timeout to be sent."""
    wire = Wire()
    socket = SocketTransport(wire, timers.later)
    socket.finish()
    assert wire.end == "closed"
    assert timers.handle is not None
    assert timers.handle.cancelled()
    stalled = Wire()
    stalled.size = 1000
    SocketTransport(stalled, timers.later).finish()
    assert timers.run() == CLOSE_TIMEOUT
    assert stalled.end == "aborted"


class LostWire(Wire):
    """A transport whose connection is lost before ``connection_lost`` was called."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        raise RuntimeError("the handler is closed")


def test_a_connection_that_has_just_been_lost_is_let_go(timers: Timers) -> None:
    """Writing to a lost connection does not raise: the socket is closing, and its heartbeat stops."""
    socket = SocketTransport(LostWire(), timers.later)
    socket.send(b"hello")
    assert socket.closing
    socket.close(1000, "bye")
    socket = SocketTransport(LostWire(), timers.later)
    assert timers.run() == PING_INTERVAL
    assert socket.closing
    assert timers.delay == PING_INTERVAL
