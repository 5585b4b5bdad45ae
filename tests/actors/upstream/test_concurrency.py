import asyncio

import pytest

from actors.upstream.concurrency import Lane
from protocol.errors import Overloaded


async def turn() -> None:
    """Let everybody else run."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_first_come_first_served_within_the_bound() -> None:
    """No more than the concurrency are in, and who waits gets in by its turn."""
    lane = Lane("p", concurrency=1, queue=2)
    await lane.enter()
    entered: list[int] = []

    async def wait(number: int) -> None:
        await lane.enter()
        entered.append(number)

    waiting = [asyncio.create_task(wait(number)) for number in (1, 2)]
    await turn()
    assert (lane.in_flight, lane.queued, entered) == (1, 2, [])
    lane.leave()
    await turn()
    assert (lane.in_flight, lane.queued, entered) == (1, 1, [1])
    lane.leave()
    await asyncio.gather(*waiting)
    lane.leave()
    assert (lane.in_flight, lane.queued, lane.free) == (0, 0, True)


async def test_a_full_queue_turns_away() -> None:
    """One more than the queue holds is told when to try again."""
    lane = Lane("p", concurrency=1, queue=0)
    await lane.enter()
    with pytest.raises(Overloaded) as caught:
        await lane.enter()
    assert caught.value.code == "provider_overloaded"
    assert caught.value.retry_after is not None


@pytest.mark.parametrize("granted", [False, True])
async def test_who_gives_up_waiting_takes_no_place(granted: bool) -> None:
    """Cancelled in the queue, or in the very moment of its turn: the place goes to the next."""
    lane = Lane("p", concurrency=1, queue=2)
    await lane.enter()
    first, second = asyncio.create_task(lane.enter()), asyncio.create_task(lane.enter())
    await turn()
    if granted:
        lane.leave()
    first.cancel()
    await asyncio.wait((first,))
    if not granted:
        lane.leave()
    await second
    assert (lane.in_flight, lane.queued) == (1, 0)


def test_a_lane_of_nothing_is_a_mistake() -> None:
    """The value is said."""
    with pytest.raises(ValueError, match="got 0"):
        Lane("p", concurrency=0, queue=0)


async def order(lane: Lane, tenants: str) -> tuple[list[str], list["asyncio.Task[None]"]]:
    """Let a call of each of these tenants wait, in this order; the list fills with those who get in."""
    entered: list[str] = []

    async def wait(tenant: str) -> None:
        await lane.enter(tenant)
        entered.append(tenant)

    waiting = []
    for tenant in tenants:
        waiting.append(asyncio.create_task(wait(tenant)))
        await turn()
    return entered, waiting


async def test_tenants_take_turns() -> None:
    """A flood of one tenant's calls is no reason for another to wait for all of them."""
    lane = Lane("p", concurrency=1, queue=10)
    await lane.enter("a")
    entered, waiting = await order(lane, "aaaabcb")
    for _ in waiting:
        lane.leave()
        await turn()
    assert "".join(entered) == "abcabaa"
    lane.leave()
    assert (lane.in_flight, lane.queued, lane._line._waiting) == (0, 0, {})


async def test_a_flood_does_not_fill_the_queue_for_others() -> None:
    """The last call of the tenant with the most gives up its place; none with as many as the others does."""
    lane = Lane("p", concurrency=1, queue=4)
    await lane.enter("a")
    entered, waiting = await order(lane, "aaaabb")
    assert [task.done() for task in waiting] == [False, False, True, True, False, False]
    for task in waiting[2:4]:
        assert isinstance(task.exception(), Overloaded)
    for tenant in "ab":
        with pytest.raises(Overloaded):
            await lane.enter(tenant)
    for _ in range(4):
        lane.leave()
        await turn()
    assert "".join(entered) == "abab"


async def test_a_tenant_that_gives_up_is_forgotten() -> None:
    """Nothing of a tenant stays behind."""
    lane = Lane("p", concurrency=1, queue=4)
    await lane.enter("a")
    _, waiting = await order(lane, "bc")
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert (lane.in_flight, lane.queued, lane._line._waiting) == (1, 0, {})
