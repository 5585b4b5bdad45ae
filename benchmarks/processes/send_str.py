"""The usual hub: an aiohttp server that loops over its sockets and awaits ``send_str`` for each and every event."""

import asyncio
from typing import Final

import msgspec
from aiohttp import web

from benchmarks.processes import control

WORD: Final = "token "


async def main() -> None:
    """Serve until the parent is done."""
    sockets: set[web.WebSocketResponse] = set()
    running: list[asyncio.Task[None]] = []

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

    async def ticks(count: int, events: int, interval: float) -> int:
        running.append(asyncio.create_task(tick(count, events, interval)))
        return count * events

    async def tick(count: int, events: int, interval: float) -> None:
        offset = 0
        for _ in range(count):
            for _ in range(events):
                offset += 1
                frame = {"type": "update", "requestId": "req_1", "offset": offset, "data": {"delta": WORD}}
                text = msgspec.json.encode(frame).decode()
                for socket in tuple(sockets):
                    await socket.send_str(text)
            await asyncio.sleep(interval)

    async def connected() -> int:
        return len(sockets)

    app = web.Application()
    app.router.add_get("/ws", follow)
    await control.obey({"address": await control.listen(app)}, ticks=ticks, connected=connected)


if __name__ == "__main__":
    control.run(main())
