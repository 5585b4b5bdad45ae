"""Messages that an actor sends to itself later."""

from typing import ClassVar

from actors.runtime.cell import ActorCell
from actors.runtime.envelope import Discarded, Envelope


class Timer:
    """A message to the actor itself, later. It ends with the instance that started it.

    Args:
        cell: the actor.
        envelope: the message.
        delay: seconds from now.
    """

    __slots__ = ("_cell", "_envelope", "_handle")
    survives_restart: ClassVar[bool] = False
    delays_drain: ClassVar[bool] = False

    def __init__(self, cell: ActorCell, envelope: Envelope, delay: float) -> None:
        self._cell = cell
        self._envelope = envelope
        cell.add_outstanding(self)
        clock = cell.core.clock
        self._handle = clock.call_at(clock.time() + delay, self._fire)

    def cancel(self) -> None:
        """Send nothing; the message does not arrive even if it is in the mailbox already."""
        self.abort()
        self._cell.remove_outstanding(self)

    def abort(self, error: Exception | None = None) -> None:  # noqa: ARG002, D102 - the contract is the base's
        self._envelope.message = Discarded()
        self._handle.cancel()

    def _fire(self) -> None:
        self._cell.remove_outstanding(self)
        self._cell.mailbox.put_internal(self._envelope)
