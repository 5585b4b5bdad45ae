import asyncio

import pytest

from actors.runtime.testing import ManualClock
from actors.upstream.timeouts import TimeoutScope, pause
from protocol.errors import DeadlineExceeded, ProviderError


async def forever() -> None:
    """Wait for ever."""
    await asyncio.Event().wait()


async def guarded(scope: TimeoutScope) -> None:
    """Wait for ever within ``scope``."""
    with scope:
        await forever()


async def begin(scope: TimeoutScope) -> "asyncio.Task[None]":
    """Start to wait within ``scope``."""
    task = asyncio.create_task(guarded(scope))
    await asyncio.sleep(0)
    return task


def move(clock: ManualClock, until: float) -> None:
    """Move the time on."""
    while clock.step(until):
        pass


async def test_silence_ends_it() -> None:
    """Too long a silence is the provider's timeout."""
    clock = ManualClock()
    task = await begin(TimeoutScope(clock, 100, silence=5))
    move(clock, 5)
    with pytest.raises(ProviderError) as caught:
        await task
    assert caught.value.code == "provider_timeout"


async def test_a_sign_of_life_prolongs_it_up_to_the_deadline() -> None:
    """Signs of life restart the silence, but the deadline stays."""
    clock = ManualClock()
    scope = TimeoutScope(clock, 20, silence=5)
    task = await begin(scope)
    for moment in range(4, 20, 4):
        move(clock, moment)
        scope.sign_of_life()
    move(clock, 19.9)
    await asyncio.sleep(0)
    assert not task.done()
    move(clock, 20)
    with pytest.raises(DeadlineExceeded):
        await task


async def test_a_shorter_silence_counts_at_once() -> None:
    """A new limit may be sooner than the timer that is set."""
    clock = ManualClock()
    scope = TimeoutScope(clock, 100, silence=None)
    task = await begin(scope)
    scope.limit_silence(2)
    move(clock, 2)
    with pytest.raises(ProviderError):
        await task


async def test_our_own_waiting_is_no_silence() -> None:
    """While paused, silence does not count; afterwards it counts from zero."""
    clock = ManualClock()
    scope = TimeoutScope(clock, 100, silence=5)
    task = await begin(scope)
    scope.pause_silence()
    move(clock, 50)
    scope.sign_of_life()
    await asyncio.sleep(0)
    assert not task.done()
    move(clock, 55)
    with pytest.raises(ProviderError):
        await task


async def test_a_cancellation_stays_one() -> None:
    """A cancellation from outside is no timeout, and leaves no timer."""
    clock = ManualClock()
    task = await begin(TimeoutScope(clock, 100, silence=5))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not clock.step(100)


async def test_a_pause_is_as_long_as_it_says() -> None:
    """It ends at its moment of the clock."""
    clock = ManualClock()
    task = asyncio.create_task(pause(clock, 3))
    await asyncio.sleep(0)
    assert not clock.step(2.9)
    assert clock.step(3)
    await task


async def test_what_had_come_during_a_pause_counts() -> None:
    """After a pause of the process the timer is due and the answer is at the socket: the answer is a sign of life."""
    clock = ManualClock()
    scope = TimeoutScope(clock, 100, silence=5)
    socket: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def read() -> str:
        with scope:
            await socket
            scope.sign_of_life()
            for _ in range(3):
                await asyncio.sleep(0)
            return "an answer"

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    socket.set_result(None)
    move(clock, 6)
    assert await task == "an answer"


async def test_somebody_elses_cancellation_at_the_same_moment_stays_one() -> None:
    """A task that is cancelled in the turn in which the time is up is cancelled, and not out of time."""
    clock = ManualClock()
    task = await begin(TimeoutScope(clock, 5))
    move(clock, 5)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_deadline_leaves_no_cancellation_behind() -> None:
    """Code that catches the failure goes on as if nothing had been cancelled."""
    clock = ManualClock()

    async def caught() -> int:
        with pytest.raises(DeadlineExceeded):
            await guarded(TimeoutScope(clock, 5))
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    task = asyncio.create_task(caught())
    await asyncio.sleep(0)
    move(clock, 5)
    assert await task == 0


async def test_what_failed_before_the_deadline_was_heard_of_stays_that() -> None:
    """A failure of the block itself is not replaced, and leaves no cancellation behind."""
    clock = ManualClock()

    async def failing() -> int:
        with pytest.raises(ValueError, match="own"), TimeoutScope(clock, 5):  # noqa: PT012 - the scope is what is tested
            try:
                await forever()
            except asyncio.CancelledError:
                raise ValueError("its own") from None
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    task = asyncio.create_task(failing())
    await asyncio.sleep(0)
    move(clock, 5)
    assert await task == 0
