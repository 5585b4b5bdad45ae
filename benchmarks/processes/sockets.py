"""Many WebSocket clients in one process, on raw protocols: they read frames and record offsets only."""

import asyncio
import base64
import os
import statistics
import time
from itertools import pairwise
from typing import Any, Final, cast
from urllib.parse import urlsplit

from benchmarks.processes import control

AT_ONCE: Final = 50  # connections that are opened at once
OFFSET: Final = b'"offset":'
ACK: Final = b'{"type":"ack"'
FROM: Final = b'"from":'
SNAPSHOT: Final = b'"snapshot":true'
NEAR: Final = 60  # bytes after an offset in which a frame has its snapshot flag
TEXT, CLOSE = 0x81, 0x88


class Client(asyncio.Protocol):
    """One socket.

    Args:
        upgrade: the request that opens the socket.
        first: the first message; empty for none.
        ready: see below.
        ack: the start of the answer to ``first``.

    Attributes:
        frames: the number of events with an offset; a message may have several.
        last: the offset of the last event.
        gaps: the number of events whose offset does not follow the last one.
        merged: the number of merged updates and snapshots.
        code: of the close frame; 0 for none.
        arrivals: the time of each read, and the last offset then.
        ready: done when the upgrade and the acknowledgement of ``first`` have been read.
    """

    def __init__(self, upgrade: bytes, first: bytes, ready: "asyncio.Future[None]", ack: bytes = ACK) -> None:
        self.frames = 0
        self.last = 0
        self.gaps = 0
        self.merged = 0
        self.code = 0
        self.arrivals: list[tuple[float, int]] = []
        self.wanted = -1
        self.arrived: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport | None = None
        self.ready = ready
        self._upgrade = upgrade
        self._first = first
        self._ack = ack
        self._open = False
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the upgrade."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._upgrade)

    def data_received(self, data: bytes) -> None:
        """Read whole frames."""
        if self._rest:
            data = self._rest + data
        if not self._open:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._rest = data
                return
            self._upgraded(data[:end])
            data = data[end + 4 :]
        self._rest = self._frames(data)
        self.arrivals.append((time.monotonic(), self.last))
        if self.last == self.wanted and self.arrived is not None and not self.arrived.done():
            self.arrived.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the futures that wait."""
        for waiter in (self.ready, self.arrived):
            if waiter is not None and not waiter.done():
                waiter.set_exception(error or ConnectionError("the server closed a socket"))

    def wait_for(self, offset: int) -> "asyncio.Future[None]":
        """Return a future that is done when the frame of this offset has been read."""
        self.wanted = offset
        self.arrived = asyncio.get_running_loop().create_future()
        if self.last == offset:
            self.arrived.set_result(None)
        return self.arrived

    def _upgraded(self, head: bytes) -> None:
        if not head.startswith(b"HTTP/1.1 101"):
            self.ready.set_exception(ConnectionError(head[:200].decode("latin-1")))
            return
        self._open = True
        if self._first and self.transport is not None:
            self.transport.write(masked(self._first))
        else:
            self.ready.set_result(None)

    def _frames(self, data: bytes) -> bytes:
        at, size = 0, len(data)
        while size - at >= 2:
            length, begin = data[at + 1], at + 2
            if length == 126:
                if size - at < 4:
                    break
                length, begin = int.from_bytes(data[at + 2 : at + 4]), at + 4
            elif length == 127:
                if size - at < 10:
                    break
                length, begin = int.from_bytes(data[at + 2 : at + 10]), at + 10
            end = begin + length
            if end > size:
                break
            if data[at] == TEXT:
                self._frame(data, begin, end)
            elif data[at] == CLOSE:
                self.code = int.from_bytes(data[begin : begin + 2])
            at = end
        return data[at:]

    def _frame(self, data: bytes, begin: int, end: int) -> None:
        if not self.ready.done():
            if data.startswith(self._ack, begin):
                self.ready.set_result(None)
            elif data.startswith(b'{"type":"error"', begin):
                self.ready.set_exception(ConnectionError(data[begin:end].decode()))
        if data.startswith(self._ack, begin):
            begin = data.find(b"\n", begin, end)
            if begin < 0:
                return
        found = data.find(OFFSET, begin, end)
        while found >= 0:
            number = found + len(OFFSET)
            offset = int(data[number : data.find(b",", number, end)])
            first = data.find(FROM, begin, found)
            if first >= 0 or data.find(SNAPSHOT, number, number + NEAR) >= 0:
                self.merged += 1
                follows = first < 0 or int(data[first + len(FROM) : data.find(b",", first, found)]) == self.last + 1
            else:
                follows = offset == self.last + 1
            self.gaps += not follows
            self.frames += 1
            self.last = offset
            begin, found = number, data.find(OFFSET, number, end)


def upgrade(address: str, key: str, path: str = "/ws") -> bytes:
    """Return the request that opens a socket."""
    nonce = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: {urlsplit(address).netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {nonce}\r\n\r\n"
    ).encode()


def masked(payload: bytes) -> bytes:
    """Return a client's text frame of at most 65,535 bytes, masked with zeros."""
    size = len(payload)
    head = bytes((0x81, 0x80 | size)) if size < 126 else bytes((0x81, 0xFE)) + size.to_bytes(2)
    return head + bytes(4) + payload


