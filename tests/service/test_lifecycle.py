"""The lifecycle."""

import asyncio

import pytest

from protocol.errors import ShuttingDown
from service.lifecycle import Lifecycle, shut_down

LONG = 3600.0


async def _nothing() -> None:
    """Do nothing."""


def test_the_phases_follow_each_other() -> None:
    """The phases: starting, serving, closing; forced after a second stop."""
    lifecycle = Lifecycle()
    phases = [lifecycle.phase]
    for step in (lifecycle.serve, lifecycle.stop, lifecycle.stop):
        step()
        phases.append(lifecycle.phase)
    assert phases == ["starting", "serving", "closing", "forced"]


def test_new_work_is_let_in_until_the_service_stops() -> None:
    """While the service stops, new work is refused with a retry delay."""
    lifecycle = Lifecycle()
    lifecycle.admit()
    lifecycle.stop()
    with pytest.raises(ShuttingDown):
        lifecycle.admit()


async def test_stopping_goes_in_order_and_waits_for_running_calls() -> None:
    """In order: no new connections, sockets disconnected, running calls awaited."""
    lifecycle, steps = Lifecycle(), []
    lifecycle.serve()
    lifecycle.enter()

    async def stop_listening() -> None:
        steps.append(("stop_listening", lifecycle.phase))

    async def disconnect_sockets() -> None:
        steps.append(("disconnect_sockets", lifecycle.phase))

    stopping = asyncio.create_task(
        shut_down(lifecycle, stop_listening=stop_listening, disconnect_sockets=disconnect_sockets, grace=LONG)
    )
    for _ in range(10):
        await asyncio.sleep(0)
    assert steps == [("stop_listening", "closing"), ("disconnect_sockets", "closing")]
    assert not stopping.done()
    lifecycle.leave()
    assert await stopping
    assert lifecycle.phase == "forced"


async def test_a_second_stop_cuts_the_drain_short() -> None:
    """A second stop does not wait for the grace period."""
    lifecycle = Lifecycle()
    lifecycle.enter()
    lifecycle.stop()
    lifecycle.stop()
    assert not await shut_down(lifecycle, stop_listening=_nothing, disconnect_sockets=_nothing, grace=LONG)
    assert lifecycle.running == 1


async def test_a_second_stop_cuts_the_disconnecting_short() -> None:
    """A hub that does not answer does not block the second stop."""
    lifecycle, told, cut = Lifecycle(), asyncio.Event(), []

    async def disconnect_sockets() -> None:
        told.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cut.append(True)
            raise

    stopping = asyncio.create_task(
        shut_down(lifecycle, stop_listening=_nothing, disconnect_sockets=disconnect_sockets, grace=LONG)
    )
    await told.wait()
    lifecycle.stop()
    assert await stopping
    assert cut == [True]


async def test_the_grace_is_a_bound() -> None:
    """A call that does not end is aborted after the grace period."""
    lifecycle = Lifecycle()
    lifecycle.enter()
    assert not await shut_down(lifecycle, stop_listening=_nothing, disconnect_sockets=_nothing, grace=0.0)


async def test_a_step_that_fails_does_not_keep_the_others_back() -> None:
    """A failed hub is logged, and stopping continues."""
    lifecycle = Lifecycle()

    async def disconnect_sockets() -> None:
        raise ShuttingDown

    assert await shut_down(lifecycle, stop_listening=_nothing, disconnect_sockets=disconnect_sockets, grace=LONG)


async def test_the_grace_begins_with_the_signal() -> None:
    """The time for disconnecting the sockets counts towards the grace period."""
    lifecycle, loop = Lifecycle(), asyncio.get_running_loop()
    lifecycle.enter()
    moved, clock = [0.0], loop.time
    loop.time = lambda: clock() + moved[0]  # type: ignore[method-assign]

    async def disconnect_sockets() -> None:
        moved[0] = LONG

    assert not await shut_down(lifecycle, stop_listening=_nothing, disconnect_sockets=disconnect_sockets, grace=LONG)
