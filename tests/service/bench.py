"""The service on a real port, with a gateway that the test scripts."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import msgspec
from aiohttp import ClientResponse, ClientSession, TCPConnector, web

from actors.llm_gateway.answer import Assembly
from actors.requests.record import RequestRecord
from actors.runtime import Actor, Deferred, handles
from protocol.errors import NotFound
from protocol.events import AttemptFailed, Content, Delta, ToolCallDelta
from protocol.gateway import (
    Complete,
    Completion,
    GetProviders,
    ListModels,
    ModelInfo,
    Progress,
    ProviderStatus,
    ResolveModel,
)
from protocol.llm import Attempt, ToolCall, Usage
from protocol.requests import GetRequest
from protocol.upstream import Deltas
from service.config.settings import load_settings
from service.container import Container, open_container
from service.server.server import listening
from service.telemetry.setup import Telemetry

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
MODELS = (ModelInfo("default", "p"), ModelInfo("m", "p"))

MAX_CHARS = 1_000_000_000

T = TypeVar("T")


class Call:
    """One call of the gateway, answered by the test."""

    def __init__(self, complete: Complete) -> None:
        self.complete = complete
        self.cancelled = asyncio.Event()
        self._outcome: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._texts: list[str] = []
        self._assembly = Assembly(MAX_CHARS)

    async def tell(self, *events: Content) -> None:
        """Send content to the run, all of it in one read; its parts are numbered as those of a provider's content."""
        assert self.complete.sink is not None
        numbered: list[Content] = []
        for event in events:
            if isinstance(event, AttemptFailed):
                self._assembly = Assembly(MAX_CHARS) if event.restart else self._assembly
                numbered.append(event)
            else:
                pieces: Deltas = [event]
                self._assembly.add(pieces)
                numbered += pieces
        progress = Progress(events=tuple(numbered), waited=0.0 if self._texts else 1e-6)
        await self.complete.sink.tell(progress)

    async def say(self, *texts: str) -> None:
        """Send a text to the run, each piece in its own read."""
        for text in texts:
            await self.tell(Delta(text=text))
            self._texts.append(text)

    async def end(self, *, tool_calls: tuple[ToolCall, ...] = (), result: object = None) -> None:
        """End the call with all the content that was sent, and with ``tool_calls``, each sent in one piece."""
        for index, call in enumerate(tool_calls):
            await self.tell(ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments))
        usage = Usage(input_tokens=3, output_tokens=len(self._texts))
        await self._attempt(usage=usage)
        raw = None if result is None else msgspec.Raw(json.dumps(result, indent=1).encode())
        completion = Completion(
            parts=self._assembly.parts,
            result=raw,
            finish_reason="tool_calls" if self._assembly.tool_calls else "stop",
            usage=usage,
            provider="p",
            model="m-1",
        )
        if not self._outcome.done():
            self._outcome.set_result(completion)

    async def fail(self, error: Exception) -> None:
        """Fail the call."""
        await self._attempt(getattr(error, "code", "provider_error"))
        self._outcome.set_exception(error)

    async def outcome(self) -> Completion:
        """Wait until the test ends the call."""
        try:
            return await self._outcome
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _attempt(self, error: str = "", usage: Usage | None = None) -> None:
        assert self.complete.sink is not None
        attempt = Attempt(provider="p", model="m-1", error=error, duration_ms=0.001, usage=usage)
        await self.complete.sink.tell(Progress(attempt=attempt))


class HandGateway(Actor[Complete | ListModels | ResolveModel | GetProviders]):
    """A gateway whose calls the test answers; it has every model but ``unknown``."""

    def __init__(self, calls: "asyncio.Queue[Call]") -> None:
        self._calls = calls

    @handles(Complete)
    async def complete(self, message: Complete) -> Deferred[Completion]:
        call = Call(message)
        self._calls.put_nowait(call)
        return self.defer(call.outcome())

    @handles(ListModels)
    async def models(self, _message: ListModels) -> tuple[ModelInfo, ...]:
        return MODELS

    @handles(ResolveModel)
    async def resolve(self, message: ResolveModel) -> ModelInfo:
        if message.model == "unknown":
            raise NotFound("no model is called 'unknown'", code="model_not_found")
        return ModelInfo(message.model, "p")

    @handles(GetProviders)
    async def providers(self, _message: GetProviders) -> tuple[ProviderStatus, ...]:
        return (ProviderStatus(name="p", state="ready"),)


