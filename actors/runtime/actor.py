"""What one writes: a class with handlers, and what the runtime offers to it."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from opentelemetry.context import Context, get_current

from actors.runtime.behaviour import Behaviour, M_contra
from actors.runtime.cell import Cell
from actors.runtime.envelope import NO_CONTEXT, Envelope
from actors.runtime.order import Deferred
from actors.runtime.promise import Promise
from actors.runtime.ref import Ref
from actors.runtime.system import System
from actors.runtime.timers import Timer
from actors.runtime.work import Deferral, Errand, Inquiry, Pipe
from protocol.errors import ActorError, ActorStopped, Overloaded
from protocol.message import Replies

Q_contra = TypeVar("Q_contra", contravariant=True)
R = TypeVar("R")
T = TypeVar("T")


class Actor(Behaviour[M_contra]):
    """State that only its own handlers touch, one message at a time.

    ::

        class UsageActor(Actor[GetUsage | Reset]):
            @handles(GetUsage)
            async def usage(self, message: GetUsage) -> Usage: ...

            @handles(Reset)
            async def reset(self, message: Reset) -> None: ...

    A class that names its messages has exactly one handler for each, or it is not made. A handler that raises one of
    the ``domain_errors`` has replied; anything else is a failure: the asker gets ``ActorFailed``, and a fresh instance
    from the factory goes on with the same mailbox, without the message. A failed instance's timers, pipes and promises
    end with it; deferred work and watches go on.

    Long work has no place in a handler, since it keeps every other message waiting: ``pipe`` or ``defer`` it.

    Attributes:
        ref: the actor's own address.
        system: the system it lives in. Both are set before ``started``, not yet in ``__init__``.
    """

    ref: Ref[M_contra]
    system: System
    _cell: Cell

    @property
    def context(self) -> Context:
        """The OpenTelemetry context of the message at hand, within its span if it has one; empty between messages."""
        envelope = self._cell.scope.envelope
        return NO_CONTEXT if envelope is None else envelope.context

    @property
    def deadline(self) -> float | None:
        """When the asker of the message at hand gives up, as a time of the system's clock; ``None`` for no asker."""
        envelope = self._cell.scope.envelope
        ask = None if envelope is None else envelope.binding()
        return None if ask is None else ask.deadline

    def pipe(
        self, work: Coroutine[Any, Any, T], ok: Callable[[T], M_contra], err: Callable[[Exception], M_contra]
    ) -> Pipe[Any]:
        """Run ``work`` beside the actor; its result or its exception comes back as a message.

        The work runs on behalf of the message at hand: below its span, within its asker's deadline as long as the
        asker waits. The message is let in also when the mailbox is full. After ``cancel`` nothing comes. An ``ok`` or
        ``err`` that raises fails the actor.

        Raises:
            Overloaded: ``orders`` are outstanding already.
        """
        return Pipe(self._cell, work, ok, err)

    def ask_then(
        self,
        ref: Ref[Q_contra],
        message: Replies[Q_contra, R],
        *,
        timeout: float,
        ok: Callable[[R], M_contra],
        err: Callable[[Exception], M_contra],
    ) -> Errand[Any]:
        """Ask another actor and go on; its reply, or what ``Ref.ask`` would raise, comes back as a message.

        The same as piping ``ref.ask(message)``, without a task for it. After ``cancel`` nothing comes, and the other
        actor learns that nobody waits: work that it had deferred for this is cancelled.

        Raises:
            Overloaded: ``orders`` are outstanding already.
        """
        inquiry = Inquiry(self._cell, ok, err)
        try:
            question = ref._inquire(message, timeout, inquiry)  # noqa: SLF001 - refs are the runtime's own
        except ActorError:
            question = None
        if question is None:
            return self.pipe(ref.ask(message, timeout=timeout), ok, err)
        inquiry.question = question
        try:
            self._cell.order(inquiry)
        except Overloaded:
            inquiry.abort(ActorStopped())
            raise
        return inquiry

    def defer(self, work: Coroutine[Any, Any, R]) -> Deferred[R]:
        """Reply with the result of ``work``, run beside the actor: return this from the handler.

        It runs as piped work does. When the asker gives up, the work is cancelled. An exception that is no domain error
        reaches the asker as ``ActorFailed``, and does not restart the actor: its state had no part in it.

        Raises:
            Overloaded: ``orders`` are outstanding already.
        """
        try:
            present = self._present()
        except RuntimeError:
            work.close()
            raise
        return Deferral(self._cell, present, work)

    def promise(self, kind: Callable[..., Replies[Any, R]]) -> Promise[R]:  # noqa: ARG002 - types the promise
        """Reply to the message at hand, of class ``kind``, from another handler: return this from the present one.

        Raises:
            Overloaded: ``orders`` are outstanding already.
        """
        return Promise(self._cell, self._present())

    def schedule(self, delay: float, message: M_contra) -> Timer:
        """Put ``message`` into one's own mailbox after ``delay`` seconds, whether or not there is room.

        Raises:
            Overloaded: ``orders`` are outstanding already.
        """
        return Timer(self._cell, self._own(message), delay)

    def watch(self, ref: Ref[Any], then: M_contra) -> None:
        """Put ``then`` into one's own mailbox when ``ref`` has ended, or now if it is not alive.

        A later watch of the same actor replaces this one. A keyed actor ends when it is passivated, too.

        Raises:
            Overloaded: ``orders`` actors are watched already.
        """
        self._cell.watch(ref._live(), self._own(then))  # noqa: SLF001 - refs are the runtime's own

    def _own(self, message: object) -> Envelope:
        sent = self.system.clock.time() if getattr(message, "traced", False) else 0.0
        return Envelope(message, get_current(), sent, own=True)

    def _present(self) -> Envelope:
        envelope = self._cell.scope.envelope
        if envelope is None:
            raise RuntimeError("there is no message at hand to reply to")
        return envelope

    def _bind(self, cell: Any, ref: Any, system: Any) -> None:  # noqa: ANN401 - as in the base
        self._cell, self.ref, self.system = cell, ref, system
