"""Time as a collaborator: a system tells and waits for the time only through its clock, so that a test can hold it."""

from collections.abc import Callable
from typing import Protocol, TypeVarTuple

Ts = TypeVarTuple("Ts")


class Handle(Protocol):
    """Something that will happen, unless it is cancelled first."""

    def cancel(self) -> None:
        """Make it not happen; after it happened, or was cancelled, this does nothing."""


class Clock(Protocol):
    """A monotonic time in seconds, and calls at a moment of it. An asyncio event loop is one."""

    def time(self) -> float:
        """Return the present moment, in seconds since an arbitrary start."""

    def call_at(self, when: float, callback: Callable[[*Ts], object], /, *args: *Ts) -> Handle:
        """Call ``callback(*args)`` from the loop at ``when``, or soon if that has passed."""
