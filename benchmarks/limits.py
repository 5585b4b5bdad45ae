"""How many sockets one process may have here."""

import resource
from typing import Final

SPARE: Final = 200  # descriptors that a process needs for everything else


def affordable_sockets(wanted: int) -> int:
    """Return ``wanted``, or what the limit on open files leaves; the limit is raised as far as is allowed.

    Children inherit the limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = wanted + SPARE
    if soft < need and soft != resource.RLIM_INFINITY:
        soft = need if hard == resource.RLIM_INFINITY else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - SPARE))
