"""The lifecycle, and the order of a shutdown."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from protocol.errors import ShuttingDown
from service import lifecycle as module
from service.lifecycle import Lifecycle, RunningCall, shut_down

LONG = 3600.0


class Call:
    """A call, and whether it has begun to answer."""

    def __init__(self, response: object | None = None) -> None:
        self.response = response


class Steps:
    """The steps of a server with ``requests`` that run until the test, or a step, ends them."""

    def __init__(self, lifecycle: Lifecycle, requests: int = 0) -> None:
        self.lifecycle = lifecycle
        self.requests = requests
        self.taken: list[tuple[str, str]] = []
        self.ended = asyncio.Event()
        self.on_release: Callable[[], Awaitable[None]] | None = None
        if not requests:
            self.ended.set()

    def _take(self, name: str) -> None:
        self.taken.append((name, self.lifecycle.phase))

    async def release_sockets(self) -> None:
        self._take("release_sockets")
        if self.on_release is not None:
            await self.on_release()

    async def wait_for_requests(self) -> None:
        self._take("wait_for_requests")
        await self.ended.wait()

    async def end_requests(self) -> int:
        self._take("end_requests")
        self.ended.set()
        return self.requests

    async def disconnect_sockets(self) -> None:
        self._take("disconnect_sockets")

    async def stop_listening(self) -> None:
        self._take("stop_listening")


@pytest.fixture
def lifecycle() -> Lifecycle:
    """A lifecycle of a service that serves."""
    lifecycle = Lifecycle()
    lifecycle.serve()
    return lifecycle


def running(lifecycle: Lifecycle, until: Awaitable[object], call: RunningCall | None = None) -> "asyncio.Task[str]":
    """Run a call that waits for ``until``; returns how it ended. Without a ``call`` it is not to be interrupted."""
    key = call or object()

    async def run() -> str:
        lifecycle.enter(key, asyncio.current_task() if call else None)
        try:
            await until
        except asyncio.CancelledError:
            if not lifecycle.take_interrupt(key):
                raise
            return "interrupted"
        finally:
            lifecycle.leave(key)
        return "answered"

    return asyncio.create_task(run())


async def settle() -> None:
    """Let everything that is ready run."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_the_phases_follow_each_other() -> None:
    """The phases: starting, serving, closing; forced after a second stop."""
    lifecycle = Lifecycle()
    phases = [lifecycle.phase]
    for step in (lifecycle.serve, lifecycle.stop, lifecycle.stop):
        step()
        phases.append(lifecycle.phase)
    assert phases == ["starting", "serving", "closing", "forced"]


def test_new_work_is_let_in_until_the_service_stops(lifecycle: Lifecycle) -> None:
    """While the service stops, new work is refused with a retry delay."""
    lifecycle.admit()
    lifecycle.stop("SIGTERM")
    with pytest.raises(ShuttingDown) as raised:
        lifecycle.admit()
    assert raised.value.retry_after
    assert lifecycle.signal == "SIGTERM"


async def test_stopping_waits_for_running_calls(lifecycle: Lifecycle) -> None:
    """In order: idle sockets, calls, requests; then the other sockets, and the end of listening. Nothing is cut off."""
    steps, answer = Steps(lifecycle), asyncio.Event()
    call = running(lifecycle, answer.wait(), Call())
    await settle()
    with capture_logs() as logs:
        stopping = asyncio.create_task(shut_down(lifecycle, steps, grace=LONG))
        await settle()
        assert steps.taken == [("release_sockets", "closing")]
        answer.set()
        assert await stopping
    assert await call == "answered"
    assert steps.taken[1:] == [
        ("wait_for_requests", "closing"),
        ("disconnect_sockets", "forced"),
        ("stop_listening", "forced"),
    ]
    assert logs == []


async def test_requests_that_nobody_follows_count_as_running(lifecycle: Lifecycle) -> None:
    """Without any call, the shutdown waits until the last request has ended."""
    steps = Steps(lifecycle, requests=1)
    stopping = asyncio.create_task(shut_down(lifecycle, steps, grace=LONG))
    await settle()
    assert not stopping.done()
    steps.ended.set()
    assert await stopping
    assert ("end_requests", "forced") not in steps.taken


