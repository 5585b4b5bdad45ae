"""Retry budget of one provider: the share of calls that may be repeated ones, so that an outage causes no storm."""

from typing import Final

SHARE: Final = 0.2  # of the first calls
BURST: Final = 10.0  # repeated calls that are saved up at most


class RetryBudget:
    """A token bucket of repeated calls: a first call adds ``SHARE`` of one, and it begins full."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = BURST

    def count_first_call(self) -> None:
        """Add the share of a first call."""
        self._left = min(BURST, self._left + SHARE)

    def take(self) -> bool:
        """Take one repeated call out; False where there is none."""
        if self._left < 1:
            return False
        self._left -= 1
        return True
