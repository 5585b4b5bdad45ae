"""Work beside an actor: in a task that the system owns, on behalf of the message at hand."""

from abc import abstractmethod
from asyncio import CancelledError, Future, Task
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, ClassVar, Generic, TypeVar

from opentelemetry.context import attach

from actors.runtime.cell import Cell
from actors.runtime.envelope import NO_CONTEXT, SCOPE, Envelope, Scope, Void
from actors.runtime.order import Deferred, Order
from protocol.errors import ActorFailed, RequestCancelled

M = TypeVar("M")
R = TypeVar("R")
T = TypeVar("T")


def begin(cell: Cell, order: Order, work: Coroutine[Any, Any, T]) -> Task[T]:
    """Start ``work`` on behalf of the message at hand: with its OpenTelemetry context, its deadline and its askers.

    Raises:
        ActorStopped: the actor has ended; the work is closed.
        Overloaded: too much is outstanding; the work is closed.
    """
    try:
        cell.order(order)
    except BaseException:
        work.close()
        raise
    envelope = cell.scope.envelope
    context = Context()
    context.run(SCOPE.set, Scope(cell.core, None, envelope))
    if envelope is not None and envelope.context:
        context.run(attach, envelope.context)
    return cell.core.tasks.start(work, name=f"{cell.name}/{getattr(work, '__name__', 'work')}", context=context)


def outcome(task: Task[Any]) -> BaseException | None:
    """Return what a finished task failed with; one that was cancelled from within failed too."""
    if task.cancelled():
        return RequestCancelled("the work was cancelled from within")
    return task.exception()


class Errand(Order, Generic[M]):
    """Something ordered whose outcome comes back to the actor as a message.

    Args:
        cell: the actor that ordered it.
        ok: makes the message from the result.
        err: makes the message from the exception.
    """

    __slots__ = ("_cell", "_envelope", "_err", "_ok")
    delays_drain: ClassVar[bool] = True

    def __init__(self, cell: Cell, ok: Callable[[Any], M], err: Callable[[Exception], M]) -> None:
        self._cell = cell
        self._ok = ok
        self._err = err
        present = cell.scope.envelope
        self._envelope = Envelope(
            Void(),
            NO_CONTEXT if present is None else present.context,
            cause=None if present is None else present.binding(),
            own=True,
        )

    def cancel(self) -> None:
        """Give it up; from here on no message arrives, even if it is in the mailbox already."""
        self._stop()
        self._cell.arrived(self)

    def abort(self, error: Exception) -> None:  # noqa: ARG002, D102 - the contract is the base's
        self._stop()

    @abstractmethod
    def _stop(self) -> None:
        """Give it up, whatever state it is in."""

    def _arrive(self, source: Future[Any], error: BaseException | None) -> None:
        try:
            if error is None:
                message = self._ok(source.result())
            elif isinstance(error, Exception):
                message = self._err(error)
            else:
                return
        except Exception as mistake:  # noqa: BLE001 - the actor's own code, so the actor's failure
            self._cell.crash(mistake)
        else:
            envelope = self._envelope
            envelope.message = message
            if envelope.cause is not None:
                envelope.cause = envelope.cause.binding()
            if getattr(message, "traced", False):
                envelope.sent = self._cell.core.clock.time()
            self._cell.mailbox.admit(envelope)
        finally:
            self._cell.arrived(self)


class Pipe(Errand[M]):
    """Work whose result comes back to the actor as a message.

    Args:
        cell: the actor that ordered it.
        work: what to do.
        ok: makes the message from the result.
        err: makes the message from the exception; work that is cancelled from within fails with ``RequestCancelled``.
    """

    __slots__ = ("_task",)

    def __init__(
        self, cell: Cell, work: Coroutine[Any, Any, T], ok: Callable[[T], M], err: Callable[[Exception], M]
    ) -> None:
        super().__init__(cell, ok, err)
        self._task = begin(cell, self, work)
        self._task.add_done_callback(self._done)

    def _stop(self) -> None:
        self._task.remove_done_callback(self._done)
        self._task.add_done_callback(_heed)
        self._task.cancel()
        self._envelope.message = Void()

    def _done(self, task: Task[Any]) -> None:
        self._arrive(task, outcome(task))


class Inquiry(Errand[M]):
    """An ask whose reply comes back to the actor as a message: a ``Pipe`` that needs no task.

    Args:
        cell: the actor that asks.
        question: the ask, with its reply's future; it has been put into the other's mailbox.
        ok: makes the message from the reply.
        err: makes the message from the exception.
    """

    __slots__ = ("_question",)

    def __init__(self, cell: Cell, question: Envelope, ok: Callable[[Any], M], err: Callable[[Exception], M]) -> None:
        super().__init__(cell, ok, err)
        self._question = question
        reply(question).add_done_callback(self._done)

    def _stop(self) -> None:
        future = reply(self._question)
        future.remove_done_callback(self._done)
        self._cell.core.deadlines.discard(self._question)
        if not future.cancel() and not future.cancelled():
            future.exception()
        self._envelope.message = Void()

    def _done(self, future: Future[Any]) -> None:
        self._cell.core.deadlines.discard(self._question)
        error = RequestCancelled("the ask was cancelled") if future.cancelled() else future.exception()
        self._arrive(future, error)


def reply(question: Envelope) -> Future[Any]:
    """Return where the reply to an ask comes in."""
    if question.reply is None:
        raise TypeError("a tell has no reply")
    return question.reply


class Deferral(Deferred[R]):
    """A reply that is the result of work; the work is cancelled when its asker gives up.

    Args:
        cell: the actor that ordered it.
        envelope: the message at hand.
        work: what to do.
    """

    __slots__ = ("_cell", "_task")
    survives_restart: ClassVar[bool] = True
    delays_drain: ClassVar[bool] = True

    def __init__(self, cell: Cell, envelope: Envelope, work: Coroutine[Any, Any, R]) -> None:
        super().__init__(envelope)
        self._cell = cell
        self._task = begin(cell, self, work)
        self._task.add_done_callback(self._done)
        if envelope.reply is not None:
            envelope.reply.add_done_callback(self._left)

    def abort(self, error: Exception) -> None:  # noqa: D102 - the contract is the base's
        if self.envelope.pending:
            self._cell.core.refuse(self.envelope, error)
        self._task.cancel()

    def _left(self, _: Future[Any]) -> None:
        self._task.cancel()

    def _done(self, task: Task[R]) -> None:
        cell, envelope = self._cell, self.envelope
        error = CancelledError() if envelope.given_up and task.cancelled() else outcome(task)
        if error is None:
            cell.core.answer(envelope, task.result())
        elif isinstance(error, cell.declared):
            cell.core.refuse(envelope, error)
        elif isinstance(error, Exception):
            self._fault(error)
        self._settle(error)
        cell.arrived(self)

    def _fault(self, error: Exception) -> None:
        failure = ActorFailed(f"{self._cell.name} failed")
        failure.__cause__ = error
        if self.envelope.pending:
            self._cell.core.refuse(self.envelope, failure)
        else:
            self._cell.core.log.warning("work deferred by actor %s failed", self._cell.name, exc_info=error)


def _heed(task: Task[Any]) -> None:
    """Take note of a failure that nobody wants to know of any more."""
    if not task.cancelled():
        task.exception()
