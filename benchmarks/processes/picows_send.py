"""picows, a WebSocket server in C: ``send`` for each socket and event."""

from collections.abc import Sequence

from picows import WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from benchmarks.processes import control
from benchmarks.processes.ticking import Event, Ticker, text_of


class Follower(WSListener):
    """A connection; the set of open ones has it."""

    def __init__(self, transports: set[WSTransport]) -> None:
        self._transports = transports

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Add the connection."""
        self._transports.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Remove the connection."""
        self._transports.discard(transport)


async def main() -> None:
    """Serve until the parent ends."""
    transports: set[WSTransport] = set()

    async def send(events: Sequence[Event]) -> None:
        for event in events:
            payload = text_of(event).encode()
            for transport in transports:
                transport.send(WSMsgType.TEXT, payload)

    def follow(_: WSUpgradeRequest) -> WSListener:
        return Follower(transports)

    server = await ws_create_server(follow, "127.0.0.1", 0, backlog=4096)
    host, port = server.sockets[0].getsockname()
    await control.serve({"address": f"http://{host}:{port}"}, ticks=Ticker(send).ticks)


if __name__ == "__main__":
    control.run(main())
