"""A reply that another handler gives."""

from asyncio import CancelledError, Future
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from actors.runtime.cell import ActorCell
from actors.runtime.core import failure
from actors.runtime.envelope import Envelope
from actors.runtime.outstanding import Deferred

R = TypeVar("R")


class Promise(Deferred[R]):
    """The reply to the message at hand, to be given later by ``resolve`` or ``reject``, whichever comes first.

    ::

        pending ──► resolved | rejected | abandoned (the asker has left) | aborted (the actor restarts or ends)

    A promise made for a tell has no asker: resolving it does nothing, and it is never abandoned. When the actor
    restarts or ends, the asker gets ``ActorFailed`` or ``ActorStopped``.

    Args:
        cell: the actor that gives it.
        envelope: the message at hand.
    """

    __slots__ = ("_cell", "_given")
    survives_restart: ClassVar[bool] = False
    delays_drain: ClassVar[bool] = False

    def __init__(self, cell: ActorCell, envelope: Envelope) -> None:
        Deferred.__init__(self, envelope)
        self._cell = cell
        self._given = False
        cell.add_outstanding(self)
        if envelope.reply is not None:
            envelope.reply.add_done_callback(self._on_reply_done)

    @property
    def abandoned(self) -> bool:
        """Whether the asker has given up before the reply."""
        return not self._given and self.envelope.reply is not None and self.envelope.reply.done()

    def on_abandon(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` from the loop, outside of handlers, when the asker has given up: it may post a message."""

        def on_reply_done(_: Future[Any]) -> None:
            if not self._given:
                callback()

        if self.envelope.reply is not None:
            self.envelope.reply.add_done_callback(on_reply_done)

    def resolve(self, value: R) -> None:
        """Give the reply; it counts as a late one if the asker has left. Only the first call has an effect."""
        if not self._given:
            self._cell.core.answer(self.envelope, value)
            self._end(None)

    def reject(self, error: Exception) -> None:
        """Let the ask raise ``error``, or ``ActorFailed`` from it where it is not one of the actor's domain errors."""
        if not self._given:
            refusal = error if isinstance(error, self._cell.declared) else failure(self._cell.name, error)
            self._cell.core.refuse(self.envelope, refusal)
            self._end(error)

    def abort(self, error: Exception) -> None:  # noqa: D102 - the contract is the base's
        if self.envelope.pending:
            self._cell.core.refuse(self.envelope, error)
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        self._given = True
        self._close(error)
        self._cell.remove_outstanding(self)

    def _on_reply_done(self, reply: Future[Any]) -> None:
        if not self._given:
            self._close(CancelledError() if reply.cancelled() else reply.exception())
            self._cell.remove_outstanding(self)
