"""JSON responses in one write."""

import asyncio
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from service.auth.authenticator import Authenticator
from service.auth.keys import KeyRing
from service.http.json_response import JsonResponse
from service.lifecycle import Lifecycle
from service.middleware.calls import call_layer, stamp_responses

Client = TestClient[web.Request, web.Application]


async def _answer(request: web.Request) -> JsonResponse:
    return JsonResponse(b'{"a":1}', status=201, headers={"x-said": request.query.get("said", "")})


@pytest.fixture
def lifecycle() -> Lifecycle:
    """A running service."""
    return Lifecycle()


@pytest.fixture
async def client(lifecycle: Lifecycle) -> AsyncIterator[Client]:
    """A client of an application with one JSON response."""
    app = web.Application(middlewares=[call_layer(Authenticator(KeyRing()), lifecycle, None)])
    app.on_response_prepare.append(stamp_responses(lifecycle))
    app.router.add_get("/answer", _answer)
    async with TestClient(TestServer(app)) as client:
        yield client


async def _raw(client: Client, request: bytes) -> tuple[str, bytes]:
    """Return the head, and the bytes until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(request)
    async with asyncio.timeout(10):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return head.decode(), body


async def test_an_answer_is_whole(client: Client) -> None:
    """A response has its status, headers, length, date, and the headers of every response."""
    response = await client.get("/answer?said=yes", headers={"x-request-id": "mine", "x-trace-id": "ab" * 16})
    assert (response.status, response.reason, await response.read()) == (201, "Created", b'{"a":1}')
    headers = response.headers
    assert headers["Content-Type"] == "application/json"
    assert headers["Content-Length"] == "7"
    assert (headers["x-said"], headers["x-request-id"], headers["x-trace-id"]) == ("yes", "mine", "ab" * 16)
    assert headers["Server"] == "tidegate"
    assert parsedate_to_datetime(headers["Date"]).tzinfo is not None
    assert "Connection" not in headers


async def test_a_head_has_no_body(client: Client) -> None:
    """A HEAD request gets the body's length without the body."""
    head, body = await _raw(client, b"HEAD /answer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert "\r\nContent-Length: 7\r\n" in head
    assert body == b""


@pytest.mark.parametrize(
    ("version", "wanted", "said"),
    [("1.1", "close", "close"), ("1.0", "close", ""), ("1.0", "keep-alive", "keep-alive")],
)
async def test_it_says_what_becomes_of_the_connection(client: Client, version: str, wanted: str, said: str) -> None:
    """`Connection` is sent only where it is not the HTTP version's default."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(f"GET /answer HTTP/{version}\r\nHost: localhost\r\nConnection: {wanted}\r\n\r\n".encode())
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert await reader.readexactly(7) == b'{"a":1}'
        assert (wanted == "keep-alive") or await reader.read() == b""
    writer.close()
    assert head.startswith(f"HTTP/{version} 201 Created\r\n")
    assert head.partition("Connection: ")[2].partition("\r\n")[0] == said


async def test_the_connection_ends_with_the_service(client: Client, lifecycle: Lifecycle) -> None:
    """A stopping service responds, and closes the connection."""
    lifecycle.stop()
    response = await client.get("/answer")
    assert (response.status, response.headers["Connection"]) == (201, "close")


async def test_no_header_can_bring_another(client: Client) -> None:
    """A header with a newline is refused."""
    response = await client.get("/answer", params={"said": "yes\r\nx-more: 1"})
    assert response.status == 500
    assert "x-more" not in response.headers
