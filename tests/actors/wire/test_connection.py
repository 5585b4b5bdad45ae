import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.wire.connection import MAX_FIELDS, MAX_HEAD_BYTES, READ_AHEAD, Connection
from actors.wire.url import Origin
from protocol.errors import ProviderError
from tests.actors.wire.peer import OK, Link, connected, peer, until

HEAD = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = EVENTS + b"Transfer-Encoding: chunked\r\n\r\n"


async def ask(connection: Connection) -> tuple[int, bytes]:
    """Send a request, and return the status and the whole body of its answer."""
    connection.send(HEAD, b"{}")
    await connection.wait_for_head()
    chunks = []
    while chunk := await connection.read():
        chunks.append(chunk)
    return connection.status, b"".join(chunks)


async def code(connection: Connection) -> str:
    """Return the code that a request fails with."""
    with pytest.raises(ProviderError) as caught:
        await ask(connection)
    return caught.value.code


def replying(*pieces: bytes, then: str = "left") -> Callable[[Link], Awaitable[None]]:
    """Return a server that answers the first request with ``pieces``, then waits, closes or resets the connection."""

    async def play(link: Link) -> None:
        await link.request()
        await link.send(*pieces)
        if then == "left":
            await link.left()
        elif then == "reset":
            link.reset()

    return play


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (OK, 200, b"{}"),
        (CHUNKED + b"2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n", 200, b"abc"),
        (CHUNKED + b"2\r\nab\r\n0\r\nTrailer: x\r\n\r\n", 200, b"ab"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b""),
        (b"HTTP/1.1 429 \r\nContent-Length: 0\r\n\r\n", 429, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, 200, b"{}"),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}"),
    ],
)
async def test_an_answer_is_read_to_its_end(answer: bytes, status: int, body: bytes) -> None:
    """An answer is read to its end for each way of framing, and the connection serves another request."""

    async def play(link: Link) -> None:
        for _ in range(2):
            await link.request()
            await link.send(answer)
        await link.left()

    async with peer(play) as server, connected(server.origin) as connection:
        for _ in range(2):
            assert await ask(connection) == (status, body)
            assert connection.reusable
        assert len(server.links) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        OK + b"garbage",
        OK + OK,
    ],
)
async def test_an_answer_after_which_nothing_may_be_asked(answer: bytes) -> None:
    """A connection is not reused after ``connection: close``, or after bytes beyond the answer."""
    async with peer(replying(answer)) as server, connected(server.origin) as connection:
        assert await ask(connection) == (200, b"{}")
        assert not connection.reusable


async def test_the_end_of_the_connection_ends_a_body_of_no_declared_length() -> None:
    """A body of no declared length ends with the connection."""
    async with (
        peer(replying(EVENTS + b"\r\n", b"a", b"b", then="end")) as server,
        connected(server.origin) as connection,
    ):
        assert await ask(connection) == (200, b"ab")
        assert not connection.reusable


