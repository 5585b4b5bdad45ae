"""Limits how often a line is logged."""

import time
from collections.abc import Callable
from typing import Final

LINE_INTERVAL: Final = 10.0  # seconds


class LineLimit:
    """Allows one line in each interval, and counts the lines that were left out.

    Args:
        interval: seconds between two lines.
        clock: seconds, monotonic.
    """

    __slots__ = ("_clock", "_due", "_interval", "_omitted")

    def __init__(self, interval: float = LINE_INTERVAL, clock: Callable[[], float] = time.monotonic) -> None:
        if interval <= 0:
            raise ValueError(f"interval must be positive, got {interval}")
        self._interval = interval
        self._clock = clock
        self._due = float("-inf")
        self._omitted = 0

    def take(self) -> int | None:
        """Return how many lines were left out since the last one; None where this one is to be left out, too."""
        now = self._clock()
        if now < self._due:
            self._omitted += 1
            return None
        omitted, self._omitted = self._omitted, 0
        self._due = now + self._interval
        return omitted
