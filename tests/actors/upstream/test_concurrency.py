import asyncio

import pytest

from actors.upstream.concurrency import ConcurrencyLimiter
from protocol.errors import Overloaded


async def turn() -> None:
    """Let other tasks run."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_first_come_first_served_within_the_bound() -> None:
    """No more calls than the concurrency are under way, and waiting calls follow in order."""
    limiter = ConcurrencyLimiter("p", concurrency=1, queue=2)
    await limiter.acquire()
    entered: list[int] = []

    async def wait(number: int) -> None:
        await limiter.acquire()
        entered.append(number)

    waiting = [asyncio.create_task(wait(number)) for number in (1, 2)]
    await turn()
    assert (limiter.in_flight, limiter.queued, entered) == (1, 2, [])
    limiter.release()
    await turn()
    assert (limiter.in_flight, limiter.queued, entered) == (1, 1, [1])
    limiter.release()
    await asyncio.gather(*waiting)
    limiter.release()
    assert (limiter.in_flight, limiter.queued, limiter.free) == (0, 0, True)


async def test_a_full_queue_turns_away() -> None:
    """The error says when to try again."""
    limiter = ConcurrencyLimiter("p", concurrency=1, queue=0)
    await limiter.acquire()
    with pytest.raises(Overloaded) as caught:
        await limiter.acquire()
    assert caught.value.code == "provider_overloaded"
    assert caught.value.retry_after is not None


@pytest.mark.parametrize("granted", [False, True])
async def test_who_gives_up_waiting_takes_no_place(granted: bool) -> None:
    """Cancelled in the queue, or in the moment in which it gets the place: the place goes to the next."""
    limiter = ConcurrencyLimiter("p", concurrency=1, queue=2)
    await limiter.acquire()
    first, second = asyncio.create_task(limiter.acquire()), asyncio.create_task(limiter.acquire())
    await turn()
    if granted:
        limiter.release()
    first.cancel()
    await asyncio.wait((first,))
    if not granted:
        limiter.release()
    await second
    assert (limiter.in_flight, limiter.queued) == (1, 0)


def test_a_lane_of_nothing_is_a_mistake() -> None:
    """The error has the value."""
    with pytest.raises(ValueError, match="got 0"):
        ConcurrencyLimiter("p", concurrency=0, queue=0)


async def order(limiter: ConcurrencyLimiter, tenants: str) -> tuple[list[str], list["asyncio.Task[None]"]]:
    """Let a call of each of these tenants wait, in this order; the list fills with those that get a place."""
    entered: list[str] = []

    async def wait(tenant: str) -> None:
        await limiter.acquire(tenant)
        entered.append(tenant)

    waiting = []
    for tenant in tenants:
        waiting.append(asyncio.create_task(wait(tenant)))
        await turn()
    return entered, waiting


async def test_tenants_take_turns() -> None:
    """A call does not wait for all calls of another tenant."""
    limiter = ConcurrencyLimiter("p", concurrency=1, queue=10)
    await limiter.acquire("a")
    entered, waiting = await order(limiter, "aaaabcb")
    for _ in waiting:
        limiter.release()
        await turn()
    assert "".join(entered) == "abcabaa"
    limiter.release()
    assert (limiter.in_flight, limiter.queued, limiter._waiting._waiting) == (0, 0, {})


async def test_a_flood_does_not_fill_the_queue_for_others() -> None:
    """The last call of the tenant with the most loses its place; a tenant with as many as the others takes none."""
    limiter = ConcurrencyLimiter("p", concurrency=1, queue=4)
    await limiter.acquire("a")
    entered, waiting = await order(limiter, "aaaabb")
    assert [task.done() for task in waiting] == [False, False, True, True, False, False]
    for task in waiting[2:4]:
        assert isinstance(task.exception(), Overloaded)
    for tenant in "ab":
        with pytest.raises(Overloaded):
            await limiter.acquire(tenant)
    for _ in range(4):
        limiter.release()
        await turn()
    assert "".join(entered) == "abab"


async def test_a_tenant_that_gives_up_is_forgotten() -> None:
    """The queue keeps nothing of a tenant without calls."""
    limiter = ConcurrencyLimiter("p", concurrency=1, queue=4)
    await limiter.acquire("a")
    _, waiting = await order(limiter, "bc")
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert (limiter.in_flight, limiter.queued, limiter._waiting._waiting) == (1, 0, {})
