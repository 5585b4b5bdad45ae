"""Work beside an actor, on behalf of the message at hand: piped tasks, asks with a callback, deferred replies."""

from asyncio import CancelledError, Future, Task
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, ClassVar, Generic, TypeVar

from opentelemetry.context import attach

from actors.runtime.cell import ActorCell
from actors.runtime.core import exception_of, failure
from actors.runtime.envelope import NO_CONTEXT, SCOPE, CallbackFuture, Discarded, Envelope, Scope
from actors.runtime.outstanding import Deferred, Outstanding
from protocol.errors import RequestCancelled

M = TypeVar("M")
R = TypeVar("R")
T = TypeVar("T")


def start_work(
    cell: ActorCell, item: Outstanding, work: Coroutine[Any, Any, T], done: Callable[[Task[T]], object]
) -> Task[T]:
    """Run ``work`` in a task, on behalf of the message at hand: in its OpenTelemetry context, within its deadline.

    ``done`` is called with the ended task, and has to let ``Tasks.forget`` have it.

    Raises:
        ActorStopped: the actor has ended; the work is closed.
        Overloaded: too much is outstanding; the work is closed.
    """
    try:
        cell.add_outstanding(item)
    except BaseException:
        work.close()
        raise
    envelope = cell.scope.envelope
    context = Context()
    context.run(SCOPE.set, Scope(cell.core, None, envelope))
    if envelope is not None and envelope.context:
        context.run(attach, envelope.context)
    name = f"{cell.name}/{getattr(work, '__name__', 'work')}"
    try:
        return cell.core.tasks.start(work, name=name, context=context, done=done)
    except BaseException:
        cell.outstanding.discard(item)
        raise


def failure_of(future: Future[Any]) -> BaseException | None:
    """Return the exception of an ended task; ``RequestCancelled`` if it was cancelled from within."""
    if future.cancelled():
        return RequestCancelled("the work was cancelled from within")
    return future.exception()


class Callback(Generic[M]):
    """Something started by an actor whose outcome comes back to it as a message.

    Args:
        cell: the actor that started it.
        ok: makes the message from the result.
        err: makes the message from the exception.
    """

    __slots__ = ("_cell", "_delivered", "_dropped", "_err", "_future", "_ok", "_origin")
    survives_restart: ClassVar[bool] = False
    delays_drain: ClassVar[bool] = True
    _future: Future[Any]

    def __init__(self, cell: ActorCell, ok: Callable[[Any], M], err: Callable[[Exception], M]) -> None:
        self._cell = cell
        self._ok = ok
        self._err = err
        self._origin = cell.scope.envelope
        self._delivered: Envelope | None = None
        self._dropped = False

    def cancel(self) -> None:
        """Give it up: no message arrives from now on, even if it is in the mailbox already."""
        self.abort()
        self._cell.remove_outstanding(self)

    def abort(self, error: Exception | None = None) -> None:  # noqa: ARG002, D102 - the contract is the base's
        self._dropped = True
        if self._delivered is not None:
            self._delivered.message = Discarded()
        self._future.cancel()

    def _on_done(self, future: Future[Any]) -> None:
        error = failure_of(future)
        if self._dropped:
            return
        if error is None:
            self._deliver(self._ok, future.result())
        elif isinstance(error, Exception):
            self._deliver(self._err, error)
        self._cell.remove_outstanding(self)

    def _deliver(self, make: Callable[[Any], M], outcome: Any) -> None:  # noqa: ANN401 - typed by ``ask_then``, ``pipe``
        """Put the message that ``make`` makes from ``outcome`` into the actor's mailbox."""
        cell, origin = self._cell, self._origin
        try:
            message: Any = make(outcome)
            sent = cell.core.clock.time() if message.traced else 0.0
        except BaseException as error:  # the actor's own code, so the actor's failure
            if not isinstance(error, Exception | CancelledError):
                raise
            cell.crash(exception_of(error))
            return
        context, ask = (NO_CONTEXT, None) if origin is None else (origin.context, origin.open_ask())
        envelope = Envelope(message, context, sent, ask, internal=True)
        self._delivered = envelope
        cell.mailbox.put_internal(envelope)


class PipedTask(Callback[M]):
    """Work in a task whose result comes back to the actor as a message.

    Args:
        cell: the actor that started it.
        work: what to run.
        ok: makes the message from the result.
        err: makes the message from the exception; work that is cancelled from within fails with ``RequestCancelled``.
    """

    __slots__ = ()

    def __init__(
        self, cell: ActorCell, work: Coroutine[Any, Any, T], ok: Callable[[T], M], err: Callable[[Exception], M]
    ) -> None:
        super().__init__(cell, ok, err)
        self._future = start_work(cell, self, work, self._on_task_done)

    def _on_task_done(self, task: Task[Any]) -> None:
        self._cell.core.tasks.forget(task)
        self._on_done(task)


class PendingAsk(Callback[M]):
    """An ask whose reply comes back to the actor as a message, without a task.

    Args:
        cell: the actor that asks.
        ok: makes the message from the reply.
        err: makes the message from the exception.
    """

    __slots__ = ("_ask",)
    _ask: Envelope

    def attach(self, ask: Envelope, reply: CallbackFuture) -> None:
        """Take over an ask that has been sent.

        Raises:
            ActorStopped: the actor has ended; the ask is cancelled.
            Overloaded: too much is outstanding; the ask is cancelled.
        """
        self._ask = ask
        self._future = reply
        reply.on_done = self._on_reply
        try:
            self._cell.add_outstanding(self)
        except BaseException:
            self.abort()
            raise
        if reply.done():
            self._on_reply(reply)

    def _on_reply(self, reply: Future[Any]) -> None:
        self._cell.core.deadlines.discard(self._ask)
        self._on_done(reply)


class DeferredTask(Deferred[R]):
    """A reply that is the result of work in a task; the work is cancelled when its asker gives up.

    Args:
        cell: the actor that started it.
        envelope: the message at hand.
        work: what to run.
    """

    __slots__ = ("_cell", "_task")
    survives_restart: ClassVar[bool] = True
    delays_drain: ClassVar[bool] = True

    def __init__(self, cell: ActorCell, envelope: Envelope, work: Coroutine[Any, Any, R]) -> None:
        Deferred.__init__(self, envelope)
        self._cell = cell
        self._task = start_work(cell, self, work, self._on_done)
        if envelope.reply is not None:
            envelope.reply.add_done_callback(self._on_reply_done)

    def abort(self, error: Exception) -> None:  # noqa: D102 - the contract is the base's
        if self.envelope.pending:
            self._cell.core.refuse(self.envelope, error)
        self._task.cancel()

    def _on_reply_done(self, _: object) -> None:
        self._task.cancel()

    def _on_done(self, task: Task[R]) -> None:
        core, envelope = self._cell.core, self.envelope
        core.tasks.forget(task)
        if envelope.reply is not None:
            envelope.reply.remove_done_callback(self._on_reply_done)
        error = CancelledError() if envelope.abandoned and task.cancelled() else failure_of(task)
        if error is None:
            core.answer(envelope, task.result())
        elif isinstance(error, self._cell.declared):
            core.refuse(envelope, error)
        elif envelope.pending:
            core.refuse(envelope, failure(self._cell.name, error))
        elif isinstance(error, Exception):
            core.log.warning("work deferred by actor %s failed", self._cell.name, exc_info=error)
        self._close(error)
        self._cell.remove_outstanding(self)
