import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sized
from contextlib import asynccontextmanager

import pytest

from actors.wire import pool as module
from actors.wire.connection import Connection
from actors.wire.connector import Connector
from actors.wire.pool import ConnectionPool
from actors.wire.url import Origin
from protocol.errors import ProviderError
from tests.actors.wire.peer import OK, Link, answering, holding, peer, until

HEAD = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n"
SOON = 5.0  # seconds


@asynccontextmanager
async def pooled(limit: int = 0, connector: Connector | None = None) -> AsyncIterator[ConnectionPool]:
    """Yield a pool, close it, and check that it holds nothing."""
    pool = ConnectionPool(connector or Connector(), limit=limit)
    try:
        yield pool
    finally:
        await pool.close()
        assert left(pool) == [0] * 6


def left(pool: ConnectionPool) -> list[int]:
    """Return the sizes of all the pool's collections."""
    every: tuple[Sized, ...] = (
        pool._open,
        pool._connecting,
        pool._waiters,
        pool._idle,
        pool._idle_timer,
        pool._lingering,
    )
    return [*map(len, every)]


async def get(pool: ConnectionPool, origin: Origin) -> Connection:
    """Return an idle connection, or acquire one."""
    return pool.take(origin) or await pool.acquire(origin, SOON)


async def exchange(connection: Connection) -> None:
    """Send a request, and read its answer."""
    connection.send(HEAD, b"{}")
    await connection.wait_for_head()
    while await connection.read():
        pass


async def code(waiting: Awaitable[object]) -> str:
    """Return the code of the ``ProviderError`` that ``waiting`` raises."""
    with pytest.raises(ProviderError) as caught:
        await waiting
    return caught.value.code


async def test_a_connection_is_used_again() -> None:
    """The connection that was released last is taken first; the others may reach their idle timeout."""
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
    """An idle connection is reused only for its own origin."""
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
    """Releasing a connection that is not reusable closes it."""

    async def play(link: Link) -> None:
        await answering(link, answer)

    async with peer(play) as server, pooled() as pool:
        connection = await get(pool, server.origin)
        await exchange(connection)
        pool.release(connection)
        assert (pool.take(server.origin), connection.open, pool.busy) == (None, False, 0)


async def test_one_that_the_server_has_closed_is_never_given() -> None:
    """A connection that the server closed is not given to a caller."""
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
        await until(lambda: not pool._open)
        assert not pool._idle


async def test_last_bytes_may_come_late() -> None:
    """A connection released before the end of its answer counts as busy until the end, then becomes idle."""
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
        await connection.wait_for_head()
        assert await connection.read() == b"ab"
        pool.release(connection)
        assert (pool.busy, len(pool._lingering), pool.take(server.origin)) == (1, 1, None)
        end.set()
        await until(lambda: pool.busy == 0)
        assert pool.take(server.origin) is connection
        assert not connection._chunks
        pool.discard(connection)


@pytest.mark.parametrize("then", ["stall", "end", "reset"])
async def test_last_bytes_that_never_come_cost_the_connection(then: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lingering connection is closed after ``LINGER_SECONDS``, or when the server closes it."""
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.01 if then == "stall" else SOON)
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
        await connection.wait_for_head()
        pool.release(connection)
        over.set()
        await until(lambda: pool.busy == 0)
        assert pool.take(server.origin) is None
        assert not pool._lingering


async def test_one_that_waits_for_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle connection is closed after ``IDLE_SECONDS``."""
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.01)
    async with peer(answering) as server, pooled() as pool:
        connection = await get(pool, server.origin)
        await exchange(connection)
        pool.release(connection)
        await server.until(lambda: not server.open)
        assert not pool._idle


