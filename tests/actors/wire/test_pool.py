import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sized
from contextlib import asynccontextmanager

import pytest

from actors.wire import pool as module
from actors.wire.connection import Connection
from actors.wire.connector import Dialer
from actors.wire.endpoint import Origin
from actors.wire.pool import Pool
from protocol.errors import ProviderError
from tests.actors.wire.peer import OK, Link, answering, holding, peer, until

HEAD = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n"
SOON = 5.0  # seconds


@asynccontextmanager
async def pooled(limit: int = 0, dialer: Dialer | None = None) -> AsyncIterator[Pool]:
    """A pool; at its end nothing is left of it."""
    pool = Pool(dialer or Dialer(), limit=limit)
    try:
        yield pool
    finally:
        await pool.close()
        assert left(pool) == [0] * 6


def left(pool: Pool) -> list[int]:
    """How many of everything there are."""
    every: tuple[Sized, ...] = (
        pool._live,
        pool._dialing,
        pool._waiting,
        pool._idle,
        pool._resting,
        pool.lingering,
    )
    return [*map(len, every)]


async def get(pool: Pool, origin: Origin) -> Connection:
    """Take a connection, or make one."""
    return pool.take(origin) or await pool.acquire(origin, SOON)


async def exchange(connection: Connection) -> None:
    """Send a request, and read its answer."""
    connection.send(HEAD, b"{}")
    await connection.answered()
    while await connection.read():
        pass


async def code(waiting: Awaitable[object]) -> str:
    """What it fails with."""
    with pytest.raises(ProviderError) as caught:
        await waiting
    return caught.value.code


async def test_a_connection_is_used_again() -> None:
    """The one that was used last goes first, so that the others may grow old."""
    async with peer(answering) as server, pooled() as pool:
        one, two = await get(pool, server.origin), await get(pool, server.origin)
        for connection in (one, two):
            await exchange(connection)
            pool.release(connection)
        assert pool.busy == 0
        assert pool.take(server.origin) is two
        assert pool.take(server.origin) is one
        assert pool.take(server.origin) is None
        assert (pool.busy, len(server.links)) == (2, 2)
        for connection in (one, two):
            pool.discard(connection)
        await server.until(lambda: not server.open)
        assert pool.busy == 0


async def test_each_origin_has_its_own() -> None:
    """A connection leads to one place."""
    async with peer(answering) as one, peer(answering) as two, pooled() as pool:
        connection = await get(pool, one.origin)
        await exchange(connection)
        pool.release(connection)
        assert pool.take(two.origin) is None
        assert pool.take(one.origin) is connection
        pool.discard(connection)
        assert not pool._idle


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", OK + b"x"])
async def test_one_that_may_not_be_used_again_is_closed(answer: bytes) -> None:
    """Releasing it is enough."""

    async def play(link: Link) -> None:
        await answering(link, answer)

    async with peer(play) as server, pooled() as pool:
        connection = await get(pool, server.origin)
        await exchange(connection)
        pool.release(connection)
        assert (pool.take(server.origin), connection.open, pool.busy) == (None, False, 0)


async def test_one_that_the_server_has_closed_is_never_given() -> None:
    """Also not before the loop has said that it is lost."""
    over = asyncio.Event()

    async def play(link: Link) -> None:
        await link.request()
        await link.send(OK)
        await over.wait()

    async with peer(play) as server, pooled() as pool:
        connection = await get(pool, server.origin)
        await exchange(connection)
        pool.release(connection)
        over.set()
        await until(lambda: not connection.open)
        assert pool.take(server.origin) is None
        await until(lambda: not pool._live)
        assert not pool._idle


