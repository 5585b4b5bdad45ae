"""When to restart a failed actor, and when to give it up."""

import asyncio
import random
from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Callable
from typing import Final

from actors.runtime.clock import Clock

LONGEST_BACKOFF: Final = 5.0  # seconds


class RestartBudget:
    """A budget of restarts in a sliding window.

    Args:
        limit: how many failures in the window are answered by a restart.
        within: the length of the window, in seconds.
        backoff: the mean wait before the first restart in a window, in seconds; it doubles with each further one.
        jitter: returns a random number from 0 to 1, so that actors that failed together do not restart together.
    """

    __slots__ = ("_backoff", "_jitter", "_limit", "_times", "_within")

    def __init__(
        self, limit: int, within: float, backoff: float, *, jitter: Callable[[], float] = random.random
    ) -> None:
        self._limit = limit
        self._within = within
        self._backoff = backoff
        self._jitter = jitter
        self._times: deque[float] = deque()

    def next_delay(self, now: float) -> float | None:
        """Count a failure at ``now``: return the seconds to wait before the restart, or ``None`` to escalate."""
        while self._times and self._times[0] <= now - self._within:
            self._times.popleft()
        if len(self._times) >= self._limit:
            return None
        mean: float = self._backoff * 2 ** len(self._times)
        self._times.append(now)
        return float(min(2 * mean * self._jitter(), LONGEST_BACKOFF))


class Backoff:
    """A wait by the system's clock that can be cut short.

    Args:
        loop: the loop of the task that waits.
        clock: the system's clock.
    """

    __slots__ = ("_clock", "_future")

    def __init__(self, loop: AbstractEventLoop, clock: Clock) -> None:
        self._clock = clock
        self._future: Future[None] = loop.create_future()

    async def wait(self, delay: float) -> None:
        """Wait for ``delay`` seconds, or until ``cut_short`` is called."""
        if delay <= 0:
            await asyncio.sleep(0)
            return
        timer = self._clock.call_at(self._clock.time() + delay, self.cut_short)
        try:
            await self._future
        finally:
            timer.cancel()

    def cut_short(self) -> None:
        """End the wait now."""
        if not self._future.done():
            self._future.set_result(None)
