"""The least that a proxy on aiohttp can do: read the body, send it on, and hand back what comes."""

import aiohttp
from aiohttp import web

from benchmarks.processes import control

KEPT = ("Content-Type", "Cache-Control")


async def main() -> None:
    """Serve until the parent is done."""
    upstream = control.options()["upstream"] + "/chat/completions"
    connector = aiohttp.TCPConnector(limit=256)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            headers = {"Content-Type": "application/json"}
            async with session.post(upstream, data=body, headers=headers) as answer:
                if answer.content_type != "text/event-stream":
                    return web.Response(
                        status=answer.status, body=await answer.read(), content_type=answer.content_type
                    )
                response = web.StreamResponse(
                    status=answer.status,
                    headers={name: answer.headers[name] for name in KEPT if name in answer.headers},
                )
                await response.prepare(request)
                async for piece in answer.content.iter_any():
                    await response.write(piece)
                await response.write_eof()
                return response

        app = web.Application()
        app.router.add_post("/v1/chat/completions", forward)
        await control.obey({"address": await control.listen(app)})


if __name__ == "__main__":
    control.run(main())
