import asyncio
import logging

import pytest

from actors.resilience import SingleFlight, share
from protocol.errors import Overloaded, RequestCancelled


class Work:
    """Work that counts its executions, and ends when it is told how."""

    def __init__(self) -> None:
        self.started = 0
        self.outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.started += 1
        return await self.outcome


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_concurrent_calls_share_one_execution() -> None:
    """The documentation's example: equal keys, one execution, the result for all; and the next call is a new one."""
    work = Work()
    calls = [asyncio.create_task(share("key", work)) for _ in range(3)]
    other = asyncio.create_task(share("another key", work))
    await settle()
    assert work.started == 2
    work.outcome.set_result("result")
    assert await asyncio.gather(*calls, other) == ["result"] * 4
    assert await share("key", work) == "result"
    assert work.started == 3


async def test_a_waiter_that_leaves_ends_nothing() -> None:
    """The first caller's cancellation reaches neither the execution nor the others."""
    work, flights = Work(), SingleFlight()
    first, second = (asyncio.create_task(flights("key", work)) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    assert first.cancelled()
    work.outcome.set_result("result")
    assert await second == "result"


async def test_it_goes_on_without_anybody() -> None:
    """Where all callers have left, one that comes later still finds the execution in flight."""
    work, flights = Work(), SingleFlight()
    first = asyncio.create_task(flights("key", work))
    await settle()
    first.cancel()
    await settle()
    late = asyncio.create_task(flights("key", work))
    await settle()
    work.outcome.set_result("result")
    assert await late == "result"
    assert (work.started, len(flights)) == (1, 0)


async def test_a_failure_reaches_every_caller() -> None:
    """And is not kept: the next call tries anew."""
    work, flights = Work(), SingleFlight()
    calls = [asyncio.create_task(flights("key", work)) for _ in range(2)]
    await settle()
    work.outcome.set_exception(LookupError("gone"))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [str(result) for result in results] == ["gone", "gone"]
    assert len(flights) == 0


async def test_a_failure_that_nobody_waits_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An operator finds it in the log."""
    work, flights = Work(), SingleFlight()
    only = asyncio.create_task(flights("key", work))
    await settle()
    only.cancel()
    await settle()
    with caplog.at_level(logging.WARNING, logger="actors.resilience"):
        work.outcome.set_exception(LookupError("gone"))
        await settle()
    assert [line.getMessage() for line in caplog.records] == ["a shared execution failed and no caller waited for it"]


async def test_an_execution_that_is_cancelled_is_a_failure_of_its_callers() -> None:
    """They were not cancelled themselves, so no cancellation is raised in them."""
    work, flights = Work(), SingleFlight()
    call = asyncio.create_task(flights("key", work))
    await settle()
    work.outcome.cancel()
    with pytest.raises(RequestCancelled):
        await call


async def test_the_table_is_bounded() -> None:
    """One key too many is refused, and one that is in flight can still be joined."""
    work, flights = Work(), SingleFlight(max_keys=1)
    call = asyncio.create_task(flights("key", work))
    await settle()
    with pytest.raises(Overloaded):
        await flights("another key", work)
    joined = asyncio.create_task(flights("key", work))
    await settle()
    work.outcome.set_result("result")
    assert [await call, await joined] == ["result", "result"]