class Wire:
    """A client's raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def headers(self) -> str:
        """Return the status line and the headers."""
        return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def chunk(self) -> bytes:
        """Return what the server sent in one write."""
        size = int(await self.reader.readline(), 16)
        data = await self.reader.readexactly(size)
        assert await self.reader.readline() == b"\r\n"
        return data

    async def leave(self) -> None:
        """Abort the connection."""
        self.writer.transport.abort()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


class Service:
    """A running service and a client of it.

    Attributes:
        base: its address.
        client: a client with as many connections as it likes.
        container: to look behind the surface.
        calls: what has reached the gateway, in order.
        app: what is served.
    """

    def __init__(
        self,
        base: str,
        client: ClientSession,
        container: Container,
        calls: "asyncio.Queue[Call]",
        app: web.Application,
    ) -> None:
        self.base = base
        self.client = client
        self.container = container
        self.calls = calls
        self.app = app

    async def call(self) -> Call:
        """Return the next call that reaches the gateway."""
        return await self.calls.get()

    async def post(self, path: str, body: object, **headers: str) -> ClientResponse:
        """Post JSON and return the response with its body read."""
        async with self.client.post(self.base + path, json=body, headers=dashed(headers)) as response:
            await response.read()
            return response

    async def get(self, path: str, **headers: str) -> ClientResponse:
        """Get a path and return the response with its body read."""
        async with self.client.get(self.base + path, headers=dashed(headers)) as response:
            await response.read()
            return response

    async def submit(self, **changes: object) -> str:
        """Submit a request and return its id."""
        response = await self.post("/api/requests", BODY | changes)
        assert response.status == 202
        request_id = (await response.json())["requestId"]
        assert isinstance(request_id, str)
        return request_id

    async def answered(self, *texts: str, **changes: object) -> str:
        """Submit a request, answer it, and return its id."""
        request_id = await self.submit(**changes)
        call = await self.call()
        await call.say(*texts)
        await call.end()
        await read_events(await self.follow(request_id))
        return request_id

    async def follow(self, request_id: str, query: str = "", **headers: str) -> ClientResponse:
        """Open the stream of a request."""
        return await self.client.get(f"{self.base}/api/requests/{request_id}/events{query}", headers=dashed(headers))

    async def followers(self, request_id: str) -> int:
        """Return the number of a request's followers."""
        handle = await self.container.router.ask(GetRequest(request_id), timeout=5)
        assert isinstance(handle, RequestRecord)
        return handle.stream.followers

    async def until_followers(self, request_id: str, count: int) -> None:
        """Wait until a request has ``count`` followers."""
        async with asyncio.timeout(5):
            while await self.followers(request_id) != count:
                pass

    @property
    def port(self) -> int:
        """The service's port."""
        return int(self.base.rpartition(":")[2])

    async def connect(self, method: str, path: str, body: object = None, *, window: int = 0) -> "Wire":
        """Send a request over a new raw connection."""
        end = socket.socket()
        end.setblocking(False)
        if window:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        await asyncio.get_running_loop().sock_connect(end, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=end)
        data = b"" if body is None else json.dumps(body).encode()
        kind = b"Content-Type: application/json\r\n" if data else b""
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n".encode()
        writer.write(head + kind + b"\r\n" + data)
        return Wire(reader, writer)

    async def state(self, request_id: str) -> Any:  # noqa: ANN401 - JSON
        """Return a request's state."""
        return await (await self.get(f"/api/requests/{request_id}")).json()


def dashed(headers: dict[str, str]) -> dict[str, str]:
    """Header names from keywords."""
    return {name.replace("_", "-"): value for name, value in headers.items()}


class Event(msgspec.Struct):
    """A server-sent event as a client sees it."""

    id: str
    event: str
    data: Any


def parse_events(text: str) -> list[Event]:
    """Read a native stream as a browser would, comments left out."""
    events = []
    lines = [line for line in text.split("\n") if not line.startswith(":")]
    for block in "\n".join(lines).split("\n\n"):
        if block:
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            assert list(fields) == ["id", "event", "data"]
            events.append(Event(fields["id"], fields["event"], json.loads(fields["data"])))
    return events


async def read_events(response: ClientResponse) -> list[Event]:
    """Read a native stream to its end."""
    async with response:
        assert response.status == 200
        return parse_events((await response.read()).decode())


def text_of(events: list[Event]) -> str:
    """Assemble the answer as a client would."""
    text = ""
    for event in events:
        data = event.data.get("data", {})
        text = data["text"] if event.data.get("snapshot") else text + data.get("delta", "")
    return text


@asynccontextmanager
async def open_service(
    *,
    telemetry: Telemetry | None = None,
    **settings: Any,  # noqa: ANN401 - field by field
) -> AsyncIterator[Service]:
    """Serve on a free loopback port: the real application with a scripted gateway."""
    calls: asyncio.Queue[Call] = asyncio.Queue(1000)
    options = load_settings(None, port=0, **settings)
    gateway: Any = partial(HandGateway, calls)
    async with (
        open_container(options, telemetry=telemetry or Telemetry(), gateway=gateway) as container,
        listening(container) as (runner, address),
        ClientSession(connector=TCPConnector(limit=0)) as client,
    ):
        container.lifecycle.serve()
        yield Service(address, client, container, calls, runner.app)


async def answered(service: Service, asked: Awaitable[T], *texts: str, **end: Any) -> tuple[T, Call]:  # noqa: ANN401
    """Answer a client's request; returns the response and the call."""
    waiting = asyncio.ensure_future(asked)
    call = await service.call()
    await call.say(*texts)
    await call.end(**end)
    return await waiting, call
