"""Connections with late headers."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.server import connections
from tests.service.bench import Service, open_service

ASK = b"GET /api/health/live HTTP/1.1\r\nHost: localhost\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
)
ENDLESS = b"POST /api/requests/req_1/cancel HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{"


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with a gateway that the test scripts."""
    async with open_service() as running:
        yield running


async def dial(service: Service) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection without sending anything."""
    return await asyncio.open_connection("127.0.0.1", service.port)


async def answer(reader: asyncio.StreamReader) -> str:
    """Read one response, and return its status line."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    size = head.partition("content-length: ")[2].partition("\r\n")[0]
    await reader.readexactly(int(size))
    return head.partition("\r\n")[0]


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Return the bytes until the connection is closed or reset."""
    async with asyncio.timeout(10):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize("begun", [b"", b"GET", ASK, UPGRADE, b"POST /api/requests HTTP/1.1\r\nContent-Le"])
async def test_headers_that_never_end(service: Service, monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    """With late headers, at any point and for any route, the connection is closed."""
    monkeypatch.setattr(connections, "HEADERS_TIMEOUT", 0.01)
    reader, writer = await dial(service)
    writer.write(begun)
    assert await rest(reader) == b""
    writer.close()


async def test_a_second_request_has_to_end_its_headers_too(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Late headers of a second request close the connection, too."""
    reader, writer = await dial(service)
    writer.write(ASK + b"\r\n")
    assert await answer(reader) == "http/1.1 200 ok"
    monkeypatch.setattr(connections, "HEADERS_TIMEOUT", 0.01)
    writer.write(ASK)
    assert await rest(reader) == b""
    writer.close()


async def test_headers_may_come_in_pieces(service: Service) -> None:
    """A connection may be idle between two requests."""
    reader, writer = await dial(service)
    for _ in range(2):
        for place in range(len(ASK)):
            writer.write(ASK[place : place + 1])
            await writer.drain()
        writer.write(b"\r\n")
        assert await answer(reader) == "http/1.1 200 ok"
    writer.close()


async def test_an_answer_may_take_longer_than_headers(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout is for headers only: streams and sockets stay open."""
    monkeypatch.setattr(connections, "HEADERS_TIMEOUT", 0.2)
    request_id = await service.submit()
    call = await service.call()
    wire = await service.connect("GET", f"/api/requests/{request_id}/events")
    await wire.headers()
    await wire.chunk()
    late, other = await dial(service)
    assert await late.read() == b""
    await call.say("still there")
    assert b"still there" in await wire.chunk()
    await call.end()
    other.close()
    await wire.leave()


async def test_a_body_that_nobody_wants_and_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request with an unread body gets its response at once, and the connection is closed soon after."""
    monkeypatch.setattr(connections, "LINGER", 0.01)
    async with open_service() as service:
        reader, writer = await dial(service)
        writer.write(ENDLESS)
        assert await answer(reader) == "http/1.1 404 not found"
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()


async def test_a_body_that_stops_the_reading_is_read_to_its_end(service: Service) -> None:
    """Reading pauses above the buffer's limit, and resumes below it."""
    body = b'{"messages":[{"role":"user","content":"%b"}]}' % (b"x" * 900_000)
    reader, writer = await dial(service)
    head = b"POST /api/requests HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: %d\r\n\r\n"
    for _ in range(2):
        writer.write(head % len(body) + body)
        async with asyncio.timeout(10):
            assert await answer(reader) == "http/1.1 202 accepted"
    writer.close()
