"""A message to oneself, later."""

from typing import ClassVar

from actors.runtime.cell import Cell
from actors.runtime.envelope import Envelope, Void


class Timer:
    """A message that comes in through the mailbox when its time has come; it does not outlive its instance.

    Args:
        cell: the actor that ordered it.
        envelope: the message.
        delay: seconds from now.
    """

    __slots__ = ("_cell", "_envelope", "_handle")
    survives_restart: ClassVar[bool] = False
    delays_drain: ClassVar[bool] = False

    def __init__(self, cell: Cell, envelope: Envelope, delay: float) -> None:
        self._cell = cell
        self._envelope = envelope
        cell.order(self)
        clock = cell.core.clock
        self._handle = clock.call_at(clock.time() + delay, self._fire)

    def cancel(self) -> None:
        """Make it not happen; from here on the message does not arrive, even if it is in the mailbox already."""
        self._envelope.message = Void()
        self._handle.cancel()
        self._cell.arrived(self)

    def abort(self, error: Exception) -> None:  # noqa: ARG002, D102 - the contract is the base's
        self._envelope.message = Void()
        self._handle.cancel()

    def _fire(self) -> None:
        self._cell.arrived(self)
        self._cell.mailbox.admit(self._envelope)
