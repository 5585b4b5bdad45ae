"""A minimal proxy on aiohttp: reads the body, sends it upstream, returns the answer.

With ``streamed`` it always asks the upstream for a stream, and joins the pieces for a unary call: the minimum of a
gateway that always streams from its upstream.
"""

from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from benchmarks.processes import control

KEPT = ("Content-Type", "Cache-Control")


async def main() -> None:
    """Serve until the parent ends."""
    options = control.options()
    upstream, streamed = options["upstream"] + "/chat/completions", options.get("streamed", False)
    connector = aiohttp.TCPConnector(limit=256)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            headers = {"Content-Type": "application/json"}
            whole = streamed and b'"stream":true' not in body
            if whole:
                body = body[:-1] + b',"stream":true}'
            async with session.post(upstream, data=body, headers=headers) as answer:
                if whole:
                    return web.Response(body=join_stream(await answer.read()), content_type="application/json")
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
        await control.serve({"address": await control.listen(app)})


def join_stream(stream: bytes) -> bytes:
    """Return the body of the unary answer from its stream."""
    answer: dict[str, Any] = {}
    text = []
    for event in stream.split(b"\n\n"):
        if event and event != b"data: [DONE]":
            answer = msgspec.json.decode(event.removeprefix(b"data: "))
            text += [choice["delta"].get("content", "") for choice in answer["choices"]]
    message = {"role": "assistant", "content": "".join(text)}
    answer["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return msgspec.json.encode(answer)


if __name__ == "__main__":
    control.run(main())
