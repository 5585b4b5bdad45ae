"""When to restart a failed actor, and when to give it up."""

import random
from collections import deque
from collections.abc import Callable
from typing import Final

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
        mean: float = self._backoff * 2 ** min(len(self._times), 64)
        self._times.append(now)
        return float(min(2 * mean * self._jitter(), LONGEST_BACKOFF))
