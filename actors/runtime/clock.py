"""The clock of a system: the only source of its time and its timers, so that a test can replace it."""

from collections.abc import Callable
from typing import Protocol, TypeVarTuple

Ts = TypeVarTuple("Ts")


class Handle(Protocol):
    """A scheduled call that can be cancelled."""

    def cancel(self) -> None:
        """Cancel the call; after the call, or a second time, this does nothing."""


class Clock(Protocol):
    """A monotonic clock that schedules calls. An asyncio event loop is one."""

    def time(self) -> float:
        """Return the current time, in seconds since an arbitrary start."""

    def call_at(self, when: float, callback: Callable[[*Ts], object], /, *args: *Ts) -> Handle:
        """Call ``callback(*args)`` from the loop at the time ``when``, or soon if that has passed."""
