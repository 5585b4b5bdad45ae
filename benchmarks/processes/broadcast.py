"""``websockets.broadcast``, which encodes one frame an event for all connections."""

from collections.abc import Sequence

from websockets.asyncio.server import ServerConnection, broadcast, serve

from benchmarks.processes import control
from benchmarks.processes.ticking import Event, Ticker, text_of


async def main() -> None:
    """Serve until the parent ends."""
    connections: set[ServerConnection] = set()

    async def follow(connection: ServerConnection) -> None:
        connections.add(connection)
        try:
            await connection.wait_closed()
        finally:
            connections.discard(connection)

    async def send(events: Sequence[Event]) -> None:
        for event in events:
            broadcast(connections, text_of(event))

    async with serve(follow, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=4096) as server:
        host, port = next(iter(server.sockets)).getsockname()
        await control.serve({"address": f"http://{host}:{port}"}, ticks=Ticker(send).ticks)


if __name__ == "__main__":
    control.run(main())