async def test_so_many_wait_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond ``MAX_IDLE`` the connection that was idle longest is closed."""
    monkeypatch.setattr(module, "MAX_IDLE", 2)
    async with peer(answering) as server, pooled() as pool:
        three = [await get(pool, server.origin) for _ in range(3)]
        for connection in three:
            await exchange(connection)
            pool.release(connection)
        assert [connection.open for connection in three] == [False, True, True]
        assert len(pool._idle_timer) == 2


async def test_beyond_the_limit_it_is_first_come_first_served() -> None:
    """Callers beyond the limit get their slots in order; a cancelled caller is skipped."""
    order: list[str] = []

    async def use(pool: ConnectionPool, origin: Origin, name: str) -> None:
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
        assert (pool.busy, len(pool._waiters)) == (1, 3)
        await exchange(first)
        pool.release(first)
        assert pool.take(server.origin) is None
        await asyncio.wait(tasks)
        assert (order, pool.busy, len(server.links)) == (["a", "c", "d"], 0, 1)


async def test_a_slot_given_to_a_cancelled_waiter_is_passed_on() -> None:
    """A slot that a cancelled waiter had just got goes to the next waiter."""
    async with peer(answering) as server, pooled(limit=1) as pool:
        first = await get(pool, server.origin)
        one = asyncio.ensure_future(get(pool, server.origin))
        two = asyncio.ensure_future(get(pool, server.origin))
        await until(lambda: len(pool._waiters) == 2)
        pool.discard(first)
        one.cancel()
        connection = await two
        assert one.cancelled()
        assert pool.busy == 1
        pool.discard(connection)
        assert pool.busy == 0


async def test_an_idle_connection_to_another_origin_makes_room() -> None:
    """The limit counts the connections to all origins; an idle one to another origin is closed for a new one."""
    async with peer(answering) as one, peer(answering) as two, pooled(limit=1) as pool:
        connection = await get(pool, one.origin)
        await exchange(connection)
        pool.release(connection)
        other = await get(pool, two.origin)
        assert (connection.open, pool.busy) == (False, 1)
        pool.discard(other)


async def test_a_waiter_makes_no_connection_while_the_pool_closes() -> None:
    """A waiter that gets its slot while the pool closes makes no connection."""
    async with peer(answering) as server, pooled(limit=1) as pool:
        first = await get(pool, server.origin)
        waiting = asyncio.ensure_future(get(pool, server.origin))
        await until(lambda: len(pool._waiters) == 1)
        pool.discard(first)
        await pool.close()
        assert await code(waiting) == "provider_unavailable"
        assert (pool.busy, len(server.links)) == (0, 1)


class Stuck(Connector):
    """A connector that never connects."""

    async def connect(self, origin: Origin, on_lost: Callable[[Connection], None]) -> Connection:
        await asyncio.Event().wait()
        return await super().connect(origin, on_lost)


async def test_connecting_takes_so_long_and_no_longer() -> None:
    """Connecting that takes longer than the timeout is a ``provider_timeout``."""
    async with pooled(connector=Stuck()) as pool:
        assert await code(pool.acquire(Origin("127.0.0.1", 1, tls=False), 0.01)) == "provider_timeout"
        assert pool.busy == 0


async def test_nobody_there() -> None:
    """A refused connection and an invalid host name are ``provider_unavailable``."""
    async with peer(answering) as server:
        origin = server.origin
    async with pooled() as pool:
        assert await code(pool.acquire(origin, SOON)) == "provider_unavailable"
        assert await code(pool.acquire(Origin("x" * 300, 80, tls=False), SOON)) == "provider_unavailable"
        assert pool.busy == 0


async def test_who_is_cancelled_while_connecting_leaves_nothing() -> None:
    """A cancelled caller frees its slot, and the next waiter gets it."""
    async with pooled(limit=1, connector=Stuck()) as pool:
        one = asyncio.ensure_future(pool.acquire(Origin("127.0.0.1", 1, tls=False), SOON))
        two = asyncio.ensure_future(pool.acquire(Origin("127.0.0.1", 1, tls=False), SOON))
        await until(lambda: bool(pool._connecting) and bool(pool._waiters))
        one.cancel()
        await until(lambda: not pool._waiters and bool(pool._connecting))
        two.cancel()
        await asyncio.wait((one, two))
        assert (one.cancelled(), two.cancelled(), pool.busy) == (True, True, 0)


async def test_closing_ends_everything() -> None:
    """Closing ends busy, idle and connecting connections, and fails the waiters."""
    async with peer(holding) as server, peer(answering) as kept:
        pool = ConnectionPool(Connector(), limit=3)
        idle = await get(pool, kept.origin)
        await exchange(idle)
        pool.release(idle)
        used = await get(pool, server.origin)
        asking = asyncio.ensure_future(exchange(used))
        pool._connector = Stuck()
        connecting = [asyncio.ensure_future(pool.acquire(server.origin, SOON)) for _ in range(2)]
        waiting = asyncio.ensure_future(pool.acquire(server.origin, SOON))
        await until(lambda: len(pool._connecting) == 2 and len(pool._waiters) == 1)
        await pool.close()
        assert left(pool) == [0] * 6
        assert [await code(task) for task in (asking, *connecting, waiting)] == ["provider_unavailable"] * 4
        assert await code(pool.acquire(server.origin, SOON)) == "provider_unavailable"
        pool.release(used)
        assert pool.busy == 0
        await pool.close()
        await server.until(lambda: not server.open)
        await kept.until(lambda: not kept.open)


async def test_a_connection_that_is_lost_in_use_is_counted_off_once() -> None:
    """A connection that is lost while busy stays counted until its caller discards it."""

    async def play(link: Link) -> None:
        await link.request()

    async with peer(play) as server, pooled() as pool:
        connection = await get(pool, server.origin)
        assert await code(exchange(connection)) == "provider_unavailable"
        await until(lambda: not pool._open)
        assert pool.busy == 1
        pool.discard(connection)
        assert pool.busy == 0
