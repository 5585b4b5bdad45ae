"""A front before a service that refuses to upgrade ``/ws``, with a reason for who asks over HTTP."""

import asyncio
from typing import Any, Self

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, web


class RefusingFront:
    """Passes HTTP calls on; a call of ``/ws`` is answered with a problem document while ``refusing``."""

    def __init__(self, target: str, status: int, problem: dict[str, Any]) -> None:
        self.target = target
        self.status = status
        self.problem = problem
        self.refusing = True
        self.upgrades = 0
        app = web.Application()
        app.router.add_get("/ws", self._socket)
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)

    @property
    def url(self) -> str:
        """The front's address."""
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aenter__(self) -> Self:
        self._client = ClientSession()
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._client.close()

    async def _pass(self, request: web.Request) -> web.Response:
        headers = {
            name: request.headers[name] for name in ("Content-Type", "Idempotency-Key") if name in request.headers
        }
        body, url = await request.read(), self.target + request.path_qs
        async with self._client.request(request.method, url, data=body, headers=headers) as answer:
            kept = {name: answer.headers[name] for name in ("Content-Type", "x-trace-id") if name in answer.headers}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        self.upgrades += "Upgrade" in request.headers
        if self.refusing:
            return web.json_response(self.problem, status=self.status, content_type="application/problem+json")
        near = web.WebSocketResponse(protocols=("tidegate.v1",))
        await near.prepare(request)
        async with self._client.ws_connect(self.target + "/ws", protocols=("tidegate.v1",)) as far:
            back = asyncio.create_task(_copy(far, near))
            try:
                await _copy(near, far)
            finally:
                back.cancel()
        return near


Socket = web.WebSocketResponse | ClientWebSocketResponse


async def _copy(source: Socket, sink: Socket) -> None:
    async for message in source:
        if message.type is WSMsgType.TEXT:
            await sink.send_str(message.data)
