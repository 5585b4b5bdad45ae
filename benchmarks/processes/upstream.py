"""The upstream of all comparisons: an OpenAI-compatible server that answers with prepared bytes.

The answer depends on a word in the body. With ``stream`` in the body it is SSE.

* ``bench-short``: one JSON body; streamed: a role chunk, one content chunk, the end.
* ``bench-long``: streamed, ``CHUNKS`` content chunks, each a write of its own, with a pass of the loop between them.
* ``bench-ticks``: streamed on command: ticks at their due times, each with several chunks in one write; it ends on
  command.
* ``bench-hold``: no answer until it is released or the client disconnects.

``/v1/traces`` accepts spans and drops them.
"""

import asyncio
import time
from typing import Any, Final

import msgspec
from aiohttp import web

from benchmarks.processes import control
from benchmarks.processes.ticking import LEAD_TIME, paced

CHUNKS: Final = 50
WORD: Final = "token "
MODEL: Final = "gpt-4o-mini"
SSE: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
USAGE: Final = {"prompt_tokens": 8, "completion_tokens": CHUNKS, "total_tokens": CHUNKS + 8}


def _chunk(delta: dict[str, str], finish: str | None = None, **more: object) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices}
    return b"data: " + msgspec.json.encode({**body, **more}) + b"\n\n"


ROLE: Final = _chunk({"role": "assistant", "content": ""})
CONTENT: Final = _chunk({"content": WORD})
END: Final = (
    _chunk({}, "stop")
    + b"data: "
    + msgspec.json.encode(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": MODEL,
            "choices": [],
            "usage": USAGE,
        }
    )
    + b"\n\ndata: [DONE]\n\n"
)
UNARY: Final = msgspec.json.encode(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": WORD}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
)


class Upstream:
    """Answers calls, and counts them."""

    def __init__(self) -> None:
        self.calls = 0
        self._go: asyncio.Future[tuple[float, int, bytes, float]] | None = None
        self._hold = asyncio.Event()
        self._over = asyncio.Event()

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Answer, depending on the word in the body."""
        body = await request.read()
        self.calls += 1
        if b"bench-hold" in body:
            await self._hold.wait()
        if b'"stream":true' not in body:
            return web.Response(body=UNARY, content_type="application/json")
        response = web.StreamResponse(headers=SSE)
        await response.prepare(request)
        if b"bench-ticks" in body:
            await self._tick(response)
        elif b"bench-long" in body:
            await response.write(ROLE)
            for _ in range(CHUNKS):
                await response.write(CONTENT)
                await asyncio.sleep(0)
            await response.write(END)
        else:
            await response.write(ROLE + CONTENT)
            await response.write(END)
        await response.write_eof()
        return response

    async def traces(self, request: web.Request) -> web.Response:
        """Drop the spans."""
        await request.read()
        return web.Response(content_type="application/x-protobuf")

    async def ticks(self, count: int, events: int, interval: float, word: str = WORD) -> float:
        """Start the ticks of the waiting stream; return the due time of the first one, by the shared clock."""
        assert self._go is not None, "nobody has asked for ticks"
        start = time.monotonic() + LEAD_TIME
        self._go.set_result((start, count, _chunk({"content": word}) * events, interval))
        return start

    async def finish(self) -> None:
        """End the stream after its ticks."""
        self._over.set()

    async def release(self) -> None:
        """Release the held calls; later ones are held again."""
        self._hold.set()
        self._hold = asyncio.Event()

    async def counted(self) -> int:
        """Return the number of calls."""
        return self.calls

    async def _tick(self, response: web.StreamResponse) -> None:
        self._go = asyncio.get_running_loop().create_future()
        self._over = asyncio.Event()
        await response.write(ROLE)
        start, count, chunks, interval = await self._go
        async for _ in paced(start, count, interval):
            await response.write(chunks)
        await self._over.wait()
        await response.write(END)


async def main() -> None:
    """Serve until the parent ends."""
    upstream = Upstream()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", upstream.complete)
    app.router.add_post("/v1/traces", upstream.traces)
    commands: dict[str, Any] = {
        "ticks": upstream.ticks,
        "finish": upstream.finish,
        "release": upstream.release,
        "counted": upstream.counted,
    }
    await control.serve({"address": await control.listen(app)}, **commands)


if __name__ == "__main__":
    control.run(main())
