"""Descriptors: how many the process may open, how many it has open, and the share that is kept for running requests."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

if sys.platform != "win32":
    import resource

UNLIMITED: Final = 1 << 20  # descriptors, where the system names no limit
NO_LIMIT: Final = 1 << 62  # at least this stands for none
OPEN_MAX: Final = 10_240  # the most that macOS allows where the hard limit says that there is none
RESERVED: Final = 0.25  # of the limit, kept for the upstream connections and the files of running requests
LEAST_RESERVED: Final = 32
FOLDERS: Final = ("/proc/self/fd", "/dev/fd")
FEW: Final = 0.5  # of the reserve; below it health is degraded


class Descriptors(msgspec.Struct, frozen=True):
    """The limit of this process.

    Attributes:
        limit: descriptors that may be open at once.
    """

    limit: int

    @property
    def reserved(self) -> int:
        """Descriptors that no client's connection takes."""
        return min(self.limit // 2, max(LEAST_RESERVED, int(self.limit * RESERVED)))

    @property
    def ceiling(self) -> int:
        """The lowest descriptor of the reserve: the system gives the lowest free number, so a lower one is outside."""
        return self.limit - self.reserved

    def left(self) -> int | None:
        """Return how many may still be opened; None where the system does not say."""
        used = _open_descriptors()
        return None if used is None else max(0, self.limit - used)

    def few(self, left: int | None) -> bool:
        """Whether running requests may soon find none."""
        return left is not None and left < self.reserved * FEW


def read_descriptors() -> Descriptors:
    """Return the present limit."""
    if sys.platform == "win32":
        return Descriptors(UNLIMITED)
    return Descriptors(_number(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))


def raise_limit() -> tuple[int, int]:
    """Raise the soft limit to the hard one, and return it before and after. This concerns the whole process."""
    if sys.platform == "win32":
        return UNLIMITED, UNLIMITED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, OPEN_MAX):
        if soft in (hard, resource.RLIM_INFINITY) or 0 <= wanted <= soft:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):  # macOS names no hard limit and accepts none
            continue
        break
    return _number(soft), read_descriptors().limit


def _number(limit: int) -> int:
    """Return a limit as a number: "none" is negative, or the largest number there is."""
    return limit if 0 <= limit < NO_LIMIT else UNLIMITED


def _open_descriptors() -> int | None:
    if sys.platform == "linux":
        with suppress(OSError):
            if size := Path(FOLDERS[0]).stat().st_size:  # the number of entries, since Linux 6.2
                return size
    for folder in FOLDERS:
        with suppress(OSError), os.scandir(folder) as entries:
            return sum(1 for _ in entries) - 1  # less the one that lists
    return None
