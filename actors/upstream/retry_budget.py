"""How many calls to a provider may be repeated ones, so that an outage is not answered by a storm."""

from typing import Final

SHARE: Final = 0.2  # of the first calls
BURST: Final = 10.0  # repeated calls that are saved up at most


class RetryBudget:
    """A bucket of repeated calls: a first call adds ``SHARE`` of one, and it begins full."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = BURST

    def called(self) -> None:
        """Count a first call."""
        self._left = min(BURST, self._left + SHARE)

    def take(self) -> bool:
        """Take a repeated call out, where there is one."""
        if self._left < 1:
            return False
        self._left -= 1
        return True
