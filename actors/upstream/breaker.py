"""Circuit breaker of one target."""

import logging
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from actors.runtime import Clock
from protocol.gateway import BreakerState

IN_A_ROW: Final = 10  # failures
WINDOW: Final = 50  # calls that are remembered
FAILURE_SHARE: Final = 0.8  # of a full window
OPEN_SECONDS: Final = 10.0

_log = logging.getLogger("tidegate.gateway")


class Breaker:
    """Opens when calls fail ``IN_A_ROW`` times, or for a ``FAILURE_SHARE`` of the last ``WINDOW`` calls.

    ::

        closed ──failures──► open ──OPEN_SECONDS──► half-open ──good probe──► closed
                              ▲                        │
                              └───────bad probe────────┘

    A half-open breaker lets one call through, the probe. Each call enters, and leaves with the generation that
    ``enter`` returned: a call that began before the last transition changes nothing. Opening and closing are logged.

    Args:
        name: the target's, as ``provider/model``.
        clock: the time.

    Attributes:
        name: as given.
    """

    __slots__ = ("_clock", "_generation", "_in_a_row", "_open_until", "_probing", "_recent", "name")

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self._clock = clock
        self._generation = 0
        self._open_until: float | None = None
        self._probing = False
        self._in_a_row = 0
        self._recent: deque[bool] = deque(maxlen=WINDOW)

    @property
    def wait(self) -> float | None:
        """Seconds until a call may be let through: 0 for now; None while a probe is under way."""
        if self._open_until is None:
            return 0.0
        return None if self._probing else max(0.0, self._open_until - self._clock.time())

    @property
    def state(self) -> BreakerState:
        """``open`` while no call is let through, ``half-open`` once a probe may be, or is under way."""
        if self._open_until is None:
            return "closed"
        return "open" if self.wait else "half-open"

    def enter(self) -> int | None:
        """Let a call through and return the current generation; None where the breaker is open."""
        if self._open_until is None:
            return self._generation
        if self.wait != 0.0:
            return None
        self._probing = True
        self._generation += 1
        self._tell(logging.DEBUG, "%s gets a probe: its breaker is half-open", "open", "half-open")
        return self._generation

    def leave(self, generation: int, *, good: bool | None) -> None:
        """Count the end of a call.

        Args:
            generation: what ``enter`` returned.
            good: whether the call succeeded; None for one that says nothing about the target, as a cancelled one.
        """
        if generation != self._generation:
            return
        if self._probing:
            self._probing = False
            self._generation += 1
            if good:
                self._close()
            elif good is False:
                self._open_until = self._clock.time() + OPEN_SECONDS
                self._tell(logging.DEBUG, "%s still fails: its breaker stays open", "half-open", "open")
        elif good is not None:
            self._count(good=good)

    def _count(self, *, good: bool) -> None:
        self._recent.append(good)
        self._in_a_row = 0 if good else self._in_a_row + 1
        if good or (self._in_a_row < IN_A_ROW and self._failure_share() < FAILURE_SHARE):
            return
        self._generation += 1
        self._open_until = self._clock.time() + OPEN_SECONDS
        said = f"%s keeps failing: its breaker is open, with one probe every {OPEN_SECONDS:g} s"
        self._tell(logging.WARNING, said, "closed", "open")

    def _failure_share(self) -> float:
        """Return the share of failures in a full window, otherwise 0."""
        return self._recent.count(False) / WINDOW if len(self._recent) == WINDOW else 0.0

    def _close(self) -> None:
        self._open_until = None
        self._tell(logging.INFO, "%s answers again: its breaker is closed", "half-open", "closed")
        self._in_a_row = 0
        self._recent.clear()

    def _tell(self, level: int, message: str, before: BreakerState, after: BreakerState) -> None:
        """Log a transition."""
        if not _log.isEnabledFor(level):
            return
        provider, _, model = self.name.partition("/")
        fields: dict[str, Any] = {"provider": provider, "model": model, "from": before, "to": after}
        fields["failures"] = max(self._in_a_row, self._recent.count(False))
        fields["until"] = None
        if self._open_until is not None and after == "open":
            seconds = self._open_until - self._clock.time()
            fields["until"] = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
        _log.log(level, message, self.name, extra={"event": "breaker_changed", "fields": fields})
