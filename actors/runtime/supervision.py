"""When to try again, and when to give up."""

import random
from collections import deque
from collections.abc import Callable
from typing import Final

LONGEST_BACKOFF: Final = 5.0  # seconds


class Restarts:
    """A budget of restarts in a sliding window.

    Args:
        limit: how many failures in the window are answered by a restart.
        within: the length of the window, in seconds.
        backoff: the mean wait before the first restart in a window, in seconds; it doubles with each further one.
        jitter: a number from 0 to 1, anew at each call, so that what failed together does not return together.
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

    def after(self, now: float) -> float | None:
        """Count a failure at ``now``: return the seconds to wait before the restart, or ``None`` to escalate."""
        while self._times and self._times[0] <= now - self._within:
            self._times.popleft()
        if len(self._times) >= self._limit:
            return None
        mean: float = self._backoff * 2 ** len(self._times)
        self._times.append(now)
        return float(min(2 * mean * self._jitter(), LONGEST_BACKOFF))