async def test_last_bytes_may_come_late() -> None:
    """A connection whose answer is read but has not ended is in use until it has; then it is kept."""
    end = asyncio.Event()

    async def play(link: Link) -> None:
        await link.request()
        await link.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        await end.wait()
        await link.send(b"1\r\nc\r\n", b"0\r\n\r\n")
        await link.left()

    async with peer(play) as server, pooled() as pool:
        connection = await get(pool, server.origin)
        connection.send(HEAD, b"{}")
        await connection.answered()
        assert await connection.read() == b"ab"
        pool.release(connection)
        assert (pool.busy, len(pool.lingering), pool.take(server.origin)) == (1, 1, None)
        end.set()
        await until(lambda: pool.busy == 0)
        assert pool.take(server.origin) is connection
        assert not connection._chunks
        pool.discard(connection)


@pytest.mark.parametrize("then", ["stall", "end", "reset"])
async def test_last_bytes_that_never_come_cost_the_connection(then: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have a moment, or until the server leaves."""
    monkeypatch.setattr(module, "LINGER", 0.01 if then == "stall" else SOON)
    over = asyncio.Event()

    async def play(link: Link) -> None:
        await link.request()
        await link.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        await over.wait()
        if then == "stall":
            await link.left()
        elif then == "reset":
            link.reset()

    async with peer(play) as server, pooled() as pool:
        connection = await get(pool, server.origin)
        connection.send(HEAD, b"{}")
        await connection.answered()
        pool.release(connection)
        over.set()
        await until(lambda: pool.busy == 0)
        assert pool.take(server.origin) is None
        assert not pool.lingering


async def test_one_that_waits_for_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers close theirs at some time too; ours is sooner."""
    monkeypatch.setattr(module, "IDLE", 0.01)
    async with peer(answering) as server, pooled() as pool:
        connection = await get(pool, server.origin)
        await exchange(connection)
        pool.release(connection)
        await server.until(lambda: not server.open)
        assert not pool._idle


async def test_so_many_wait_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that has waited longest makes room."""
    monkeypatch.setattr(module, "MAX_IDLE", 2)
    async with peer(answering) as server, pooled() as pool:
        three = [await get(pool, server.origin) for _ in range(3)]
        for connection in three:
            await exchange(connection)
            pool.release(connection)
        assert [connection.open for connection in three] == [False, True, True]
        assert len(pool._resting) == 2


async def test_beyond_the_limit_it_is_first_come_first_served() -> None:
    """Nobody overtakes; one who leaves is skipped."""
    order: list[str] = []

    async def use(pool: Pool, origin: Origin, name: str) -> None:
        connection = await get(pool, origin)
        order.append(name)
        await exchange(connection)
        pool.release(connection)

    async with peer(answering) as server, pooled(limit=1) as pool:
        first = await get(pool, server.origin)
        tasks = []
        for name in "abcd":
            tasks.append(asyncio.ensure_future(use(pool, server.origin, name)))
            await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        assert (pool.busy, len(pool._waiting)) == (1, 3)
        await exchange(first)
        pool.release(first)
        assert pool.take(server.origin) is None
        await asyncio.wait(tasks)
        assert (order, pool.busy, len(server.links)) == (["a", "c", "d"], 0, 1)


async def test_a_turn_that_came_with_a_cancellation_is_passed_on() -> None:
    """No turn is lost."""
    async with peer(answering) as server, pooled(limit=1) as pool:
        first = await get(pool, server.origin)
        one = asyncio.ensure_future(get(pool, server.origin))
        two = asyncio.ensure_future(get(pool, server.origin))
        await until(lambda: len(pool._waiting) == 2)
        pool.discard(first)
        one.cancel()
        connection = await two
        assert one.cancelled()
        assert pool.busy == 1
        pool.discard(connection)
        assert pool.busy == 0


async def test_a_connection_that_waits_elsewhere_makes_room() -> None:
    """The limit is over all that stand, to whomever they lead."""
    async with peer(answering) as one, peer(answering) as two, pooled(limit=1) as pool:
        connection = await get(pool, one.origin)
        await exchange(connection)
        pool.release(connection)
        other = await get(pool, two.origin)
        assert (connection.open, pool.busy) == (False, 1)
        pool.discard(other)


async def test_a_turn_that_comes_with_the_end_makes_no_connection() -> None:
    """Nothing is made once it is closed."""
    async with peer(answering) as server, pooled(limit=1) as pool:
        first = await get(pool, server.origin)
        waiting = asyncio.ensure_future(get(pool, server.origin))
        await until(lambda: len(pool._waiting) == 1)
        pool.discard(first)
        await pool.close()
        assert await code(waiting) == "provider_unavailable"
        assert (pool.busy, len(server.links)) == (0, 1)


class Stuck(Dialer):
    """Never gets there."""

    async def dial(self, origin: Origin, lost: Callable[[Connection], None]) -> Connection:
        await asyncio.Event().wait()
        return await super().dial(origin, lost)


async def test_connecting_takes_so_long_and_no_longer() -> None:
    """Who could not be reached in time was too slow."""
    async with pooled(dialer=Stuck()) as pool:
        assert await code(pool.acquire(Origin("127.0.0.1", 1, tls=False), 0.01)) == "provider_timeout"
        assert pool.busy == 0


async def test_nobody_there() -> None:
    """A port that nobody listens at, and a name that nobody has."""
    async with peer(answering) as server:
        origin = server.origin
    async with pooled() as pool:
        assert await code(pool.acquire(origin, SOON)) == "provider_unavailable"
        assert await code(pool.acquire(Origin("x" * 300, 80, tls=False), SOON)) == "provider_unavailable"
        assert pool.busy == 0


async def test_who_is_cancelled_while_connecting_leaves_nothing() -> None:
    """Neither a count nor a socket; who waited is next."""
    async with pooled(limit=1, dialer=Stuck()) as pool:
        one = asyncio.ensure_future(pool.acquire(Origin("127.0.0.1", 1, tls=False), SOON))
        two = asyncio.ensure_future(pool.acquire(Origin("127.0.0.1", 1, tls=False), SOON))
        await until(lambda: bool(pool._dialing) and bool(pool._waiting))
        one.cancel()
        await until(lambda: not pool._waiting and bool(pool._dialing))
        two.cancel()
        await asyncio.wait((one, two))
        assert (one.cancelled(), two.cancelled(), pool.busy) == (True, True, 0)


async def test_closing_ends_everything() -> None:
    """Connections in use, waiting and lingering, those that are being made, and those who wait for one."""
    async with peer(holding) as server, peer(answering) as kept:
        pool = Pool(Dialer(), limit=3)
        idle = await get(pool, kept.origin)
        await exchange(idle)
        pool.release(idle)
        used = await get(pool, server.origin)
        asking = asyncio.ensure_future(exchange(used))
        pool._dialer = Stuck()
        dialing = [asyncio.ensure_future(pool.acquire(server.origin, SOON)) for _ in range(2)]
        waiting = asyncio.ensure_future(pool.acquire(server.origin, SOON))
        await until(lambda: len(pool._dialing) == 2 and len(pool._waiting) == 1)
        await pool.close()
        assert left(pool) == [0] * 6
        assert [await code(task) for task in (asking, *dialing, waiting)] == ["provider_unavailable"] * 4
        assert await code(pool.acquire(server.origin, SOON)) == "provider_unavailable"
        pool.release(used)
        assert pool.busy == 0
        await pool.close()
        await server.until(lambda: not server.open)
        await kept.until(lambda: not kept.open)


async def test_a_connection_that_is_lost_in_use_is_counted_off_once() -> None:
    """By whoever uses it."""

    async def play(link: Link) -> None:
        await link.request()

    async with peer(play) as server, pooled() as pool:
        connection = await get(pool, server.origin)
        assert await code(exchange(connection)) == "provider_unavailable"
        await until(lambda: not pool._live)
        assert pool.busy == 1
        pool.discard(connection)
        assert pool.busy == 0
