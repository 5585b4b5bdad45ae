"""Bounds the log lines of calls whose credential is not valid: guessing does not fill the log."""

import time
from collections.abc import Callable
from typing import Final

MOST: Final = 60  # lines in an interval
INTERVAL: Final = 60.0  # seconds


class UnauthenticatedLines:
    """Decides which of these calls are logged one by one; the others are counted.

    Args:
        most: the most lines in an interval.
        clock: seconds, monotonic.
    """

    __slots__ = ("_begins", "_clock", "_count", "_most")

    def __init__(self, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._begins = clock()
        self._count = 0

    def shows(self, write: Callable[..., object] | None) -> bool:
        """Count a call; returns whether it has a line of its own.

        With the first call after an interval, ``write`` gets a line with the number of calls that had none.
        """
        now = self._clock()
        if now - self._begins >= INTERVAL:
            hidden, self._begins, self._count = self._count - self._most, now, 0
            if hidden > 0 and write is not None:
                write("authentication_failures_not_shown", count=hidden)
        self._count += 1
        return self._count <= self._most
