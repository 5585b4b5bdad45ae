"""Messages that an actor sends to itself later: once, or again and again."""

import math
from typing import ClassVar

from actors.runtime.cell import ActorCell
from actors.runtime.envelope import NO_CONTEXT, Discarded, Envelope


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
        clock = cell.core.clock
        due = clock.time() + delay
        if math.isnan(due):
            raise ValueError("delay must be a number of seconds")
        cell.add_outstanding(self)
        self._handle = clock.call_at(due, self._fire)

    def cancel(self) -> None:
        """Send nothing; the message does not arrive even if it is in the mailbox already."""
        self.abort()
        self._cell.remove_outstanding(self)

    def abort(self, error: Exception | None = None) -> None:  # noqa: ARG002, D102 - the contract is the base's
        self._envelope.message = Discarded()
        self._handle.cancel()

    def _fire(self) -> None:
        self._handle.cancel()  # it holds this method, and so the timer
        self._cell.mailbox.put_internal(self._envelope)
        self._cell.remove_outstanding(self)


class PeriodicTimer(Timer):
    """A message to the actor itself every ``interval`` seconds, until it is cancelled or its instance ends.

    The periods are counted from the start, so that delays do not add up. While one message waits in the mailbox no
    other is sent, and a period that the loop was too busy for is skipped.

    Args:
        cell: the actor.
        message: the message.
        interval: seconds between two messages, and before the first one.
    """

    __slots__ = ("_due", "_interval", "_message")

    def __init__(self, cell: ActorCell, message: object, interval: float) -> None:
        if not 0 < interval < math.inf:
            raise ValueError(f"interval must be a positive number of seconds, got {interval}")
        self._message = message
        self._interval = interval
        self._due = cell.core.clock.time() + interval
        super().__init__(cell, Envelope(Discarded(), NO_CONTEXT), interval)

    def _fire(self) -> None:
        mailbox, now = self._cell.mailbox, self._cell.core.clock.time()
        if self._envelope not in mailbox.messages:
            self._envelope = Envelope(self._message, NO_CONTEXT, now, internal=True)
            mailbox.put_internal(self._envelope)
        self._due += self._interval * (1 + max(0.0, now - self._due) // self._interval)
        self._handle = self._cell.core.clock.call_at(self._due, self._fire)
