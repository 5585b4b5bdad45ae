"""Clients that take nothing of what is sent: their connections end, also where all of it is in the kernel's buffer."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from protocol.hub import GetHubStats
from service import stall
from service.capacity import CAPACITY
from service.server.outgoing import SEND_BUFFER, KernelOutgoing, bound_buffers
from service.websocket.upgrade import SOCKETS
from tests.service.bench import CHAT, Service, Wire, open_service
from tests.service.test_hostile import Peer

WINDOW = 4096  # bytes that the client's system takes
SIZE = 100_000  # bytes that the kernel's buffer holds: nothing is left in the process
TEXT = "x" * SIZE


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """A service that gives clients little time."""
    monkeypatch.setattr(stall, "STALL_LIMIT", 0.05)
    monkeypatch.setattr(stall, "ROUND", 0.01)
    async with open_service() as running:
        yield running


async def until_ended(service: Service, connections: int = 0) -> None:
    """Wait until so many connections are left."""
    async with asyncio.timeout(20):
        while service.app[CAPACITY].held != connections:
            await service.container.hub.ask(GetHubStats(), timeout=5)


async def sleeper(service: Service, path: str, body: object = None) -> Wire:
    """Send a request over a connection of which nothing is read."""
    wire = await service.connect("GET" if body is None else "POST", path, body, window=WINDOW)
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    return wire


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", {**CHAT, "stream": True}),
        ("/v1/messages", {**CHAT, "max_tokens": 9, "stream": True}),
        ("/v1/responses", {"model": "m", "input": "hi", "stream": True}),
    ],
)
async def test_an_answer_that_nobody_takes_ends(service: Service, path: str, body: object) -> None:
    """A finished whole answer and each stream, although the kernel holds all of it; the log has one line."""
    with capture_logs() as lines:
        wire = await sleeper(service, path, body)
        call = await service.call()
        await call.say(TEXT)
        await call.end()
        await until_ended(service)
    (line,) = [line for line in lines if line["event"] == "client_stalled"]
    assert 0 < line["waiting"] <= 2 * SEND_BUFFER + SIZE
    await wire.leave()


async def test_a_stream_that_goes_on_ends_for_a_client_that_takes_nothing(service: Service) -> None:
    """The call has the code in its line, and the request goes on."""
    request_id = await service.submit()
    call = await service.call()
    with capture_logs() as lines:
        wire = await sleeper(service, f"/api/requests/{request_id}/events")
        await service.until_followers(request_id, 1)
        await call.say(TEXT)
        await service.until_followers(request_id, 0)
    (line,) = [line for line in lines if line["event"] == "http" and line["path"].endswith("/events")]
    assert (line["status"], line["code"]) == (499, "slow_consumer")
    assert not call.cancelled.is_set()
    await call.end()
    await wire.leave()


async def test_a_socket_that_takes_nothing_ends(service: Service) -> None:
    """With 4008, which the client gets where it reads on after that."""
    request_id = await service.submit()
    call = await service.call()
    peer = await (await Peer(service).connect()).follow(request_id)
    await service.until_followers(request_id, 1)
    (ended,) = service.app[SOCKETS]._open
    await call.say(TEXT)
    async with asyncio.timeout(20):
        while not ended.closing:
            await service.container.hub.ask(GetHubStats(), timeout=5)
    await peer.read()
    assert peer.code == 4008
    await call.end()
    peer.leave()
    await until_ended(service, 1)


async def test_a_client_that_has_taken_all_may_be_idle(service: Service) -> None:
    """The limit is for what waits to be taken, and not for silence."""
    request_id = await service.submit()
    call = await service.call()
    wire = await service.connect("GET", f"/api/requests/{request_id}/events")
    await wire.headers()
    await service.until_followers(request_id, 1)
    other = await sleeper(service, "/v1/chat/completions", CHAT)
    second = await service.call()
    await second.say(TEXT)
    await second.end()
    await until_ended(service, 2)  # that of the idle reader, and that of the test's own client
    assert await service.followers(request_id) == 1
    await call.end()
    await wire.leave()
    await other.leave()


async def test_the_kernel_says_what_was_taken() -> None:
    """Nothing while the client's system has no room, and each byte once the client reads; what waits is bounded."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        bound_buffers(listener)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SEND_BUFFER
        outgoing = KernelOutgoing(accepted)
        outgoing.transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, accepted)
        assert (outgoing.waiting, outgoing.taken) == (0, 0)
        outgoing.transport.write(b"x" * 10 * SEND_BUFFER)
        buffered = outgoing.transport.get_write_buffer_size()
        assert buffered > 0
        assert outgoing.waiting - buffered <= 2 * SEND_BUFFER
        before = outgoing.taken
        assert before is not None
        client.setblocking(False)
        left = 10 * SEND_BUFFER
        async with asyncio.timeout(20):
            while left:
                left -= len(await loop.sock_recv(client, 1 << 16))
            while outgoing.waiting:
                await loop.run_in_executor(None, int)
        assert outgoing.taken == 10 * SEND_BUFFER > before
        outgoing.transport.abort()
        while accepted.fileno() >= 0:
            await loop.run_in_executor(None, int)
        assert [outgoing.waiting, outgoing.taken] == [0, None]
