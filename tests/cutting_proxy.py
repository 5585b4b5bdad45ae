"""A proxy between a client and a service that aborts connections."""

import asyncio
from collections.abc import Iterable, Iterator
from typing import Self
from urllib.parse import urlsplit


class CuttingProxy:
    """Forwards bytes, and aborts each connection after the next number of response bytes in ``cuts``; then none."""

    def __init__(self, address: str, cuts: Iterable[int] = ()) -> None:
        self.target = address
        self.connections = 0
        self.refusing = False
        self._cuts: Iterator[int] = iter(cuts)
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """The proxy's address."""
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self, *, refusing: bool = False) -> None:
        """Abort every connection now; with ``refusing`` new ones are aborted, too."""
        self.refusing = refusing
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refusing:
            writer.transport.abort()
            return
        place = urlsplit(self.target)
        far_reader, far_writer = await asyncio.open_connection(place.hostname, place.port)
        self._writers |= {writer, far_writer}
        onward = asyncio.create_task(self._copy(reader, far_writer, None))
        try:
            await self._copy(far_reader, writer, next(self._cuts, None))
        finally:
            onward.cancel()
            self._writers -= {writer, far_writer}
            writer.transport.abort()
            far_writer.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: int | None) -> None:
        try:
            while data := await reader.read(4096):
                if budget is not None and len(data) >= budget:
                    writer.write(data[:budget])
                    await writer.drain()
                    return
                budget = None if budget is None else budget - len(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            return
