"""Connections, an event loop and its clock under the test's control, for the server's protocols to run on."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final, TypeVarTuple, Unpack

TURNS: Final = 1000  # of a loop, in which it has to come to rest

Ts = TypeVarTuple("Ts")


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock the test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.busy = False

    def time(self) -> float:
        """Return the seconds on its clock."""
        return self.now

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Record that there is something to do."""
        self.busy = True
        return super().call_soon(callback, *args, context=context)

    def turn(self) -> None:
        """Run everything that is ready, until nothing is."""
        for _ in range(TURNS):
            self.busy = False
            self.stop()
            self.run_forever()
            if not self.busy:
                return
        raise AssertionError("it does not come to rest")


class Pipe(asyncio.Transport):
    """A connection, as the server sees it and as its client does, which reads at once or when told to.

    Attributes:
        reading: whether the client reads at once.
        received: what the client has read and not parsed yet.
        peak: the most bytes that the server had to buffer.
        ended: whether the server has closed it.
    """

    def __init__(self, protocol: asyncio.Protocol | None = None, *, reading: bool = True) -> None:
        super().__init__()
        self.protocol: Any = protocol
        self.reading = reading
        self.received = b""
        self.peak = 0
        self.ended = False
        self._held = bytearray()
        self._high = 64 * 1024
        self._low = 32 * 1024
        self._paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.ended:
            return
        self._held += data
        if self.reading:
            self.take()
            return
        self.peak = max(self.peak, len(self._held))
        if len(self._held) > self._high and not self._paused and self.protocol is not None:
            self._paused = True
            self.protocol.pause_writing()

    def take(self) -> None:
        """Read everything, as the client."""
        self.received += self._held
        self._held.clear()
        if self._paused:
            self._paused = False
            self.protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        return len(self._held)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = self._high if high is None else high
        self._low = self._low if low is None else low

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self._held.clear()
        self.ended = True

    def pause_reading(self) -> None:
        """Does nothing: the client sends no more."""

    def resume_reading(self) -> None:
        """Does nothing."""


def messages(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return a server's WebSocket messages by opcode, and the bytes of an unfinished one."""
    found = []
    while len(data) > 1:
        size, place = data[1], 2
        if size > 125:
            width = 2 if size == 126 else 8
            size, place = int.from_bytes(data[2 : 2 + width], "big"), 2 + width
        if len(data) < place + size:
            break
        assert data[0] & 0xF0 == 0x80
        found.append((data[0] & 0x0F, data[place : place + size]))
        data = data[place + size :]
    return found, data


class Response:
    """An HTTP response as it arrives.

    Attributes:
        status: 0 until the headers have arrived.
        body: the body so far.
        whole: whether the body is complete.
    """

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.whole = False
        self._rest = b""
        self._length: int | None = None

    def feed(self, data: bytes) -> None:
        """Parse more of the response."""
        assert not (self.whole and data)
        self._rest += data
        if not self.status and b"\r\n\r\n" in self._rest:
            head, _, self._rest = self._rest.partition(b"\r\n\r\n")
            self.status = int(head.split(b" ", 2)[1])
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            chunked = fields.get(b"transfer-encoding") == b"chunked"
            self._length = None if chunked else int(fields.get(b"content-length", b"0"))
        if self.status and self._length is None:
            self._chunks()
        elif self.status:
            self.body += self._rest
            self._rest = b""
            self.whole = len(self.body) == self._length

    def _chunks(self) -> None:
        while not self.whole and b"\r\n" in self._rest:
            line, _, rest = self._rest.partition(b"\r\n")
            size = int(line, 16)
            if len(rest) < size + 2:
                return
            self.body += rest[:size]
            self._rest = rest[size + 2 :]
            self.whole = size == 0
