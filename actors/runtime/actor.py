"""The base class of actors: the policies, the hooks, and what the runtime offers to handlers."""

from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Generic, TypeVar

from opentelemetry.context import Context, get_current

from actors.runtime.callbacks import Callback, DeferredTask, PendingAsk, PipedTask
from actors.runtime.cell import ActorCell
from actors.runtime.envelope import NO_CONTEXT, CallbackFuture, Envelope
from actors.runtime.handlers import Handlers, collect, messages_of
from actors.runtime.mailbox import Overflow
from actors.runtime.outstanding import Deferred
from actors.runtime.promise import Promise
from actors.runtime.ref import Ref
from actors.runtime.system import System
from actors.runtime.timers import PeriodicTimer, Timer
from protocol.errors import TidegateError
from protocol.message import Replies

M_contra = TypeVar("M_contra", contravariant=True)
Q_contra = TypeVar("Q_contra", contravariant=True)
R = TypeVar("R")
T = TypeVar("T")


class Actor(Generic[M_contra]):
    """State that only its own handlers touch, one message at a time.

    ::

        class UsageActor(Actor[GetUsage | Reset]):
            @handles(GetUsage)
            async def usage(self, message: GetUsage) -> Usage: ...

            @handles(Reset)
            async def reset(self, message: Reset) -> None: ...

    A class that names its messages has exactly one handler for each; otherwise the class statement raises
    ``TypeError``. A handler that raises one of the ``domain_errors`` has replied. Anything else is a failure: the asker
    gets ``ActorFailed``, and a fresh instance from the factory goes on with the same mailbox, without the message. A
    failed instance's timers, piped tasks and promises end with it; deferred work and watches go on.

    The actor's handlers and hooks all run in one task, which has the actor's name. Long work has no place in a handler,
    since it keeps every other message waiting: ``pipe`` or ``defer`` it.

    Attributes:
        capacity: how many messages from outside may wait in the mailbox.
        overflow: what happens to one that finds no room: ``wait``, ``reject`` or ``drop_oldest``.
        domain_errors: what a handler may raise as a reply: the asker gets it, and the actor lives on.
        restarts: how many failures within ``within`` seconds are answered by a restart; the next one escalates.
        within: the length of the sliding window, in seconds.
        backoff: the mean wait before the first restart in a window, in seconds; it doubles with each further one.
        lingers: whether an idle keyed actor stays for the family's ``idle`` seconds; one whose work comes once and not
            again is passivated at once.
        outstanding_limit: how many timers, piped tasks, asks, deferred replies and promises may be outstanding at once,
            and how many actors may be watched.
        ref: the actor's own address.
        system: the system it lives in. Both are set before ``started``, not yet in ``__init__``.
    """

    capacity: ClassVar[int] = 256
    overflow: ClassVar[Overflow] = "wait"
    domain_errors: ClassVar[tuple[type[Exception], ...]] = (TidegateError,)
    restarts: ClassVar[int] = 3
    within: ClassVar[float] = 10.0
    backoff: ClassVar[float] = 0.05
    lingers: ClassVar[bool] = True
    outstanding_limit: ClassVar[int] = 65_536

    ref: Ref[M_contra]
    system: System
    _cell: ActorCell

    _messages: ClassVar[Any] = None
    _handlers: Handlers = Handlers()
    _has_started_hook: ClassVar[bool] = False
    _has_stopped_hook: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:  # noqa: ANN401 - passed on
        super().__init_subclass__(**options)
        cls._messages = messages_of(cls, Actor)
        cls._handlers = collect(cls, cls._messages)
        cls._has_started_hook = cls.started is not Actor.started
        cls._has_stopped_hook = cls.stopped is not Actor.stopped

    async def started(self) -> None:
        """Run before the first message; a failure counts as one of the actor's."""

    async def stopped(self) -> None:
        """Run after the last message of an instance that was started, however it ended; also before a restart."""

    @property
    def context(self) -> Context:
        """The OpenTelemetry context of the message at hand, within its span if it has one; empty between messages."""
        envelope = self._cell.scope.envelope
        return NO_CONTEXT if envelope is None else envelope.context

    @property
    def deadline(self) -> float | None:
        """When the asker of the message at hand gives up, as a time of the system's clock; ``None`` for no asker."""
        envelope = self._cell.scope.envelope
        ask = None if envelope is None else envelope.open_ask()
        return None if ask is None else ask.deadline

    def pipe(
        self, work: Coroutine[Any, Any, T], ok: Callable[[T], M_contra], err: Callable[[Exception], M_contra]
    ) -> PipedTask[Any]:
        """Run ``work`` beside the actor; its result or its exception comes back as a message.

        The work runs on behalf of the message at hand: below its span, within its asker's deadline as long as the
        asker waits. The message is admitted also when the mailbox is full. After ``cancel`` no message comes. An ``ok``
        or ``err`` that raises fails the actor.

        Raises:
            Overloaded: the ``outstanding_limit`` is reached.
        """
        return PipedTask(self._cell, work, ok, err)

    def ask_then(
        self,
        ref: Ref[Q_contra],
        message: Replies[Q_contra, R],
        *,
        timeout: float,
        ok: Callable[[R], M_contra],
        err: Callable[[Exception], M_contra],
    ) -> Callback[Any]:
        """Ask another actor and go on; its reply, or what ``Ref.ask`` would raise, comes back as a message.

        The same as piping ``ref.ask(message)``, without a task for it. After ``cancel`` no message comes, and the other
        actor learns that nobody waits: work that it had deferred for this is cancelled.

        Raises:
            Overloaded: the ``outstanding_limit`` is reached.
        """
        reply = CallbackFuture(loop=self._cell.core.loop)
        reply.on_done = None
        try:
            ask = ref._ask_nowait(message, timeout, reply)  # noqa: SLF001 - refs are the runtime's own
        except Exception:  # noqa: BLE001 - the piped ask raises it again, and ``err`` gets it
            ask = None
        if ask is None:
            return self.pipe(ref.ask(message, timeout=timeout), ok, err)
        pending: PendingAsk[Any] = PendingAsk(self._cell, ok, err)
        pending.attach(ask, reply)
        return pending

    def defer(self, work: Coroutine[Any, Any, R]) -> Deferred[R]:
        """Reply with the result of ``work``, run beside the actor: return this from the handler.

        It runs as piped work does. When the asker gives up, the work is cancelled. An exception that is no domain error
        reaches the asker as ``ActorFailed``, and does not restart the actor: its state had no part in it.

        Raises:
            Overloaded: the ``outstanding_limit`` is reached.
        """
        try:
            envelope = self._current_envelope()
        except RuntimeError:
            work.close()
            raise
        return DeferredTask(self._cell, envelope, work)

    def promise(self, kind: Callable[..., Replies[Any, R]]) -> Promise[R]:  # noqa: ARG002 - types the promise
        """Reply to the message at hand, of class ``kind``, from another handler: return this from the present one.

        Raises:
            Overloaded: the ``outstanding_limit`` is reached.
        """
        return Promise(self._cell, self._current_envelope())

    def schedule(self, delay: float, message: M_contra) -> Timer:
        """Put ``message`` into the actor's own mailbox after ``delay`` seconds, whether or not there is room.

        Raises:
            Overloaded: the ``outstanding_limit`` is reached.
        """
        return Timer(self._cell, self._internal(message), delay)

    def every(self, interval: float, message: M_contra) -> Timer:
        """Put ``message`` into the actor's own mailbox every ``interval`` seconds, until ``cancel`` or a restart.

        The first one comes after one interval. Delays do not add up. At most one of the messages waits in the mailbox:
        a slow actor gets fewer of them. A keyed actor with such a timer is never idle.

        Raises:
            Overloaded: the ``outstanding_limit`` is reached.
            ValueError: ``interval`` is not positive.
        """
        return PeriodicTimer(self._cell, message, interval)

    def watch(self, ref: Ref[Any], then: M_contra) -> None:
        """Put ``then`` into the actor's own mailbox when ``ref`` has ended, or now if it is not alive.

        A later watch of the same actor replaces this one. A keyed actor ends when it is passivated, too.

        Raises:
            Overloaded: ``outstanding_limit`` actors are watched already.
        """
        self._cell.watch(ref._live_cell(), self._internal(then))  # noqa: SLF001 - refs are the runtime's own

    def _internal(self, message: object) -> Envelope:
        sent = self.system.clock.time() if getattr(message, "traced", False) else 0.0
        return Envelope(message, get_current(), sent, internal=True)

    def _current_envelope(self) -> Envelope:
        envelope = self._cell.scope.envelope
        if envelope is None:
            raise RuntimeError("there is no message at hand to reply to")
        return envelope

    def _bind(self, cell: Any, ref: Any, system: Any) -> None:  # noqa: ANN401 - as in ``Instance``
        self._cell, self.ref, self.system = cell, ref, system
