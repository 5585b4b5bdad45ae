import asyncio
import gc
import gzip
import itertools
from contextlib import suppress

import pytest

from actors.testing import End, Reply, Say, ScriptedUpstream, Send, Stall
from actors.wire.client import WireClient
from actors.wire.connection import Connection
from protocol.errors import ProviderError
from protocol.openai.reader import ChatReader
from protocol.upstream import Deltas
from tests.actors.wire.peer import OK, Link, holding, peer, until

BODY = b'{"model": "m", "messages": [], "stream": true}'


async def read(wire: WireClient, upstream: ScriptedUpstream, answer: ChatReader | None = None) -> Deltas:
    """Return all deltas of an answer."""
    url = f"{upstream.openai_url}/chat/completions"
    async with wire.stream(url, BODY, {"x-mine": "1"}, answer or ChatReader(), connect_timeout=5) as stream:
        return [delta async for deltas in stream for delta in deltas]


async def test_an_answer_is_read_to_its_end(upstream: ScriptedUpstream) -> None:
    """The deltas come in order, and the reader has the usage."""
    wire, answer = WireClient(), ChatReader()
    await wire.open()
    deltas = await read(wire, upstream, answer)
    await wire.close()
    assert [getattr(delta, "text", "") for delta in deltas] == ["Hello", " world"]
    assert answer.usage is not None
    assert upstream.received[0].headers["x-mine"] == "1"


async def test_a_body_that_goes_on_after_its_end_is_let_go(upstream: ScriptedUpstream) -> None:
    """The end marker ends the answer; closing drops the connection that waits for the end of the body."""
    wire = WireClient()
    await wire.open()
    upstream.script(Reply(steps=(Say("Hi"), End(), Send(b": more\n"), Stall())))
    assert len(await read(wire, upstream)) == 1
    assert wire.busy == 1
    await wire.close()
    await upstream.abandoned()
    assert wire.busy == 0


async def test_a_client_that_is_not_open_reaches_nobody(upstream: ScriptedUpstream) -> None:
    """Before opening and after closing, a request is ``provider_unavailable``."""
    wire = WireClient()
    for _ in range(2):
        with pytest.raises(ProviderError) as caught:
            await read(wire, upstream)
        assert caught.value.code == "provider_unavailable"
        await wire.open()
        await wire.open()
        await wire.close()
        await wire.close()
    assert upstream.calls == 0


async def test_a_redirect_is_not_followed(upstream: ScriptedUpstream) -> None:
    """A redirect is a failure, so that keys go only to the configured address."""
    wire = WireClient()
    await wire.open()
    upstream.script(Reply(status=307, headers={"location": upstream.anthropic_url}))
    with pytest.raises(ProviderError) as caught:
        await read(wire, upstream)
    await wire.close()
    assert (caught.value.code, upstream.calls) == ("provider_bad_response", 1)


async def test_it_stays_open_until_all_have_closed_it(upstream: ScriptedUpstream) -> None:
    """The client closes its connections only when its last user closes it."""
    wire = WireClient()
    await wire.open("one")
    await wire.open("two")
    await wire.close("one")
    assert len(await read(wire, upstream)) == 2
    await wire.close("two")
    with pytest.raises(ProviderError):
        await read(wire, upstream)


EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
CHUNKED = EVENTS + b"Transfer-Encoding: chunked\r\n\r\n"
CONTENT = b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def text(wire: WireClient, url: str) -> str:
    """Return the text of an answer."""
    async with wire.stream(url, BODY, {}, ChatReader(), connect_timeout=5) as stream:
        return "".join([getattr(delta, "text", "") async for deltas in stream for delta in deltas])


async def test_the_last_bytes_may_come_after_the_end_marker() -> None:
    """The answer ends at the end marker; the connection is reused once the body has ended."""
    read = asyncio.Event()

    async def play(link: Link) -> None:
        for _ in range(2):
            await link.request()
            await link.send(CHUNKED + chunk(CONTENT) + chunk(DONE))
            await read.wait()
            await link.send(b"0\r\n\r\n")
        await link.left()

    async with peer(play) as server:
        wire = WireClient()
        await wire.open()
        assert await text(wire, server.url) == "Hi"
        assert wire.busy == 1
        read.set()
        await until(lambda: wire.busy == 0)
        assert await text(wire, server.url) == "Hi"
        assert len(server.links) == 1
        await wire.close()


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(b"", id="the end of the connection"),
        pytest.param(b"nonsense\r\n", id="nonsense"),
    ],
)
async def test_an_answer_that_is_whole_needs_no_good_end(last: bytes) -> None:
    """A failure after the finish reason closes the connection, and the answer is whole."""

    async def play(link: Link) -> None:
        await link.request()
        await link.send(CHUNKED + chunk(CONTENT) + last)

    async with peer(play) as server:
        wire = WireClient()
        await wire.open()
        assert await text(wire, server.url) == "Hi"
        assert wire.busy == 0
        await wire.close()


