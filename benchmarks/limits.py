"""The limit of sockets in one process."""

import resource
from typing import Final

SPARE: Final = 200  # descriptors for everything else


def affordable_sockets(wanted: int) -> int:
    """Return ``wanted``, or the number that the limit on open files allows, after raising the limit as far as possible.

    Children inherit the limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = wanted + SPARE
    if soft < need and soft != resource.RLIM_INFINITY:
        soft = need if hard == resource.RLIM_INFINITY else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - SPARE))
