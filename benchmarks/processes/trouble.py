"""A failing provider: an OpenAI-compatible server whose answer depends on the path.

* ``/well/v1``: a short streamed answer.
* ``/limiting/v1``: 429 with a vendor's rate limit headers, and a second to wait.
* ``/refusing/v1``: 429 with ``Retry-After`` only, a second.
* ``/stalling/v1``: no answer, until the client disconnects.
"""

import asyncio
from typing import Final

from aiohttp import web

from benchmarks.processes import control
from benchmarks.processes.upstream import CONTENT, END, ROLE, SSE

CHAT: Final = "/v1/chat/completions"
LIMITED: Final = {
    "retry-after": "1",
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-remaining-requests": "0",
    "x-ratelimit-reset-requests": "1s",
}


async def well(_request: web.Request) -> web.Response:
    """Answer at once."""
    return web.Response(body=ROLE + CONTENT + END, headers=SSE)


async def limiting(_request: web.Request) -> web.Response:
    """Refuse with 429 and the rate limit headers."""
    return web.Response(status=429, headers=LIMITED)


async def refusing(_request: web.Request) -> web.Response:
    """Refuse with 429."""
    return web.Response(status=429, headers={"retry-after": "1"})


async def stalling(_request: web.Request) -> web.Response:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


async def main() -> None:
    """Serve until the parent ends."""
    app = web.Application()
    app.router.add_post(f"/well{CHAT}", well)
    app.router.add_post(f"/limiting{CHAT}", limiting)
    app.router.add_post(f"/refusing{CHAT}", refusing)
    app.router.add_post(f"/stalling{CHAT}", stalling)
    await control.serve({"address": await control.listen(app)})


if __name__ == "__main__":
    control.run(main())
