"""The lifecycle of the service, and its orderly shutdown."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, Literal, Protocol, TypeVar, runtime_checkable

import structlog

from protocol.errors import RETRY_ELSEWHERE, ShuttingDown

Phase = Literal["starting", "serving", "closing", "forced"]
T = TypeVar("T")

ENDING_LOOK: Final = 0.25  # seconds between looks at the calls that send the end of their requests
ENDING_LOOKS: Final = 8
INTERRUPT_TIMEOUT: Final = 0.5  # seconds in which interrupted calls have to send their error

_log = structlog.get_logger("service")


@runtime_checkable
class RunningCall(Protocol):
    """A call that ``Lifecycle`` counts: ``service.context.CallContext``."""

    @property
    def response(self) -> object | None:
        """The response that has begun; None before."""


class Lifecycle:
    """The phase of the service, and the calls that run.

    ::

        starting --serve()--> serving --stop()--> closing --nothing runs, grace over, stop() again--> forced

    Attributes:
        closing: set when the service begins to stop. What runs may go on until its end or until ``forced``.
        forced: set when nothing runs, when the grace period is over, or at the second signal: what still runs is ended.
        signal: the name of the last signal to stop; empty for none.
        signals: how many times ``stop`` was called.
    """

    def __init__(self) -> None:
        self.closing = asyncio.Event()
        self.forced = asyncio.Event()
        self.signal = ""
        self.signals = 0
        self._serving = False
        self._calls: dict[object, asyncio.Task[Any] | None] = {}
        self._interrupted: dict[object, asyncio.Task[Any]] = {}
        self._idle: asyncio.Event | None = None  # made by the first one who waits

    @property
    def phase(self) -> Phase:
        """The current phase."""
        if self.forced.is_set():
            return "forced"
        if self.closing.is_set():
            return "closing"
        return "serving" if self._serving else "starting"

    @property
    def running(self) -> int:
        """HTTP calls that are being answered; WebSockets are not among them."""
        return len(self._calls)

    def serve(self) -> None:
        """Enter ``serving``: the service takes calls."""
        self._serving = True

    def stop(self, signal: str = "") -> None:
        """Begin to stop; the second call ends what still runs."""
        self.signal = signal
        self.signals += 1
        if self.closing.is_set():
            self.forced.set()
        self.closing.set()

    def admit(self) -> None:
        """Check that new work is accepted.

        Raises:
            ShuttingDown: the service is stopping.
        """
        if self.closing.is_set():
            raise ShuttingDown(retry_after=RETRY_ELSEWHERE)

    def enter(self, call: object, task: asyncio.Task[Any] | None = None) -> None:
        """Count a call; ``leave`` has to follow.

        Args:
            call: the call, once; a ``RunningCall`` where there is a task.
            task: ``interrupt`` cancels it; None for a call that it leaves alone.
        """
        self._calls[call] = task

    def leave(self, call: object) -> None:
        """Count a call as ended."""
        del self._calls[call]
        if self._idle is not None and not self._calls:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until no call runs."""
        while self._calls:
            self._idle = self._idle or asyncio.Event()
            self._idle.clear()
            await self._idle.wait()

    def interrupt(self) -> int:
        """Cancel every call that runs: each answers with ``shutting_down``, or breaks off the answer that it has begun.

        Returns the number of calls that had not begun to answer.
        """
        self._interrupted = {call: task for call, task in self._calls.items() if task is not None}
        for task in self._interrupted.values():
            task.cancel()
        return sum(isinstance(call, RunningCall) and call.response is None for call in self._interrupted)

    def take_interrupt(self, call: object) -> bool:
        """Return whether ``interrupt``, and nobody else, has cancelled the current task; it is not cancelled any more.

        The handler of a ``CancelledError`` calls it, as ``asyncio.timeout`` does for its own cancellation.
        """
        cancelled, current = self._interrupted.get(call), asyncio.current_task()
        if cancelled is None or current is None or current.uncancel():
            return False
        if cancelled is not current:  # it waits for the current one
            cancelled.uncancel()
        return True


class ShutdownSteps(Protocol):
    """What a server does in each step of its shutdown."""

    async def release_sockets(self) -> None:
        """Disconnect the sockets that follow no request, and each other one after its last request."""

    async def wait_for_requests(self) -> None:
        """Wait until no request runs, whether or not anybody follows it."""

    async def end_requests(self) -> int:
        """End the running requests with ``shutting_down``; return their number."""

    async def disconnect_sockets(self) -> None:
        """Disconnect all sockets that are left, after the last frames of their requests."""

    async def stop_listening(self) -> None:
        """Accept no more connections."""


async def shut_down(lifecycle: Lifecycle, steps: ShutdownSteps, *, grace: float) -> bool:
    """Stop in order; returns whether all that ran came to its own end.

    1. New work is refused, and readiness fails. The service still listens, for probes and for the readers of requests.
    2. What runs may go on for ``grace`` seconds, or until a second ``stop``: calls, and requests that nobody follows.
    3. What is left is ended: requests first, so that their readers send the end; then the calls that wait for anything
       else.
    4. The sockets are disconnected, and the service stops listening. The caller closes the connections.
    """
    lifecycle.closing.set()
    whole = await _drain(lifecycle, steps, grace)
    lifecycle.forced.set()
    if not whole:
        whole = not await _end(lifecycle, steps)
    await _step(steps.disconnect_sockets())
    await _step(steps.stop_listening())
    return whole


async def _drain(lifecycle: Lifecycle, steps: ShutdownSteps, grace: float) -> bool:
    """Wait until nothing runs, ``grace`` seconds are over, or stopping is forced; returns whether nothing runs."""
    drained = asyncio.ensure_future(_drained(lifecycle, steps))
    forced = asyncio.ensure_future(lifecycle.forced.wait())
    try:
        await asyncio.wait({drained, forced}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        return drained.done()
    finally:
        drained.cancel()
        forced.cancel()


async def _drained(lifecycle: Lifecycle, steps: ShutdownSteps) -> None:
    await _step(steps.release_sockets())
    await lifecycle.idle()  # a call may begin a request, and its reader is a call
    await _step(steps.wait_for_requests())
    await lifecycle.idle()


async def _end(lifecycle: Lifecycle, steps: ShutdownSteps) -> bool:
    """End what runs; returns whether there was anything."""
    calls = lifecycle.running
    requests = await _step(steps.end_requests()) or 0
    if not calls and not requests:
        return False
    await _until_stuck(lifecycle)
    requests += lifecycle.interrupt()
    reason = "second signal" if lifecycle.signals > 1 else "grace exceeded"
    _log.error("forced_shutdown", reason=reason, signal=lifecycle.signal, requests=requests, calls=calls)
    await _idle_within(lifecycle, INTERRUPT_TIMEOUT)
    return True


async def _until_stuck(lifecycle: Lifecycle) -> None:
    """Wait while calls end one after the other."""
    for _ in range(ENDING_LOOKS):
        before = lifecycle.running
        await _idle_within(lifecycle, ENDING_LOOK)
        if lifecycle.running in (0, before):
            return


async def _idle_within(lifecycle: Lifecycle, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await lifecycle.idle()
    except TimeoutError:
        return


async def _step(step: Awaitable[T]) -> T | None:
    """Take a step of the shutdown. One that fails is logged, and the next one follows; returns None then."""
    try:
        return await step
    except Exception as error:  # noqa: BLE001 - whatever fails, the service stops
        _log.warning("shutdown_step_failed", exc_info=error)
        return None
