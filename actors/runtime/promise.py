"""A reply that another handler will give."""

from asyncio import CancelledError
from collections.abc import Callable
from typing import ClassVar, TypeVar

from actors.runtime.cell import Cell
from actors.runtime.envelope import Envelope, Reply
from actors.runtime.order import Deferred
from protocol.errors import ActorFailed

R = TypeVar("R")


class Promise(Deferred[R]):
    """The reply to the message at hand, to be given later by ``resolve`` or ``reject``, whichever comes first.

    A promise made for a tell has no asker: it may be resolved, which does nothing, and it is never abandoned. When the
    actor restarts or ends, the asker gets ``ActorFailed`` or ``ActorStopped``.

    Args:
        cell: the actor that gives it.
        envelope: the message at hand.
    """

    __slots__ = ("_cell", "_given")
    survives_restart: ClassVar[bool] = False
    delays_drain: ClassVar[bool] = False

    def __init__(self, cell: Cell, envelope: Envelope) -> None:
        super().__init__(envelope)
        self._cell = cell
        self._given = False
        cell.order(self)
        if envelope.reply is not None:
            envelope.reply.add_done_callback(self._left)

    @property
    def abandoned(self) -> bool:
        """Whether the asker has given up before the reply."""
        return not self._given and self.envelope.reply is not None and self.envelope.reply.done()

    def on_abandon(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` from the loop, outside any handler, once the asker has given up: it may post a message."""

        def left(_: Reply) -> None:
            if not self._given:
                callback()

        if self.envelope.reply is not None:
            self.envelope.reply.add_done_callback(left)

    def resolve(self, value: R) -> None:
        """Give the reply. If the asker has left it is counted as a late one; after the first time nothing happens."""
        if not self._given:
            self._cell.core.answer(self.envelope, value)
            self._give(None)

    def reject(self, error: Exception) -> None:
        """Let the ask raise ``error``, or ``ActorFailed`` from it where it is not one of the actor's domain errors."""
        if not self._given:
            failure = error
            if not isinstance(error, self._cell.declared):
                failure = ActorFailed(f"{self._cell.name} failed")
                failure.__cause__ = error
            self._cell.core.refuse(self.envelope, failure)
            self._give(error)

    def abort(self, error: Exception) -> None:  # noqa: D102 - the contract is the base's
        if self.envelope.pending:
            self._cell.core.refuse(self.envelope, error)
        self._give(error)

    def _give(self, error: Exception | None) -> None:
        self._given = True
        self._settle(error)
        self._cell.arrived(self)

    def _left(self, reply: Reply) -> None:
        if not self._given:
            self._settle(CancelledError() if reply.cancelled() else reply.exception())
            self._cell.arrived(self)
