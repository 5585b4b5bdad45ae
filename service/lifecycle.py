"""The lifecycle of the service, and its orderly shutdown."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import structlog

from protocol.errors import ShuttingDown

Phase = Literal["starting", "serving", "closing", "forced"]

_log = structlog.get_logger("service")

RETRY_ELSEWHERE: Final = 1.0  # seconds after which a refused caller may try the server that takes over


class Lifecycle:
    """The phase of the service, and the number of running calls.

    ::

        starting --serve()--> serving --stop()--> closing --no calls left, grace over, stop() again--> forced

    Attributes:
        closing: set when the service begins to stop. A stream may go on until its end or until ``forced``.
        forced: set when the grace period is over, or at the second signal: calls that still run are aborted.
    """

    def __init__(self) -> None:
        self.closing = asyncio.Event()
        self.forced = asyncio.Event()
        self._serving = False
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

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
        return self._running

    def serve(self) -> None:
        """Enter ``serving``: the service takes calls."""
        self._serving = True

    def stop(self) -> None:
        """Begin to stop; the second call aborts what still runs."""
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

    def enter(self) -> None:
        """Count a call; ``leave`` has to follow."""
        self._running += 1
        self._idle.clear()

    def leave(self) -> None:
        """Count a call as ended."""
        self._running -= 1
        if not self._running:
            self._idle.set()

    async def drain(self, grace: float) -> bool:
        """Wait until no call runs, ``grace`` seconds are over, or stopping is forced; then enter ``forced``.

        Returns whether every call had ended by itself.
        """
        idle = asyncio.ensure_future(self._idle.wait())
        forced = asyncio.ensure_future(self.forced.wait())
        try:
            await asyncio.wait({idle, forced}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        finally:
            idle.cancel()
            forced.cancel()
        self.forced.set()
        return self._running == 0


async def shut_down(
    lifecycle: Lifecycle,
    *,
    stop_listening: Callable[[], Awaitable[object]],
    disconnect_sockets: Callable[[], Awaitable[object]],
    grace: float,
) -> bool:
    """Stop in order: no new connections, disconnect the sockets, wait for running calls. Returns whether all ended.

    Readiness fails as soon as ``closing`` is set. A second ``stop`` cuts each step short. All steps together have
    ``grace`` seconds.
    """
    clock = asyncio.get_running_loop().time
    over = clock() + grace
    lifecycle.closing.set()
    await _unless_forced(lifecycle, stop_listening())
    await _unless_forced(lifecycle, disconnect_sockets())
    return await lifecycle.drain(max(0.0, over - clock()))


async def _unless_forced(lifecycle: Lifecycle, step: Awaitable[object]) -> None:
    task = asyncio.ensure_future(step)
    forced = asyncio.ensure_future(lifecycle.forced.wait())
    try:
        await asyncio.wait({task, forced}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        forced.cancel()
        task.cancel()
    if task.done() and not task.cancelled() and (error := task.exception()) is not None:
        _log.warning("shutdown_step_failed", exc_info=error)
