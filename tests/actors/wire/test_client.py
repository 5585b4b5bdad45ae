import asyncio
import gc
import gzip
import itertools
from collections.abc import Awaitable, Callable
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


LAST = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'
WHOLE = b'{"choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"%b"}]}'
TYPES = (b"application/json", b"text/event-stream", b"text/plain", b"application/octet-stream", b"")


@pytest.mark.parametrize("last", [b"", LAST])
@pytest.mark.parametrize("further", [b"", b": ping\n\n", b'data: {"choices":[{"delta":{"content":""}}]}\n\n'])
async def test_a_whole_answer_waits_for_its_end_only_for_a_moment(
    last: bytes, further: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the upstream sends that is no content; then the connection is closed."""
    monkeypatch.setattr("actors.wire.client.GRACE", 0.05)
    monkeypatch.setattr("actors.wire.client.GRACE_FOR_USAGE", 0.1)

    async def play(link: Link) -> None:
        await link.request()
        await link.send(CHUNKED + chunk(CONTENT) + (chunk(last) if last else b""))
        with suppress(ConnectionError):
            while further:
                await link.send(chunk(further))
                await asyncio.sleep(0)
        await link.left()

    async with peer(play) as server:
        wire = WireClient()
        await wire.open()
        async with asyncio.timeout(20):
            assert await text(wire, server.url) == "Hi"
            await server.until(lambda: not server.open)
        await wire.close()


async def test_a_finish_reason_with_every_chunk_does_not_end_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Content after the finish reason says that the upstream means nothing by it."""
    monkeypatch.setattr("actors.wire.client.GRACE_FOR_USAGE", 0.05)

    async def play(link: Link) -> None:
        await link.request()
        await link.send(CHUNKED + chunk(CONTENT), chunk(CONTENT))
        await asyncio.wait((asyncio.ensure_future(link.left()),), timeout=0.2)
        await link.send(chunk(CONTENT) + chunk(DONE) + b"0\r\n\r\n")

    async with peer(play) as server:
        wire = WireClient()
        await wire.open()
        assert await text(wire, server.url) == "HiHiHi"
        await wire.close()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    "body", [WHOLE % b"stop", WHOLE % b"news", b"\n \n" + WHOLE % b"stop", CONTENT + DONE, CONTENT]
)
async def test_json_and_events_of_any_content_type(body: bytes, kind: bytes) -> None:
    """Both are read, whatever was asked for; and the connection is used again."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(body)
    head += b"Content-Type: %b; charset=utf-8\r\n\r\n" % kind if kind else b"\r\n"

    async def play(link: Link) -> None:
        for _ in range(2):
            await link.request()
            await link.send(head + body)
        await link.left()

    async with peer(play) as server:
        wire = WireClient()
        await wire.open()
        assert [await text(wire, server.url) for _ in range(2)] == ["Hi", "Hi"]
        assert len(server.links) == 1
        await wire.close()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{nonsense", "provider_bad_response"),
        (b'{"choices":[{"message":{"content":"Hi"},"fin', "provider_stream_broken"),
        (b'{"choices":[]}\n{"choices":[{"mess', "provider_stream_broken"),
        (b'data: {"choices":[{"del', "provider_stream_broken"),
        (b"data: {nonsense\n\n", "provider_bad_response"),
        (b"null", "provider_stream_broken"),
        (b"{}", "provider_stream_broken"),
        (b"", "provider_stream_broken"),
        (b'{"error":"boom"}', "provider_error"),
        (b'[{"error":{"code":503}}]', "provider_unavailable"),
        (b'{"choices":[{"message":{"content":"Hi"},"finish_reason":null}]}', "provider_stream_broken"),
        (b"data: [DONE]", "provider_stream_broken"),
        (b"<html></html>", "provider_stream_broken"),
    ],
)
async def test_what_is_no_answer_at_status_200(body: bytes, code: str) -> None:
    """Each is a failure."""

    async def play(link: Link) -> None:
        await link.request()
        await link.send(EVENTS + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await link.left()

    async with peer(play) as server:
        wire = WireClient()
        await wire.open()
        with pytest.raises(ProviderError) as caught:
            await text(wire, server.url)
        assert caught.value.code == code
        await wire.close()


async def test_events_without_content_are_bounded() -> None:
    """Endless empty chunks are no answer."""

    async def play(link: Link) -> None:
        await link.request()
        await link.send(CHUNKED)
        with suppress(ConnectionError):
            while True:
                await link.send(chunk(b'data: {"choices":[]}\n\n' * 2000))

    async with peer(play) as server:
        wire = WireClient()
        await wire.open()
        with pytest.raises(ProviderError) as caught:
            await text(wire, server.url)
        assert caught.value.code == "response_too_large"
        await wire.close()


MORE = b'data: {"choices":[{"delta":{"content":"!"},"finish_reason":null}]}\n\n'
UNKNOWN = CONTENT.replace(b"stop", b"news")


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "to the end of the connection"])
@pytest.mark.parametrize("cut", [b"data: [D", b'data: {"choices":[],"usage":{"pro', b"event: x\ndata: {"])
async def test_a_cut_after_the_finish_reason_loses_nothing(cut: bytes, declared: bool) -> None:
    """The event that is not complete is dropped; before the finish reason it is a broken stream."""
    for begin, code in ((CONTENT, ""), (MORE, "provider_stream_broken"), (UNKNOWN, "provider_stream_broken")):
        body = begin + cut
        head = EVENTS + (b"Content-Length: %d\r\n\r\n" % len(body) if declared else b"\r\n")

        async def play(link: Link, answer: bytes = head + body) -> None:
            await link.request()
            await link.send(answer)

        assert await end_of(play) == (code or "Hi")


async def end_of(play: Callable[[Link], Awaitable[None]]) -> str:
    """The text of an answer, or the code of its failure."""
    async with peer(play) as server, asyncio.timeout(20):
        wire = WireClient()
        await wire.open()
        try:
            return await text(wire, server.url)
        except ProviderError as error:
            return error.code
        finally:
            await wire.close()


@pytest.mark.parametrize("junk", [b"oops", b"{", b'{"choices":{}}', b"[1", b'{"choices":"x"}', b"\xff"])
async def test_what_cannot_be_read_after_the_finish_reason_is_passed_over(junk: bytes) -> None:
    """The usage behind it is read; an error behind it is a failure; before the finish reason it is one, too."""
    event = b"data: " + junk + b"\n\n"
    error = b'data: {"error":{"message":"boom"}}\n\n'
    for body, found in (
        (CONTENT + event + LAST + DONE, "Hi"),
        (CONTENT + event, "Hi"),
        (MORE + event + CONTENT, "provider_bad_response"),
        (CONTENT + event + error, "provider_error"),
        (UNKNOWN + event + DONE, "provider_bad_response"),
        (CONTENT + event + MORE, "provider_bad_response"),
        (CONTENT + MORE + event + DONE, "provider_bad_response"),
    ):

        async def play(link: Link, body: bytes = body) -> None:
            await link.request()
            await link.send(EVENTS + b"Content-Length: %d\r\n\r\n" % len(body) + body)

        assert await end_of(play) == found


@pytest.mark.parametrize("mark", [b"[done]", b'"[DONE]"', b"DONE", b"[DONE] ", b"'[Done]'"])
@pytest.mark.parametrize("reason", [b"stop", b"news"])
async def test_an_end_mark_in_any_spelling(mark: bytes, reason: bytes) -> None:
    """It ends the answer, though the connection stays open."""

    async def play(link: Link) -> None:
        await link.request()
        await link.send(CHUNKED + chunk(CONTENT.replace(b"stop", reason)) + chunk(b"data: " + mark + b"\n\n"))
        await link.left()

    assert await end_of(play) == "Hi"


@pytest.mark.parametrize("reason", [b"stop", b"news"])
@pytest.mark.parametrize("usage", [b"", b',"usage":{"prompt_tokens":1,"completion_tokens":1}'])
@pytest.mark.parametrize("end", [b"", b"\n", b" "])
async def test_whole_json_needs_no_end_of_its_body(
    reason: bytes, usage: bytes, end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer that is complete is read, and a short grace is its end where finish reason and usage have come."""
    monkeypatch.setattr("actors.wire.client.GRACE", 0.05)
    monkeypatch.setattr("actors.wire.client.GRACE_FOR_USAGE", 0.05)
    body = (WHOLE % reason)[:-1] + usage + b"}" + end

    async def play(link: Link) -> None:
        await link.request()
        await link.send(CHUNKED + chunk(body[:30]), chunk(body[30:]))
        await link.left()

    known = reason == b"stop" or usage
    assert await end_of(play) == ("Hi" if known else "provider_stream_broken")


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (b"text/event-stream, text/event-stream", "Hi"),
        (b"text/html, text/event-stream; charset=utf-8", "Hi"),
        (b"application/json; charset=utf-8, application/json", "Hi"),
        (b"*/*", "Hi"),
        (b"event-stream", "Hi"),
        (b"text/plain, text/html", "provider_bad_response"),
        (b"text/html; charset=utf-8", "provider_bad_response"),
    ],
)
async def test_content_types_as_browsers_read_them(kind: bytes, found: str) -> None:
    """Of several ones the last counts; what is no type is none."""
    body = CONTENT + DONE

    async def play(link: Link) -> None:
        await link.request()
        await link.send(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (kind, len(body)) + body)

    assert await end_of(play) == found


@pytest.mark.parametrize("size", [1_500_000, 17 * 1024 * 1024])
async def test_an_answer_in_one_event_has_the_bound_of_a_whole_one(size: int) -> None:
    """However it is cut into events."""
    long = b"x" * size
    streamed = CONTENT.replace(b"Hi", long)
    for body in (streamed, (WHOLE % b"stop").replace(b"Hi", long)):

        async def play(link: Link, body: bytes = body) -> None:
            await link.request()
            with suppress(ConnectionError):
                await link.send(EVENTS + b"Content-Length: %d\r\n\r\n" % len(body) + body)

        assert await end_of(play) == (long.decode() if size < 2_000_000 else "response_too_large")


@pytest.mark.parametrize("end", [DONE, DONE.strip(), b""])
async def test_a_call_without_a_name_is_no_answer(end: bytes) -> None:
    """Although it shows only when the answer has ended."""
    call = b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"arguments":"[1]"}}]}}]}\n\n'
    body = MORE + call + CONTENT + end

    async def play(link: Link) -> None:
        await link.request()
        await link.send(EVENTS + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    assert await end_of(play) == "provider_bad_response"
