"""From start to stop: what phase the service is in, and how it winds down without cutting anybody off.

::

    starting ─► serving ─► closing ─► forced
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import structlog

from protocol.errors import ShuttingDown

Phase = Literal["starting", "serving", "closing", "forced"]

_log = structlog.get_logger("service")

RETRY_ELSEWHERE: Final = 1.0  # seconds after which a refused caller may try the server that takes over


class Lifecycle:
    """The phase, and the calls that are under way.

    Attributes:
        closing: set when the service begins to stop. A stream may go on until its end or until ``forced``.
        forced: set when the grace is over, or at the second signal: whatever still runs is cut off.
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
        """Where the service is between start and stop."""
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
        """Say that the service takes calls."""
        self._serving = True

    def stop(self) -> None:
        """Begin to stop; called again, stop at once."""
        if self.closing.is_set():
            self.forced.set()
        self.closing.set()

    def admit(self) -> None:
        """Let new work in.

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
        """Count a call off."""
        self._running -= 1
        if not self._running:
            self._idle.set()

    async def drain(self, grace: float) -> bool:
        """Wait until no call is under way, ``grace`` seconds have gone, or stopping is forced; then all is forced.

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


async def wind_down(
    lifecycle: Lifecycle,
    *,
    refuse: Callable[[], Awaitable[object]],
    farewell: Callable[[], Awaitable[object]],
    grace: float,
) -> bool:
    """Stop in order: refuse new connections, tell the sockets, let running calls end. Returns whether all of them did.

    Readiness fails from the moment that ``closing`` is set. A second ``stop`` cuts each of the steps short. ``grace``
    is in seconds from now on: what the first two steps take, running calls don't get.
    """
    clock = asyncio.get_running_loop().time
    over = clock() + grace
    lifecycle.closing.set()
    await _unless_forced(lifecycle, refuse())
    await _unless_forced(lifecycle, farewell())
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
