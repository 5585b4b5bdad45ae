"""Work beside an actor: in a task that the system owns, on behalf of the message at hand."""

from abc import ABC, abstractmethod
from asyncio import CancelledError, Task
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, ClassVar, Generic, TypeVar

from opentelemetry.context import attach

from actors.runtime.cell import Cell
from actors.runtime.envelope import NO_CONTEXT, SCOPE, Envelope, Scope, Void
from actors.runtime.order import Deferred, Order
from protocol.errors import ActorFailed, RequestCancelled

M = TypeVar("M")
R = TypeVar("R")
T = TypeVar("T")


def begin(cell: Cell, order: Order, work: Coroutine[Any, Any, T], done: Callable[[Task[T]], object]) -> Task[T]:
    """Start ``work`` on behalf of the message at hand: with its OpenTelemetry context, its deadline and its askers.

    ``done`` is called when it has ended.

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
    name = f"{cell.name}/{getattr(work, '__name__', 'work')}"
    return cell.core.tasks.start(work, name=name, context=context, done=done)


def outcome(task: Task[Any]) -> BaseException | None:
    """Return what a finished task failed with; one that was cancelled from within failed too."""
    if task.cancelled():
        return RequestCancelled("the work was cancelled from within")
    return task.exception()


class Errand(ABC, Generic[M]):
    """Something ordered whose outcome comes back to the actor as a message.

    Args:
        cell: the actor that ordered it.
        ok: makes the message from the result.
        err: makes the message from the exception.
    """

    __slots__ = ("_cell", "_err", "_news", "_ok", "_present")
    survives_restart: ClassVar[bool] = False
    delays_drain: ClassVar[bool] = True

    def __init__(self, cell: Cell, ok: Callable[[Any], M], err: Callable[[Exception], M]) -> None:
        self._cell = cell
        self._ok = ok
        self._err = err
        self._present = cell.scope.envelope
        self._news: Envelope | None = None

    def cancel(self) -> None:
        """Give it up; from here on no message arrives, even if it is in the mailbox already."""
        self._give_up()
        self._cell.arrived(self)

    def abort(self, error: Exception) -> None:  # noqa: ARG002, D102 - the contract is the base's
        self._give_up()

    def _give_up(self) -> None:
        if self._news is not None:
            self._news.message = Void()
        self._stop()

    @abstractmethod
    def _stop(self) -> None:
        """Give it up, whatever state it is in."""

    def _arrive(self, make: Callable[[Any], M], value: Any) -> None:  # noqa: ANN401 - typed by ``ask_then`` and ``pipe``
        """Let the actor have the message that ``make`` makes of ``value``."""
        cell, present = self._cell, self._present
        try:
            message: Any = make(value)
            sent = cell.core.clock.time() if message.traced else 0.0
        except Exception as mistake:  # noqa: BLE001 - the actor's own code, so the actor's failure
            cell.crash(mistake)
        else:
            if present is None:
                news = Envelope(message, NO_CONTEXT, sent, own=True)
            else:
                news = Envelope(message, present.context, sent, present.binding(), own=True)
            self._news = news
            cell.mailbox.admit(news)
        cell.arrived(self)


class Pipe(Errand[M]):
    """Work whose result comes back to the actor as a message.

    Args:
        cell: the actor that ordered it.
        work: what to do.
        ok: makes the message from the result.
        err: makes the message from the exception; work that is cancelled from within fails with ``RequestCancelled``.
    """

    __slots__ = ("_dropped", "_task")

    def __init__(
        self, cell: Cell, work: Coroutine[Any, Any, T], ok: Callable[[T], M], err: Callable[[Exception], M]
    ) -> None:
        super().__init__(cell, ok, err)
        self._dropped = False
        self._task = begin(cell, self, work, self._done)

    def _stop(self) -> None:
        self._dropped = True
        self._task.cancel()

    def _done(self, task: Task[Any]) -> None:
        error = outcome(task)
        if self._dropped:
            return
        if error is None:
            self._arrive(self._ok, task.result())
        elif isinstance(error, Exception):
            self._arrive(self._err, error)
        else:
            self._cell.arrived(self)


class Inquiry(Errand[M]):
    """An ask whose reply comes back to the actor as a message: a ``Pipe`` that needs no task.

    It is the ``Reply`` of its own question, so that an answer is in the actor's mailbox as soon as it is given.

    Args:
        cell: the actor that asks.
        ok: makes the message from the reply.
        err: makes the message from the exception.

    Attributes:
        question: the ask, from when it has been put into the other's mailbox until it is over.
    """

    __slots__ = ("_callbacks", "_cancelled", "_done", "_error", "question")

    def __init__(self, cell: Cell, ok: Callable[[Any], M], err: Callable[[Exception], M]) -> None:
        super().__init__(cell, ok, err)
        self.question: Envelope | None = None
        self._done = self._cancelled = False
        self._error: BaseException | None = None
        self._callbacks: list[tuple[Callable[[Any], object], Context]] | None = None

    def done(self) -> bool:
        """Whether there is a reply, or nobody waits for one any more."""
        return self._done

    def cancelled(self) -> bool:
        """Whether it was given up before the reply."""
        return self._cancelled

    def exception(self) -> BaseException | None:
        """Return what came in the place of a reply."""
        return self._error

    def set_result(self, value: Any) -> None:  # noqa: ANN401 - typed by ``ask_then``
        """Let the actor have the reply."""
        self._end()
        self._arrive(self._ok, value)

    def set_exception(self, error: Exception) -> None:
        """Let the actor know that there is no reply, and why."""
        self._error = error
        self._end()
        self._arrive(self._err, error)

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Call ``callback`` from the loop when there is a reply, or nobody waits for one any more."""
        if self._done:
            self._cell.core.loop.call_soon(callback, self)
        elif self._callbacks is None:
            self._callbacks = [(callback, copy_context())]
        else:
            self._callbacks.append((callback, copy_context()))

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        """Don't call it after all, and return how often it would have been."""
        callbacks = self._callbacks or []
        self._callbacks = [one for one in callbacks if one[0] != callback]
        return len(callbacks) - len(self._callbacks)

    def _stop(self) -> None:
        if not self._done:
            self._cancelled = True
            self._end()

    def _end(self) -> None:
        self._done = True
        core = self._cell.core
        if self.question is not None:
            core.deadlines.discard(self.question)
            self.question = None
        if self._callbacks:
            for callback, context in self._callbacks:
                core.loop.call_soon(callback, self, context=context)
            self._callbacks = None


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
        self._task = begin(cell, self, work, self._done)
        if envelope.reply is not None:
            envelope.reply.add_done_callback(self._left)

    def abort(self, error: Exception) -> None:  # noqa: D102 - the contract is the base's
        if self.envelope.pending:
            self._cell.core.refuse(self.envelope, error)
        self._task.cancel()

    def _left(self, _: object) -> None:
        self._task.cancel()

    def _done(self, task: Task[R]) -> None:
        cell, envelope = self._cell, self.envelope
        if envelope.reply is not None:
            envelope.reply.remove_done_callback(self._left)
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
