"""What an actor has started and what has not ended yet: timers, piped tasks, deferred replies, promises."""

from collections.abc import Callable
from typing import ClassVar, Generic, Protocol, TypeVar

from actors.runtime.envelope import Envelope

R_co = TypeVar("R_co", covariant=True)


class Outstanding(Protocol):
    """Something that an actor has started, and that ends with the actor at the latest.

    Attributes:
        survives_restart: whether it goes on when a fresh instance replaces the failed one. What reports to the state of
            the failed instance does not; what owes a reply to an asker does.
        delays_drain: whether a draining actor waits for it.
    """

    survives_restart: ClassVar[bool]
    delays_drain: ClassVar[bool]

    def abort(self, error: Exception) -> None:
        """End it, because its actor has ended or restarts; an asker that waits for it gets ``error``."""


class Deferred(Generic[R_co]):
    """A reply that comes later: a handler returns it in the place of an ``R``.

    Attributes:
        envelope: the message that it answers.
    """

    __slots__ = ("_closed", "_error", "_on_close", "envelope")

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self._closed = False
        self._error: BaseException | None = None
        self._on_close: Callable[[BaseException | None], object] | None = None

    def on_close(self, callback: Callable[[BaseException | None], object]) -> None:
        """Call ``callback`` with the failure or ``None``, once there is a reply or the asker has left."""
        if self._closed:
            callback(self._error)
        else:
            self._on_close = callback

    def _close(self, error: BaseException | None) -> None:
        if self._closed:
            return
        self._closed = True
        self._error = error
        if self._on_close is not None:
            self._on_close(error)
            self._on_close = None
