"""The floor: the frames of a tick, encoded once and joined, by one ``transport.write`` a socket."""

import asyncio
from collections.abc import Sequence
from typing import Final, cast

from benchmarks.processes import control
from benchmarks.processes.ticking import Event, Ticker, framed

UPGRADED: Final = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
HIGH_WATER: Final = 64 * 1024  # bytes, the same as Tidegate's


class Line(asyncio.Protocol):
    """A connection that takes the first bytes as an upgrade, and ignores the rest."""

    def __init__(self, lines: dict["Line", asyncio.Transport]) -> None:
        self._lines = lines
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER, low=HIGH_WATER // 2)

    def data_received(self, data: bytes) -> None:
        """Answer the upgrade."""
        if self._transport is not None and data.endswith(b"\r\n\r\n"):
            self._transport.write(UPGRADED)
            self._lines[self] = self._transport

    def connection_lost(self, _: Exception | None) -> None:
        """Remove the transport."""
        self._lines.pop(self, None)


async def main() -> None:
    """Serve until the parent ends."""
    lines: dict[Line, asyncio.Transport] = {}

    async def send(events: Sequence[Event]) -> None:
        frames = b"".join(map(framed, events))
        for transport in lines.values():
            transport.write(frames)

    server = await asyncio.get_running_loop().create_server(lambda: Line(lines), "127.0.0.1", 0, backlog=4096)
    host, port = server.sockets[0].getsockname()
    await control.serve({"address": f"http://{host}:{port}"}, ticks=Ticker(send).ticks)


if __name__ == "__main__":
    control.run(main())
