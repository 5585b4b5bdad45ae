"""An actor's turn: what waits in its mailbox, one message after the other, to the handlers of its instance."""

import asyncio
from abc import ABC, abstractmethod
from asyncio import CancelledError, Task
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final, Protocol

from opentelemetry.context import attach, detach

from actors.runtime.behaviour import Behaviour
from actors.runtime.consumer import close_span, open_span
from actors.runtime.core import Core
from actors.runtime.crew import pause
from actors.runtime.envelope import SCOPE, Crash, Drained, Envelope, Scope, Stop, Void
from actors.runtime.handlers import Handler
from actors.runtime.mailbox import Mailbox
from actors.runtime.order import Deferred, Order
from protocol.errors import ActorFailed

BUDGET: Final = 64  # messages that an actor handles before it lets the others in the loop have a turn


class Identity(Protocol):
    """What an actor is called."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def destination(self) -> str:
        """What its spans say, with few different values: the family's name for a keyed actor."""

    @property
    def address(self) -> object:
        """What is equal for all refs to it."""


class Dispatcher(ABC):
    """What takes one actor's messages out of its mailbox, over all its instances, and to their handlers.

    Args:
        core: the system's collaborators.
        identity: what the actor is called.
        actor: the first instance.
        rested: is called with this each time the actor has become idle.

    Attributes:
        mailbox: where its messages come in.
        declared: the domain errors, which a handler raises as a reply.
        scope: what its handlers run on behalf of.
        context: where they run; nothing is inherited from whoever spawned it.
        task: in which task it has its turn; ``None`` between two of them.
        orders: what it has outstanding.
        halted: whether it is to end after the message at hand.
        ended: whether it has.
        life: the turns of its instance, and of the next one when that has failed.
    """

    def __init__(
        self, core: Core, identity: Identity, actor: Behaviour[Any], rested: Callable[[Any], object] | None
    ) -> None:
        self.core = core
        self.identity = identity
        self.name = identity.name
        self.mailbox = Mailbox(actor.capacity, actor.overflow, core.crew)
        self.declared = actor.domain_errors
        self.scope = Scope(core, identity.address, None)
        self.context = Context()
        self.context.run(SCOPE.set, self.scope)
        self.orders: set[Order] = set()
        self.rested = rested
        self.task: Task[Any] | None = None
        self.halted = False
        self.ended = False
        self.life = self._serve()
        self._serving: Behaviour[Any] | None = None

    async def _serve(self) -> None:  # noqa: C901, PLR0911, PLR0912, PLR0915 - see below
        """Let an instance handle what comes, until a handler fails or the actor is told to end.

        All of the common way of a message is in this one loop, since each call would cost it a twentieth.
        """
        actor = await self._begin()
        if actor is None:
            return
        core, scope, mailbox = self.core, self.scope, self.mailbox
        queue, commands = mailbox.queue, mailbox.commands
        budget = BUDGET
        while True:
            if commands:
                if await self._obeyed(commands.pop(0)):
                    return
                continue
            if not queue:
                scope.envelope = None
                mailbox.reader = self
                if self.rested is not None and not self.orders:
                    self.rested(self)
                    if self.ended:
                        return
                await pause()
                budget = BUDGET
                continue
            if not budget:
                budget = BUDGET
                await asyncio.sleep(0)
                continue
            budget -= 1
            envelope = queue.popleft()
            if mailbox.senders:
                mailbox.make_room()
            message, reply = envelope.message, envelope.reply
            try:
                handler = actor._handlers[type(message)]  # noqa: SLF001 - its type
            except KeyError:
                if await self._obeyed(envelope):
                    return
                continue
            if reply is not None and reply.done():
                core.expired += 1
                continue
            scope.envelope = envelope
            try:
                if envelope.context or (core.tracing and message.traced):
                    result = await self._traced(handler, actor, envelope)
                else:
                    result = await handler(actor, message)
            except self.declared as error:
                core.refuse(envelope, error)
            except Exception as error:  # noqa: BLE001 - supervision is where failures end
                await self._fail(envelope, error)
                return
            except BaseException as error:
                if isinstance(error, CancelledError) and not (self.halted or _cancelled_from_without()):
                    await self._fail(envelope, RuntimeError("a handler was cancelled from within"), error)
                    return
                await self._end()
                raise
            else:
                if reply is None:
                    continue
                if isinstance(result, Deferred):
                    if result.envelope is not envelope:
                        await self._fail(envelope, TypeError("a handler returned another message's reply"))
                        return
                    scope.envelope = None
                elif reply.done():
                    core.late_replies += 1
                else:
                    reply.set_result(result)

    async def _traced(self, handler: Handler, actor: Behaviour[Any], envelope: Envelope) -> object:
        """Handle a message within the context it came with, and within a span of its own if its class wants one."""
        message, core, span = envelope.message, self.core, None
        if core.tracing and message.traced:
            span = open_span(core.tracer, self.identity.destination, envelope, core.clock.time())
        token = attach(envelope.context)
        try:
            result = await handler(actor, message)
        except BaseException as error:
            if span is not None:
                close_span(span, error)
            raise
        finally:
            detach(token)
        if span is not None:
            if isinstance(result, Deferred) and result.envelope is envelope:
                result.hold(span)
            else:
                close_span(span, None)
        return result

    async def _obeyed(self, envelope: Envelope) -> bool:
        """Carry out a command of the runtime, and say whether that ended the instance."""
        command = envelope.message
        if isinstance(command, Crash):
            await self._restart(command.error)
            return True
        ends = isinstance(command, Stop)
        if isinstance(command, Drained):
            ends = not any(order.delays_drain for order in self.orders)
        elif not isinstance(command, Stop | Void):
            reason = f"{self.name} has no handler for {type(command).__qualname__}"
            self.core.undelivered(self.name, envelope, ActorFailed(reason), reason)
        if ends:
            await self._end()
        return ends

    async def _fail(self, envelope: Envelope, error: Exception, cause: BaseException | None = None) -> None:
        """Tell the asker of the message at hand that its handler has failed, and what becomes of the actor then."""
        failure = ActorFailed(f"{self.name} failed")
        failure.__cause__ = error
        error.__cause__ = cause or error.__cause__
        if envelope.reply is not None:
            self.core.refuse(envelope, failure)
        await self._restart(error)

    def leave_present(self) -> None:
        """Give the message at hand back to its asker, if it was cut off."""
        envelope, self.scope.envelope = self.scope.envelope, None
        if envelope is not None and envelope.pending:
            self.core.stopped(self.name, envelope)

    @abstractmethod
    async def _begin(self) -> Behaviour[Any] | None:
        """Make an instance ready for its messages; ``None`` if that failed, or the actor is to end."""

    @abstractmethod
    async def _restart(self, error: Exception) -> None:
        """Do away with the instance, which has failed, and have another one begin, or end the actor."""

    @abstractmethod
    async def _end(self) -> None:
        """End the actor."""


def _cancelled_from_without() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
