"""Ends connections whose clients take nothing of what was sent; a client that reads slowly is within the limit.

One timer looks at all connections, in small groups: an answer that is written needs no timer and no task of its own.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

STALL_LIMIT: Final = 30.0  # seconds in which a client has to take something, where there is something to take
LEAST_RATE: Final = 1024.0  # bytes a second: what a slow client has taken at once may last it so long
LONGEST_WAIT: Final = 120.0  # seconds, at most, that it lasts
ROUND: Final = 3.0  # seconds in which every connection is looked at once
GROUP: Final = 256  # connections looked at in one iteration of the loop

Later = Callable[[float, Callable[[], None]], asyncio.TimerHandle]


class Outgoing(Protocol):
    """What was written to one connection, and has yet to be taken by the client's system."""

    @property
    def waiting(self) -> int:
        """Bytes that are written and not taken: in this process, and in the kernel."""

    @property
    def taken(self) -> int | None:
        """Bytes that were taken since the connection was made; None where the system does not say."""


class Watched(Protocol):
    """A connection.

    Attributes:
        progress: what the last looks have seen; ``StallSweep`` keeps it.
    """

    progress: "Progress | None"

    @property
    def outgoing(self) -> Outgoing | None:
        """What was written to it; None for one that is not looked at."""

    def stalled(self, seconds: float) -> None:
        """End it: its client has taken nothing for so many seconds."""


class Progress:
    """What the last looks at a connection have seen: since when nothing was taken, and how long that may last.

    The system of a client that reads slowly takes nothing until a part of its buffer is free, then all of that at once:
    some 100 KB every 30 s for one that reads 3 KB a second. What is taken after a wait therefore gives the next wait
    more time. A system that fills its buffer takes without a wait, so a client that never reads gains nothing.
    """

    __slots__ = ("allowed", "since", "taken", "waiting")

    def __init__(self, since: float, taken: int | None, waiting: int) -> None:
        self.allowed = STALL_LIMIT
        self.since = since
        self.taken = taken
        self.waiting = waiting

    def note(self, now: float, taken: int | None, waiting: int) -> None:
        """Note that something was taken."""
        size = self.waiting - waiting if taken is None or self.taken is None else taken - self.taken
        waited = now - self.since > 2 * ROUND
        self.allowed = min(LONGEST_WAIT, max(STALL_LIMIT, size / LEAST_RATE)) if waited else STALL_LIMIT
        self.since, self.taken = now, taken


class StallSweep:
    r"""Looks at every connection once in ``ROUND`` seconds, and ends those that have stalled.

    ::

        nothing to take --bytes are written--> waiting --some are taken--> waiting, the time begins anew
              ^                                   |   \--STALL_LIMIT without any--> ended
              +-----------all are taken-----------+

    Args:
        connections: returns the open ones.
        later: calls a function after so many seconds; the loop's ``call_later``.
        clock: seconds, monotonic.
    """

    def __init__(self, connections: Callable[[], Sequence[Watched]], later: Later, clock: Callable[[], float]) -> None:
        self._connections = connections
        self._later = later
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._round: Sequence[Watched] = ()
        self._next = 0

    def start(self) -> None:
        """Begin to look."""
        self._timer = self._later(ROUND, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._round = ()

    def _look(self) -> None:
        """Look at the next group, and set the timer of the one after it."""
        if self._next >= len(self._round):
            self._round, self._next = self._connections(), 0
        now = self._clock()
        for connection in self._round[self._next : self._next + GROUP]:
            look_at(connection, now)
        self._next += GROUP
        if self._next >= len(self._round):
            self._round = ()
        groups = max(1, -(-len(self._round) // GROUP))
        self._timer = self._later(ROUND / groups, self._look)


def look_at(connection: Watched, now: float) -> None:
    """Note what the client of ``connection`` has taken; end the connection where that was nothing for too long."""
    outgoing, progress = connection.outgoing, connection.progress
    waiting = 0 if outgoing is None else outgoing.waiting
    if outgoing is None or not waiting:
        connection.progress = None
        return
    taken = outgoing.taken
    if progress is None:
        connection.progress = Progress(now, taken, waiting)
        return
    if taken != progress.taken or (taken is None and waiting < progress.waiting):
        progress.note(now, taken, waiting)
    elif now - progress.since >= progress.allowed:
        connection.stalled(now - progress.since)
    progress.waiting = waiting
