"""A scripted model provider: a real HTTP server on loopback, for tests."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from aiohttp import web

from actors.testing.embeddings import EmbeddingsReplyEncoder
from actors.testing.eventstream import CONTENT_TYPE as EVENT_STREAM
from actors.testing.script import (
    STREAM,
    AnthropicReplyEncoder,
    BedrockReplyEncoder,
    Cut,
    OpenAIReplyEncoder,
    Reply,
    Reset,
    Send,
    Stall,
    Step,
    Wait,
)

ReplyEncoder = OpenAIReplyEncoder | AnthropicReplyEncoder | EmbeddingsReplyEncoder

VERTEX: Final = "/v1/projects/{project}/locations/{region}/publishers/anthropic/models/{model}:{verb}"
NO_LINGER: Final = struct.pack("ii", 1, 0)  # closing a socket with this resets its connection


class Received(msgspec.Struct, frozen=True):
    """A request that the upstream has received.

    Attributes:
        path: the URL's path.
        body: the JSON body.
        headers: by lower-case name.
        query: the URL's query parameters.
    """

    path: str
    body: dict[str, Any]
    headers: Mapping[str, str]
    query: Mapping[str, str] = {}


class ScriptedUpstream:
    """Serves OpenAI's chat completions and embeddings, and Anthropic's messages, on a free port of loopback.

    Chat completions also have Azure's paths, and messages have Vertex's and, as AWS event streams, Bedrock's.

    ::

        async with ScriptedUpstream() as upstream:
            upstream.script(Reply(status=429), say("Hello"))
            ...
            await upstream.called(2)

    Each request gets the next scripted reply; without one it gets ``default``.

    Attributes:
        default: the reply to requests beyond the script.
        received: every request so far.
        answered: each reply that was sent to its end, with its request.
        busy: the number of requests that are being answered.
        left: the number of connections that ended before the end of their answer, closed by the client or by a step.
    """

    def __init__(self, *replies: Reply) -> None:
        self.default = Reply()
        self.received: list[Received] = []
        self.answered: list[tuple[Received, Reply]] = []
        self.busy = 0
        self.left = 0
        self._replies = deque(replies)
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._port = 0

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_post("/v1/chat/completions", self._openai)
        application.router.add_post("/v1/messages", self._anthropic)
        application.router.add_post("/v1/embeddings", self._embeddings)
        application.router.add_post("/openai/deployments/{model}/chat/completions", self._openai)
        application.router.add_post("/model/{model}/{verb:invoke(-with-response-stream)?}", self._bedrock)
        application.router.add_post(VERTEX, self._anthropic)
        self._runner = web.AppRunner(application, handler_cancellation=True, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await self._site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def openai_url(self) -> str:
        """The base URL for OpenAI's dialect."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def anthropic_url(self) -> str:
        """The base URL for Anthropic's dialect."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def cloud_url(self) -> str:
        """The endpoint for Azure's and for Bedrock's paths; Vertex's begin with ``/v1`` here."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def calls(self) -> int:
        """The number of requests received."""
        return len(self.received)

    @property
    def connections(self) -> int:
        """The number of open connections."""
        server = self._runner.server if self._runner is not None else None
        return len(server.connections) if server is not None else 0

    def script(self, *replies: Reply) -> None:
        """Add replies for the next requests."""
        self._replies.extend(replies)

    async def stop_listening(self) -> None:
        """Refuse every new connection."""
        if self._site is not None:
            await self._site.stop()

    async def listen_again(self) -> None:
        """Listen again, on the same port."""
        if self._runner is not None:
            self._site = web.TCPSite(self._runner, "127.0.0.1", self._port)
            await self._site.start()

    def hang_up(self) -> None:
        """Close every connection, idle ones too."""
        server = self._runner.server if self._runner is not None else None
        for connection in server.connections if server is not None else ():
            if connection.transport is not None:
                connection.transport.close()

    async def called(self, count: int = 1) -> None:
        """Wait until ``count`` requests have been received."""
        while self.calls < count:
            await self._change()

    async def abandoned(self, count: int = 1) -> None:
        """Wait until ``count`` connections have ended before their answer's end."""
        while self.left < count:
            await self._change()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _openai(self, request: web.Request) -> web.StreamResponse:
        body = await self._receive(request)
        return await self._reply(request, body, OpenAIReplyEncoder(_model(request, body)))

    async def _anthropic(self, request: web.Request) -> web.StreamResponse:
        body = await self._receive(request)
        return await self._reply(request, body, AnthropicReplyEncoder(_model(request, body)))

    async def _bedrock(self, request: web.Request) -> web.StreamResponse:
        body = await self._receive(request)
        streamed = {"stream": request.match_info["verb"] != "invoke"}
        return await self._reply(request, streamed, BedrockReplyEncoder(_model(request, body)), EVENT_STREAM)

    async def _embeddings(self, request: web.Request) -> web.StreamResponse:
        """Answer with vectors; the reply's steps run only where one of them is a ``Send``."""
        body = await self._receive(request)
        reply = self._replies[0] if self._replies else self.default
        raw = any(isinstance(step, Send) for step in reply.steps)
        return await self._reply(request, {"stream": raw}, EmbeddingsReplyEncoder(body))

    async def _receive(self, request: web.Request) -> dict[str, Any]:
        body = msgspec.json.decode(await request.read(), type=dict[str, Any])
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(request.path, body, headers, dict(request.query)))
        self._changed.set()
        return body

    async def _reply(
        self, request: web.Request, body: dict[str, Any], encoder: ReplyEncoder, content_type: str = STREAM
    ) -> web.StreamResponse:
        received = self.received[-1]
        reply = self._replies.popleft() if self._replies else self.default
        self.busy += 1
        try:
            for step in reply.before:
                await _run(request, step)
            headers = {"request-id": "scripted", **reply.headers}
            if reply.status != web.HTTPOk.status_code:
                return web.Response(
                    status=reply.status, body=reply.body, headers=headers, content_type="application/json"
                )
            response: web.StreamResponse
            if body.get("stream") and not reply.whole:
                kind = reply.content_type or content_type
                response = await _stream(request, reply, {"content-type": kind, **headers}, encoder)
            else:
                response = web.Response(
                    body=encoder.whole(reply.steps), headers=headers, content_type="application/json"
                )
            self.answered.append((received, reply))
        except (asyncio.CancelledError, ConnectionResetError):
            self.left += 1
            self._changed.set()
            raise
        else:
            return response
        finally:
            self.busy -= 1


def _model(request: web.Request, body: dict[str, Any]) -> str:
    return request.match_info.get("model") or str(body.get("model"))


async def _stream(
    request: web.Request, reply: Reply, headers: Mapping[str, str], encoder: ReplyEncoder
) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    for step in reply.steps:
        data = encoder.encode(step)
        if not data:
            await _run(request, step)
        size = reply.split or len(data) or 1
        for start in range(0, len(data), size):
            await response.write(data[start : start + size])
    return response


async def _run(request: web.Request, step: Step) -> None:
    if isinstance(step, Wait):
        await step.event.wait()
    elif isinstance(step, Stall):
        await asyncio.Event().wait()
    elif isinstance(step, Send):
        if request.transport is not None:
            request.transport.write(step.data)
    elif isinstance(step, Cut | Reset):
        if request.transport is not None:
            if isinstance(step, Reset):
                request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            request.transport.abort()
        await asyncio.Event().wait()