class Clients:
    """All sockets of this process."""

    def __init__(self) -> None:
        self._clients: list[Client] = []

    async def open(
        self, address: str, key: str, count: int, first: str = "", ack: str = ACK.decode(), path: str = "/ws"
    ) -> int:
        """Open ``count`` more sockets; each sends ``first``, if any, and waits for its answer."""
        where = urlsplit(address)
        loop = asyncio.get_running_loop()

        async def one() -> Client:
            client = Client(upgrade(address, key, path), first.encode(), loop.create_future(), ack.encode())
            await loop.create_connection(lambda: client, where.hostname or "", where.port or 0)
            await client.ready
            return client

        async with asyncio.timeout(60):
            while count > 0:
                self._clients += await asyncio.gather(*(one() for _ in range(min(AT_ONCE, count))))
                count -= AT_ONCE
        return len(self._clients)

    async def all_have(self, offset: int, limit: float) -> dict[str, Any]:
        """Wait until every socket has the frame of ``offset``; return the least and the most frames, and the gaps."""
        async with asyncio.timeout(limit):
            await asyncio.gather(*(client.wait_for(offset) for client in self._clients))
        frames = [client.frames for client in self._clients]
        gaps = sum(client.gaps for client in self._clients)
        return {"clients": len(frames), "least": min(frames), "most": max(frames), "gaps": gaps}

    async def delays(self, due: list[float], lead: int) -> dict[str, float]:
        """Return the percentiles of the delays of the events after their due times, in seconds.

        Args:
            due: the due times, by the clock that all processes share; the first event has offset ``lead`` + 1.
            lead: the number of entries before these events.
        """
        delays = [
            at - moment
            for client in self._clients
            for (_, before), (at, last) in pairwise([(0.0, lead), *client.arrivals])
            for moment in due[max(0, before - lead) : max(0, last - lead)]
        ]
        cuts = statistics.quantiles(delays, n=100, method="inclusive")
        return {"count": len(delays), "p50": cuts[49], "p99": cuts[98]}

    async def close(self) -> None:
        """Close every socket."""
        clients, self._clients = self._clients, []
        for client in clients:
            if client.transport is not None:
                client.transport.abort()
        await asyncio.sleep(0)


async def main() -> None:
    """Run the parent's commands until it ends."""
    clients = Clients()
    await control.serve({}, open=clients.open, all_have=clients.all_have, delays=clients.delays, close=clients.close)


if __name__ == "__main__":
    control.run(main())