async def test_a_compressed_stream_is_read() -> None:
    """A gzip stream is decompressed, although the request asks for ``identity``."""
    packed = gzip.compress(CONTENT + DONE)

    async def play(link: Link) -> None:
        await link.request()
        await link.send(EVENTS + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)
        await link.left()

    async with peer(play) as server:
        wire = WireClient()
        await wire.open()
        assert await text(wire, server.url) == "Hi"
        await wire.close()


HOPELESS = (b"", EVENTS, CHUNKED, CHUNKED + chunk(CONTENT))


@pytest.mark.parametrize("begun", HOPELESS, ids=["no answer", "half a head", "a head", "half an answer"])
async def test_a_cancellation_closes_the_connection(begun: bytes) -> None:
    """A cancellation at any point of the call closes the connection at once."""

    async def play(link: Link) -> None:
        await link.request()
        await link.send(begun)
        sent.set()
        await link.left()

    sent = asyncio.Event()
    async with peer(play) as server:
        wire = WireClient()
        await wire.open()
        asking = asyncio.ensure_future(text(wire, server.url))
        await sent.wait()
        asking.cancel()
        await server.until(lambda: not server.open)
        assert (asking.cancelled(), wire.busy) == (True, 0)
        await wire.close()


async def test_a_caller_that_waits_for_a_connection_can_be_cancelled() -> None:
    """A caller cancelled while it waits for a connection does not block the next one."""
    async with peer(holding) as server:
        wire = WireClient(max_connections=1)
        await wire.open()
        asking = [asyncio.ensure_future(text(wire, server.url)) for _ in range(3)]
        await server.until(lambda: server.open == 1)
        asking[1].cancel()
        await asyncio.sleep(0)
        asking[0].cancel()
        await server.until(lambda: len(server.links) == 2)
        asking[2].cancel()
        await asyncio.wait(asking)
        assert wire.busy == 0
        await wire.close()


async def test_a_request_is_sent_once() -> None:
    """A request on a reused connection that is lost is not sent again: the caller decides."""

    async def play(link: Link) -> None:
        await link.request()
        await link.send(CHUNKED + chunk(CONTENT) + chunk(DONE) + b"0\r\n\r\n")
        await link.request()

    async with peer(play) as server:
        wire = WireClient()
        await wire.open()
        await text(wire, server.url)
        with pytest.raises(ProviderError) as caught:
            await text(wire, server.url)
        assert (caught.value.code, len(server.links), wire.busy) == ("provider_unavailable", 1, 0)
        await wire.close()


async def test_no_header_brings_another() -> None:
    """A header with a line break fails the call before anything is sent."""
    async with peer(holding) as server:
        wire = WireClient()
        await wire.open()
        with pytest.raises(ProviderError) as caught:
            async with wire.stream(server.url, BODY, {"x": "a\r\nb: c"}, ChatReader(), connect_timeout=5):
                pass
        assert (caught.value.code, wire.busy, server.links) == ("provider_unavailable", 0, [])
        await wire.close()


async def test_nothing_is_left_behind() -> None:
    """Connections leave no reference cycle, whatever way they end."""
    ends = itertools.cycle((OK, b"nonsense\r\n\r\n", CHUNKED + chunk(CONTENT) + chunk(DONE) + b"0\r\n\r\n", b""))

    async def play(link: Link) -> None:
        await link.request()
        await link.send(next(ends))

    def alive() -> int:
        return sum(isinstance(thing, Connection) for thing in gc.get_objects())

    async with peer(play) as server:
        wire = WireClient()
        await wire.open()
        before = alive()
        gc.disable()
        try:
            for _ in range(40):
                with suppress(ProviderError):
                    await text(wire, server.url)
            await wire.close()
            await server.until(lambda: not server.open)
            assert alive() == before
        finally:
            gc.enable()