async def test_a_second_stop_ends_what_runs(lifecycle: Lifecycle) -> None:
    """Requests are ended before the sockets are disconnected; the log has their number and the reason, as an error."""
    steps = Steps(lifecycle, requests=3)
    reader = running(lifecycle, steps.ended.wait(), Call())
    lifecycle.stop("SIGTERM")
    with capture_logs() as logs:
        stopping = asyncio.create_task(shut_down(lifecycle, steps, grace=LONG))
        await settle()
        lifecycle.stop("SIGINT")
        assert not await stopping
    assert await reader == "answered"
    assert [name for name, _ in steps.taken] == [
        "release_sockets",
        "end_requests",
        "disconnect_sockets",
        "stop_listening",
    ]
    assert logs == [
        {
            "event": "forced_shutdown",
            "log_level": "error",
            "reason": "second signal",
            "signal": "SIGINT",
            "requests": 3,
            "calls": 1,
        }
    ]


async def test_what_waits_for_anything_else_is_interrupted(
    lifecycle: Lifecycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls that do not follow a request are interrupted; of these, those that had not begun to answer are counted."""
    monkeypatch.setattr(module, "ENDING_LOOK", 0.0)
    steps = Steps(lifecycle, requests=1)
    calls = [running(lifecycle, asyncio.Event().wait(), call) for call in (Call(), Call(), Call(response=object()))]
    submitting = asyncio.Event()
    submit = running(lifecycle, submitting.wait())
    await settle()
    monkeypatch.setattr(module, "INTERRUPT_TIMEOUT", 0.0)
    with capture_logs() as logs:
        assert not await shut_down(lifecycle, steps, grace=0.0)
    assert await asyncio.gather(*calls) == ["interrupted"] * 3
    assert (logs[0]["reason"], logs[0]["requests"], logs[0]["calls"]) == ("grace exceeded", 3, 4)
    submitting.set()
    assert await submit == "answered"


async def test_a_client_that_leaves_is_not_answered(lifecycle: Lifecycle) -> None:
    """A call that its client has cancelled, too, stays cancelled."""
    call = running(lifecycle, asyncio.Event().wait(), Call())
    await settle()
    lifecycle.interrupt()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_second_stop_cuts_the_releasing_short(lifecycle: Lifecycle) -> None:
    """A hub that does not answer does not block the second stop."""
    steps, told, cut = Steps(lifecycle), asyncio.Event(), []

    async def hang() -> None:
        told.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cut.append(True)
            raise

    steps.on_release = hang
    stopping = asyncio.create_task(shut_down(lifecycle, steps, grace=LONG))
    await told.wait()
    lifecycle.stop()
    assert await stopping
    assert cut == [True]


@pytest.mark.parametrize("requests", [0, 2])
async def test_without_a_grace_only_what_runs_is_cut_off(lifecycle: Lifecycle, requests: int) -> None:
    """A service in which nothing runs stops whole, also with a grace of 0."""
    with capture_logs() as logs:
        assert await shut_down(lifecycle, Steps(lifecycle, requests), grace=0.0) is not bool(requests)
    assert [line["event"] for line in logs] == ["forced_shutdown"] * bool(requests)


async def test_a_step_that_fails_does_not_keep_the_others_back(lifecycle: Lifecycle) -> None:
    """A failed hub is logged, and stopping continues."""
    steps = Steps(lifecycle)

    async def fail() -> None:
        raise ShuttingDown

    steps.on_release = fail
    with capture_logs() as logs:
        assert await shut_down(lifecycle, steps, grace=LONG)
    assert [line["event"] for line in logs] == ["shutdown_step_failed"]
    assert steps.taken[-1][0] == "stop_listening"


async def test_the_grace_begins_with_the_signal(lifecycle: Lifecycle) -> None:
    """The time for releasing the sockets counts towards the grace period."""
    steps, released = Steps(lifecycle, requests=1), asyncio.Event()
    loop = asyncio.get_running_loop()
    moved, clock = [0.0], loop.time
    loop.time = lambda: clock() + moved[0]  # type: ignore[method-assign]

    async def release() -> None:
        moved[0] = LONG
        released.set()

    steps.on_release = release
    assert not await shut_down(lifecycle, steps, grace=LONG)
    assert released.is_set()
