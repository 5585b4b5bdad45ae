"""A usual hub: an aiohttp server that awaits ``send_str`` for each socket and each event."""

from collections.abc import Sequence

from aiohttp import web

from benchmarks.processes import control
from benchmarks.processes.ticking import Event, Ticker, text_of


async def main() -> None:
    """Serve until the parent ends."""
    sockets: set[web.WebSocketResponse] = set()

    async def follow(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        sockets.add(socket)
        try:
            async for _ in socket:
                pass
        finally:
            sockets.discard(socket)
        return socket

    async def send(events: Sequence[Event]) -> None:
        for event in events:
            text = text_of(event)
            for socket in tuple(sockets):
                await socket.send_str(text)

    app = web.Application()
    app.router.add_get("/ws", follow)
    await control.serve({"address": await control.listen(app)}, ticks=Ticker(send).ticks)


if __name__ == "__main__":
    control.run(main())
