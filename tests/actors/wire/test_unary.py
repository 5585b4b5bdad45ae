import asyncio

import pytest

from actors.wire.unary import JsonWire
from protocol.errors import ProviderError
from tests.actors.wire.peer import OK, Link, answering, holding, peer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 3\r\n\r\n"


async def test_an_answer_comes_whole() -> None:
    """An answer is returned whole however the network cuts it, and the connection is reused."""

    async def play(link: Link) -> None:
        for _ in range(2):
            request = await link.request()
            assert (request.line, request.headers["x-mine"], request.body) == ("POST /v1/x HTTP/1.1", "1", b"[]")
            await link.send(HEAD, b"1", b"2", b"3")
        await link.left()

    async with peer(play) as server:
        wire = JsonWire(connect_timeout=5)
        await wire.open()
        await wire.open()
        assert [await wire.post(server.url, b"[]", {"X-Mine": "1"}) for _ in range(2)] == [b"123"] * 2
        assert len(server.links) == 1
        await wire.close()
        await wire.close()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (OK.replace(b"application/json", b"text/html"), "provider_bad_response"),
        (OK.replace(b"Length: 2", b"Length: 4") + b"{}", "response_too_large"),
        (OK.replace(b"Length: 2", b"Length: 3"), "provider_stream_broken"),
    ],
)
async def test_a_bad_answer_closes_the_connection(answer: bytes, code: str) -> None:
    """An answer that can't be used closes the connection."""

    async def play(link: Link) -> None:
        await link.request()
        await link.send(answer)
        if code != "provider_stream_broken":
            await link.left()

    async with peer(play) as server:
        wire = JsonWire(connect_timeout=5, max_bytes=3)
        await wire.open()
        with pytest.raises(ProviderError) as caught:
            await wire.post(server.url, b"[]", {})
        assert caught.value.code == code
        await server.until(lambda: not server.open)
        await wire.close()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (b"429 Later", "provider_rate_limited"),
        (b"503 No", "provider_unavailable"),
        (b"307 No", "provider_bad_response"),
    ],
)
async def test_a_refusal_keeps_the_connection(status: bytes, code: str) -> None:
    """The body of a refusal is dropped, and the next call uses the same connection."""

    async def play(link: Link) -> None:
        await link.request()
        await link.send(OK.replace(b"200 OK", status))
        await link.request()
        await link.send(OK)
        await link.left()

    async with peer(play) as server:
        wire = JsonWire(connect_timeout=5)
        await wire.open()
        with pytest.raises(ProviderError) as caught:
            await wire.post(server.url, b"[]", {})
        assert caught.value.code == code
        assert await wire.post(server.url, b"[]", {}) == b"{}"
        assert len(server.links) == 1
        await wire.close()


async def test_a_cancellation_closes_the_connection() -> None:
    """A cancellation closes the connection at once."""
    async with peer(holding) as server:
        wire = JsonWire(connect_timeout=5)
        await wire.open()
        asking = asyncio.ensure_future(wire.post(server.url, b"[]", {}))
        await server.until(lambda: server.open > 0)
        asking.cancel()
        await server.until(lambda: not server.open)
        assert asking.cancelled()
        await wire.close()


async def test_a_closed_client_sends_nothing() -> None:
    """A closed client and an invalid URL are ``provider_unavailable``."""
    async with peer(answering) as server:
        wire = JsonWire(connect_timeout=5)
        for url in (server.url, "nowhere", server.url.replace("://", "://user@")):
            with pytest.raises(ProviderError) as caught:
                await wire.post(url, b"[]", {})
            assert caught.value.code == "provider_unavailable"
            await wire.open()
        with pytest.raises(ProviderError):
            await wire.post(server.url, b"[]", {"x": "a\r\nb: c"})
        await wire.close()
        assert not server.links