@pytest.mark.parametrize(
    ("pieces", "then", "expected"),
    [
        ((), "end", "provider_unavailable"),
        ((), "reset", "provider_unavailable"),
        ((b"HTTP/1.1 200 OK\r\nConte",), "end", "provider_unavailable"),
        ((b"nonsense\r\n\r\n",), "left", "provider_bad_response"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",), "left", "provider_bad_response"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",), "left", "provider_bad_response"),
        ((b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",), "left", "provider_bad_response"),
        ((b"HTTP/1.1 200 OK\r\nA: " + b"x" * MAX_HEAD_BYTES,), "left", "provider_bad_response"),
        ((b"HTTP/1.1 200 OK\r\nA: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n",), "left", "provider_bad_response"),
        ((b"HTTP/1.1 100 Continue\r\n\r\n" * 4000,), "left", "provider_bad_response"),
        (
            (b"HTTP/1.1 200 OK\r\n" + b"".join(b"A%d: x\r\n" % n for n in range(MAX_FIELDS + 1)) + b"\r\n",),
            "left",
            "provider_bad_response",
        ),
        ((CHUNKED + b"2\r\nab\r\n0\r\n", b"A: x\r\n" * MAX_HEAD_BYTES), "left", "provider_stream_broken"),
        ((CHUNKED,), "end", "provider_stream_broken"),
        ((CHUNKED, b"5\r\nab"), "end", "provider_stream_broken"),
        ((CHUNKED, b"5\r\nab"), "reset", "provider_stream_broken"),
        ((CHUNKED, b"nonsense\r\n"), "left", "provider_stream_broken"),
        ((EVENTS + b"Content-Length: 3\r\n\r\nab",), "end", "provider_stream_broken"),
        ((EVENTS + b"\r\n", b"ab"), "reset", "provider_stream_broken"),
    ],
)
async def test_each_way_to_fail_has_its_code(pieces: tuple[bytes, ...], then: str, expected: str) -> None:
    """Each failure before and after the head has its code, and closes the connection."""
    async with peer(replying(*pieces, then=then)) as server, connected(server.origin) as connection:
        assert await code(connection) == expected
        assert not connection.reusable


async def test_what_came_before_a_break_is_given_first() -> None:
    """Bytes of the body before a failure are returned before it is raised."""
    async with peer(replying(CHUNKED + b"2\r\nab\r\nnonsense")) as server, connected(server.origin) as connection:
        connection.send(HEAD, b"{}")
        await connection.wait_for_head()
        assert await connection.read() == b"ab"
        with pytest.raises(ProviderError):
            await connection.read()


async def test_of_a_header_that_comes_twice_the_first_counts() -> None:
    """Header names are lower-case, and the first value of a repeated header counts."""
    answer = b"HTTP/1.1 200 OK\r\nRetry-After: 1\r\nX-Name: \xe9 \r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n"
    async with peer(replying(answer)) as server, connected(server.origin) as connection:
        await ask(connection)
        assert connection.headers == {"retry-after": "1", "x-name": "é", "content-length": "0"}


async def test_bytes_that_nobody_has_asked_for_close_it() -> None:
    """Bytes without a request close the connection."""

    async def play(link: Link) -> None:
        await link.request()
        await link.send(OK)
        await more.wait()
        await link.send(OK)
        await link.left()

    more = asyncio.Event()
    async with peer(play) as server, connected(server.origin) as connection:
        await ask(connection)
        assert connection.reusable
        more.set()
        await server.until(lambda: not server.open)
        assert not connection.reusable


@pytest.mark.parametrize("then", ["end", "reset"])
async def test_an_end_while_it_waits_is_seen(then: str) -> None:
    """An idle connection notices that the server closed or reset it."""

    async def play(link: Link) -> None:
        await link.request()
        await link.send(OK)
        await over.wait()
        if then == "reset":
            link.reset()

    over = asyncio.Event()
    async with peer(play) as server, connected(server.origin) as connection:
        await ask(connection)
        over.set()
        await until(lambda: not connection.open)


async def test_a_slow_reader_pauses_the_upstream() -> None:
    """Reading is paused beyond ``READ_AHEAD``, and goes on when the caller reads."""
    size = 64 * READ_AHEAD
    sent = 0

    async def play(link: Link) -> None:
        nonlocal sent
        await link.request()
        link.writer.transport.set_write_buffer_limits(high=0)
        await link.send(EVENTS + b"Content-Length: %d\r\n\r\n" % size)
        while sent < size:
            await link.send(b"x" * READ_AHEAD)
            sent += READ_AHEAD
        await link.left()

    async with peer(play) as server, connected(server.origin) as connection:
        connection.send(HEAD, b"{}")
        await connection.wait_for_head()
        await until(lambda: connection._paused)
        assert sum(map(len, connection._chunks)) <= READ_AHEAD + 256 * 1024
        received = 0
        while chunk := await connection.read():
            received += len(chunk)
        assert received == size
        assert connection.reusable


async def test_dropping_resumes_a_paused_upstream() -> None:
    """Dropping resumes reading, and the end of the answer is still seen."""
    size = 64 * READ_AHEAD
    answer = EVENTS + b"Content-Length: %d\r\n\r\n" % size + b"x" * size
    ended = asyncio.Event()
    async with peer(replying(answer)) as server, connected(server.origin) as connection:
        connection.send(HEAD, b"{}")
        await connection.wait_for_head()
        await until(lambda: connection._paused)
        connection.on_end = lambda _: ended.set()
        connection.drop()
        await ended.wait()
        assert connection.reusable
        assert not connection._chunks


async def test_an_answer_to_half_a_request_is_read() -> None:
    """An answer that comes before the request was sent whole is read; the connection is not reused."""
    body = b"x" * (20 * 1024 * 1024)
    refused = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"

    async def play(link: Link) -> None:
        await link.reader.readuntil(b"\r\n\r\n")
        await link.send(refused)
        await seen.wait()

    seen = asyncio.Event()
    async with peer(play) as server, connected(server.origin) as connection:
        connection.send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % len(body), body)
        await connection.wait_for_head()
        assert (connection.status, connection.ended, connection.reusable) == (413, True, False)
        seen.set()


