import asyncio

import pytest

from actors.llm_gateway.admission import Lane
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
