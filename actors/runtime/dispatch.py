"""Serving a mailbox: one message after the other to the handlers of one instance."""

import asyncio
from asyncio import CancelledError
from collections.abc import Callable
from typing import Any, Final

import msgspec
from opentelemetry.context import attach, detach

from actors.runtime.behaviour import Behaviour
from actors.runtime.consumer import close_span, open_span
from actors.runtime.core import Core
from actors.runtime.envelope import Crash, Drained, Envelope, Scope, Stop, Void
from actors.runtime.handlers import Handler
from actors.runtime.mailbox import Mailbox
from actors.runtime.order import Deferred, Order
from protocol.errors import ActorFailed

BUDGET: Final = 64  # messages that an actor handles before it lets the others in the loop have a turn


class Identity(msgspec.Struct, frozen=True):
    """What an actor is called.

    Attributes:
        name: its name.
        destination: what its spans say, with few different values: the family's name for a keyed actor.
        address: what is equal for all refs to it.
    """

    name: str
    destination: str
    address: object


class Dispatcher:
    """What serves one actor's mailbox, over all its instances.

    Args:
        core: the system's collaborators.
        identity: what the actor is called.
        mailbox: where its messages come in.
        declared: the domain errors, which a handler raises as a reply.
        rest: is called each time the mailbox has become empty.

    Attributes:
        scope: where its handlers run.
        orders: what it has outstanding.
        halted: whether it is to end after the message at hand.
        turns: how many times it has waited or made way: it moves as long as the actor does.
    """

    def __init__(
        self,
        core: Core,
        identity: Identity,
        mailbox: Mailbox,
        declared: tuple[type[Exception], ...],
        rest: Callable[[], object] | None,
    ) -> None:
        self.core = core
        self.identity = identity
        self.name = identity.name
        self.mailbox = mailbox
        self.declared = declared
        self.scope = Scope(core, identity.address, None)
        self.orders: set[Order] = set()
        self.halted = False
        self.turns = 0
        self._rest = rest

    async def serve(self, actor: Behaviour[Any]) -> Exception | None:  # noqa: C901, PLR0912, PLR0915 - see below
        """Serve until a handler fails, and return why, or until told to end, and return ``None``.

        All of the common way of a message is in this one loop, since each call would cost it a twentieth.
        """
        core, scope, mailbox, handlers = self.core, self.scope, self.mailbox, actor._handlers  # noqa: SLF001 - its type
        system, queue, waiting = mailbox.lanes()
        tracing, budget = core.tracing, BUDGET
        while True:
            if system:
                if self._obey(system.popleft()):
                    return None
                continue
            if queue:
                if not budget:
                    self.turns += 1
                    budget = BUDGET
                    await asyncio.sleep(0)
                    continue
                budget -= 1
                envelope = queue.popleft()
                if waiting:
                    mailbox.make_room()
            else:
                scope.envelope = None
                self.turns += 1
                if self._rest is not None:
                    self._rest()
                await mailbox.arrival()
                budget = BUDGET
                continue
            message, reply = envelope.message, envelope.reply
            try:
                handler = handlers[type(message)]
            except KeyError:
                if self._obey(envelope):
                    return None
                continue
            if reply is not None and reply.done():
                core.expired += 1
                continue
            scope.envelope = envelope
            try:
                if envelope.context or (tracing and message.traced):
                    result = await self._traced(handler, actor, envelope)
                else:
                    result = await handler(actor, message)
            except self.declared as error:
                core.refuse(envelope, error)
            except Exception as error:  # noqa: BLE001 - supervision is where failures end
                return self._failed(envelope, error)
            except CancelledError as error:
                if self.halted or _cancelled_from_without():
                    raise
                return self._failed(envelope, RuntimeError("a handler was cancelled from within"), error)
            else:
                if reply is None:
                    continue
                if isinstance(result, Deferred):
                    if result.envelope is not envelope:
                        return self._failed(envelope, TypeError("a handler returned another message's reply"))
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

    def _obey(self, envelope: Envelope) -> bool:
        """Carry out a command of the runtime, and say whether it ends the actor."""
        command = envelope.message
        if isinstance(command, Stop):
            return True
        if isinstance(command, Drained):
            return not any(order.delays_drain for order in self.orders)
        if isinstance(command, Crash):
            raise command.error
        if not isinstance(command, Void):
            reason = f"{self.name} has no handler for {type(command).__qualname__}"
            self.core.undelivered(self.name, envelope, ActorFailed(reason), reason)
        return False

    def _failed(self, envelope: Envelope, error: Exception, cause: BaseException | None = None) -> Exception:
        failure = ActorFailed(f"{self.name} failed")
        failure.__cause__ = error
        error.__cause__ = cause or error.__cause__
        if envelope.reply is not None:
            self.core.refuse(envelope, failure)
        return error

    def leave_present(self) -> None:
        """Give the message at hand back to its asker, if it was cut off."""
        envelope, self.scope.envelope = self.scope.envelope, None
        if envelope is not None and envelope.pending:
            self.core.stopped(self.name, envelope)


def _cancelled_from_without() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
