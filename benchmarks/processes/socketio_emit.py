"""python-socketio on aiohttp: one ``emit`` to all sockets an event."""

from collections.abc import Sequence
from typing import Final

import socketio
from aiohttp import web

from benchmarks.processes import control
from benchmarks.processes.ticking import Event, Ticker

NEVER: Final = 3600  # seconds: the clients do not answer its pings


async def main() -> None:
    """Serve until the parent ends."""
    hub = socketio.AsyncServer(async_mode="aiohttp", ping_interval=NEVER)

    async def send(events: Sequence[Event]) -> None:
        for event in events:
            await hub.emit("update", event)

    app = web.Application()
    hub.attach(app)
    await control.serve({"address": await control.listen(app)}, ticks=Ticker(send).ticks)


if __name__ == "__main__":
    control.run(main())
