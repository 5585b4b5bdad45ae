"""The C allocator's threshold, fixed: memory of large bodies goes back to the system as soon as it is free."""

import ctypes
from typing import Final

M_MMAP_THRESHOLD: Final = -3  # of glibc's mallopt
LARGE_BYTES: Final = 1024 * 1024  # of an allocation that gets pages of its own


def tune_allocator() -> bool:
    """Give each allocation of ``LARGE_BYTES`` or more pages of its own; returns whether the C library could.

    glibc raises this threshold by itself, up to 32 MiB, whenever such an allocation is freed. The texts of large bodies
    then lie among others in the heaps of its threads: twice as much memory was taken as requests held. This concerns
    the whole process, so only ``serve`` does it. Other C libraries have no such call, and no such habit.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE_BYTES))
