import asyncio

import pytest

from actors.resilience import limit
from protocol.errors import Overloaded


class Gate:
    """Work that counts who is inside, and stays until the gate opens."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.open = asyncio.Event()

    async def __call__(self, result: int = 0) -> int:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.open.wait()
        finally:
            self.inside -= 1
        return result


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_so_many_at_once() -> None:
    """The documentation's example: all calls of a limited function get through, two at a time."""
    gate = Gate()
    limited = limit(2)(gate)
    calls = [asyncio.create_task(limited(number)) for number in range(5)]
    await settle()
    assert gate.inside == 2
    gate.open.set()
    assert await asyncio.gather(*calls) == [0, 1, 2, 3, 4]
    assert gate.most == 2


async def test_the_queue_is_bounded() -> None:
    """One more than may wait is refused at once, and those that wait are not disturbed."""
    gate, limited = Gate(), limit(1, waiting=1)
    calls = [asyncio.create_task(limited.run(gate)) for _ in range(2)]
    await settle()
    assert (limited.running, limited.queued) == (1, 1)
    with pytest.raises(Overloaded, match="1 calls are running and 1 waiting"):
        await limited.run(gate)
    gate.open.set()
    await asyncio.gather(*calls)
    assert (limited.running, limited.queued) == (0, 0)


async def test_functions_share_one_limit() -> None:
    """A limit that is given to two functions bounds them together."""
    gate, limited = Gate(), limit(1)
    first, second = limited(gate), limited(gate)
    calls = [asyncio.create_task(first()), asyncio.create_task(second())]
    await settle()
    assert gate.inside == 1
    gate.open.set()
    await asyncio.gather(*calls)


async def test_a_cancelled_caller_frees_its_place() -> None:
    """One that waited leaves the queue, and one that ran leaves its place to the next."""
    gate, limited = Gate(), limit(1)
    running, waiting, last = (asyncio.create_task(limited.run(gate)) for _ in range(3))
    await settle()
    waiting.cancel()
    running.cancel()
    await settle()
    assert (gate.inside, limited.running, limited.queued) == (1, 1, 0)
    gate.open.set()
    await last


async def test_a_failure_frees_the_place() -> None:
    """What the work raises reaches its caller, and the next call has room."""

    async def fails() -> None:
        raise LookupError

    limited = limit(1, waiting=0)
    for _ in range(2):
        with pytest.raises(LookupError):
            await limited.run(fails)


@pytest.mark.parametrize(("concurrency", "waiting"), [(0, 1), (-1, 1), (1, -1)])
def test_a_limit_is_validated(concurrency: int, waiting: int) -> None:
    """A limit that lets nobody in is refused where it is made."""
    with pytest.raises(ValueError, match=r"got (0|-1)"):
        limit(concurrency, waiting=waiting)
