"""A server whose behaviour on each connection is a coroutine of the test, byte by byte."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from actors.wire.connection import Connection
from actors.wire.connector import Connector
from actors.wire.url import Origin

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
SOON = 20.0  # seconds
NO_LINGER = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Request:
    """A request as the server received it.

    Attributes:
        line: the request line.
        headers: by lower-case name.
        body: as many bytes as content-length says.
    """

    line: str
    headers: dict[str, str]
    body: bytes


class Link:
    """One connection, on the server's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> Request:
        """Read a request."""
        line, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        headers = dict(field.split(": ", 1) for field in lines)
        return Request(line, headers, await self.reader.readexactly(int(headers["content-length"])))

    async def send(self, *pieces: bytes) -> None:
        """Send each piece in a write of its own."""
        for piece in pieces:
            if self.writer.transport.is_closing():
                raise ConnectionResetError
            self.writer.write(piece)
            await self.writer.drain()

    async def left(self) -> None:
        """Wait until the client closes the connection."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def reset(self) -> None:
        """Reset the connection."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.writer.transport.abort()


class Peer:
    """A running server.

    Attributes:
        origin: its address.
        links: every connection so far.
        open: the number of open connections.
    """

    def __init__(self, play: Callable[[Link], Awaitable[None]]) -> None:
        self.origin: Origin
        self.links: list[Link] = []
        self.open = 0
        self._play = play
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"http{'s' if self.origin.tls else ''}://{self.origin.host}:{self.origin.port}/v1/x"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        link = Link(reader, writer)
        self.links.append(link)
        self.open += 1
        self._changed.set()
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._play(link)
        finally:
            self.open -= 1
            self._changed.set()
            writer.close()

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until ``true`` returns true; it is called after each change of a connection."""
        while not true():
            self._changed.clear()
            await self._changed.wait()


@asynccontextmanager
async def peer(
    play: Callable[[Link], Awaitable[None]], *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Peer]:
    """Start a server that runs ``play`` for each connection."""
    peer = Peer(play)
    server = await asyncio.start_server(peer.serve, host, 0, ssl=tls)
    peer.origin = Origin(host, server.sockets[0].getsockname()[1], tls is not None)
    try:
        yield peer
    finally:
        server.close()
        for link in peer.links:
            link.writer.transport.abort()
        await peer.until(lambda: not peer.open)


@asynccontextmanager
async def connected(origin: Origin) -> AsyncIterator[Connection]:
    """Yield a connection, then close it and wait until it is lost."""
    gone = asyncio.Event()
    connection = await Connector().connect(origin, lambda _: gone.set())
    try:
        yield connection
    finally:
        connection.close()
        await gone.wait()


async def answering(link: Link, answer: bytes = OK) -> None:
    """Answer every request."""
    while True:
        await link.request()
        await link.send(answer)


async def holding(link: Link) -> None:
    """Read a request, and send no answer."""
    await link.request()
    await link.left()


async def until(true: Callable[[], bool]) -> None:
    """Yield to the event loop until ``true`` returns true."""
    async with asyncio.timeout(SOON):
        while not true():
            await _turn()


_turn = partial(asyncio.sleep, 0)
