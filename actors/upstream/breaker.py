"""Whether a target is worth asking: after a row of failures it is left alone for a while."""

import logging
from collections import deque
from typing import Final

from actors.runtime import Clock
from protocol.gateway import BreakerState

IN_A_ROW: Final = 10  # failures
WINDOW: Final = 50  # calls that are remembered
SHARE: Final = 0.8  # of a full window
REST: Final = 10.0  # seconds

_log = logging.getLogger("tidegate.gateway")


class Breaker:
    """Opens when calls fail ``IN_A_ROW`` times, or for a ``SHARE`` of the last ``WINDOW``.

    ::

        closed ─► open ─(after REST)─► half-open: one probe ─► closed, or open again

    Each call enters, and leaves with the ticket it got; one that began before the last transition changes nothing.
    Losing a target and having it again are logged, and nothing between.

    Args:
        name: the target's, for the log.
        clock: the time.
    """

    __slots__ = ("_clock", "_in_a_row", "_name", "_probing", "_recent", "_ticket", "_until")

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._ticket = 0
        self._until: float | None = None
        self._probing = False
        self._in_a_row = 0
        self._recent: deque[bool] = deque(maxlen=WINDOW)

    @property
    def wait(self) -> float | None:
        """Seconds until a call may be let through: 0 for now; None while a probe is under way."""
        if self._until is None:
            return 0.0
        return None if self._probing else max(0.0, self._until - self._clock.time())

    @property
    def state(self) -> BreakerState:
        """``open`` while nobody is let through, ``half-open`` once a probe may be, or is under way."""
        if self._until is None:
            return "closed"
        return "open" if self.wait else "half-open"

    def enter(self) -> int | None:
        """Let a call through, and return its ticket; None for one that is kept back."""
        if self._until is None:
            return self._ticket
        if self.wait != 0.0:
            return None
        self._probing = True
        self._ticket += 1
        return self._ticket

    def leave(self, ticket: int, *, good: bool | None) -> None:
        """Count a call's end: ``good``, or not; None for one that says nothing about the target, as a cancelled one."""
        if ticket != self._ticket:
            return
        if self._probing:
            self._probing = False
            self._ticket += 1
            if good:
                self._close()
            elif good is False:
                self._until = self._clock.time() + REST
        elif good is not None:
            self._count(good=good)

    def _count(self, *, good: bool) -> None:
        self._recent.append(good)
        self._in_a_row = 0 if good else self._in_a_row + 1
        if good or (self._in_a_row < IN_A_ROW and self._share() < SHARE):
            return
        self._ticket += 1
        self._until = self._clock.time() + REST
        _log.warning("%s fails: it is left alone, but for a call every %g s", self._name, REST)

    def _share(self) -> float:
        """Return the share of failures in a full window, otherwise 0."""
        return self._recent.count(False) / WINDOW if len(self._recent) == WINDOW else 0.0

    def _close(self) -> None:
        self._until = None
        self._in_a_row = 0
        self._recent.clear()
        _log.info("%s answers again", self._name)