async def test_a_large_body_arrives_whole() -> None:
    """A large body is sent while the caller waits for the answer, and the connection is reusable."""
    body = b"0123456789abcdef" * (1024 * 1024)
    received = []

    async def play(link: Link) -> None:
        received.append((await link.request()).body)
        await link.send(OK)
        await link.left()

    async with peer(play) as server, connected(server.origin) as connection:
        connection.send(b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body), body)
        await connection.wait_for_head()
        assert await connection.read() == b"{}"
        assert connection.reusable
        assert received == [body]


async def test_closing_fails_a_read() -> None:
    """Closing a connection fails the caller that reads from it."""
    async with peer(replying(CHUNKED)) as server, connected(server.origin) as connection:
        asking = asyncio.ensure_future(ask(connection))
        await until(lambda: connection.status > 0)
        connection.close()
        with pytest.raises(ProviderError) as caught:
            await asking
        assert caught.value.code == "provider_stream_broken"


async def test_a_cancelled_read_can_be_repeated() -> None:
    """A cancelled read loses no bytes: the next read returns them."""
    more = asyncio.Event()

    async def play(link: Link) -> None:
        await link.request()
        await link.send(CHUNKED)
        await more.wait()
        await link.send(b"2\r\nab\r\n0\r\n\r\n")
        await link.left()

    async with peer(play) as server, connected(server.origin) as connection:
        connection.send(HEAD, b"{}")
        await connection.wait_for_head()
        reading = asyncio.ensure_future(connection.read())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        more.set()
        assert await connection.read() == b"ab"


class Unwritten(asyncio.Transport):
    """A transport that drops what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def write(self, data: object) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        assert not self.aborted

    def abort(self) -> None:
        self.aborted = True


async def test_a_transport_that_is_closing_is_not_used() -> None:
    """A closing transport makes the connection unusable before ``connection_lost``."""
    transport = Unwritten()
    connection = Connection(Origin("h", 80, tls=False), lambda _: None)
    connection.connection_made(transport)
    assert connection.reusable
    connection._paused = True
    transport.abort()
    connection.drop()
    assert (connection.open, connection.usable, connection.reusable) == (True, False, False)


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    st.sampled_from(["chunked", "length", "close"]),
    st.booleans(),
    st.lists(st.integers(0, 500), max_size=12),
)
def test_cuts_change_nothing(chunks: list[bytes], way: str, early: bool, cuts: list[int]) -> None:
    """An answer reads the same wherever the network cuts it, for each way of framing."""
    whole = b"".join(chunks)
    answer = (b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" if early else b"") + EVENTS
    if way == "chunked":
        framed = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]
        answer += b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(framed) + b"0\r\n\r\n"
    elif way == "length":
        answer += b"Content-Length: %d\r\n\r\n" % len(whole) + whole
    else:
        answer += b"\r\n" + whole

    async def read() -> None:
        connection = Connection(Origin("h", 80, tls=False), lambda _: None)
        connection.connection_made(Unwritten())
        connection.send(HEAD, b"{}")
        bounds = sorted({0, len(answer), *(min(cut, len(answer)) for cut in cuts)})
        for start, stop in pairwise(bounds):
            connection.data_received(answer[start:stop])
        if way == "close":
            connection.eof_received()
        await connection.wait_for_head()
        received = b""
        while chunk := await connection.read():
            received += chunk
        assert (connection.status, received) == (200, whole)
        assert connection.headers["content-type"] == "text/event-stream"
        assert connection.reusable == (way != "close")

    asyncio.run(read())


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6))
def test_nonsense_is_never_an_answer(noise: bytes, cuts: list[int]) -> None:
    """Random bytes end a request with an answer or with a ``ProviderError``."""

    async def read() -> None:
        connection = Connection(Origin("h", 80, tls=False), lambda _: None)
        connection.connection_made(Unwritten())
        connection.send(HEAD, b"{}")
        bounds = sorted({0, len(noise), *(min(cut, len(noise)) for cut in cuts)})
        for start, stop in pairwise(bounds):
            connection.data_received(noise[start:stop])
        connection.eof_received()
        connection.connection_lost(None)
        with suppress(ProviderError):
            await connection.wait_for_head()
            await connection.read()

    asyncio.run(read())
