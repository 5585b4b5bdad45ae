"""The body of one actor: its mailbox, the task that serves it, and its life from the first start to the end."""

import asyncio
from asyncio import CancelledError, Future, Task
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final

import msgspec
from opentelemetry.context import attach, detach

from actors.runtime.behaviour import Behaviour
from actors.runtime.consumer import close_span, open_span
from actors.runtime.core import Core
from actors.runtime.envelope import NO_CONTEXT, SCOPE, Crash, Drained, Envelope, Scope, Stop, Void
from actors.runtime.handlers import Handler
from actors.runtime.mailbox import Mailbox
from actors.runtime.order import Deferred, Order
from actors.runtime.supervision import Restarts
from protocol.errors import ActorFailed, ActorStopped, Overloaded

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


class Cell:
    """One actor from its spawning to its end, over all the instances that its restarts make.

    Args:
        core: the system's collaborators.
        identity: what it is called.
        factory: makes an instance.
        bind: gives an instance its place.
        ended: is called once, when the actor has ended.
        after: the actor that held this one's key before; this one begins when that has ended.
        rest: is called each time the mailbox has become empty.
    """

    def __init__(
        self,
        core: Core,
        identity: Identity,
        factory: Callable[[], Behaviour[Any]],
        *,
        bind: "Callable[[Behaviour[Any], Cell], None]",
        ended: "Callable[[Cell], object]",
        after: "Cell | None" = None,
        rest: Callable[[], object] | None = None,
    ) -> None:
        self.core = core
        self.identity = identity
        self.name = identity.name
        self.ended = False
        self.restarts = 0
        self.turns = 0
        self.orders: set[Order] = set()
        self.watchers: dict[Cell, Envelope] = {}
        self.watching: set[Cell] = set()
        self._factory = factory
        self._bind = bind
        self._on_end = ended
        self._after = after
        self._rest = rest
        self._halted = self._draining = self._begun = False
        self._escalated: Exception | None = None
        self._end = core.loop.create_future()
        self._pause: Future[None] | None = None
        actor = factory()
        self.declared = actor.domain_errors
        self.mailbox = Mailbox(actor.capacity, actor.overflow)
        self.scope = Scope(core, identity.address, None)
        self._order_limit = actor.orders
        self._budget = Restarts(actor.restarts, actor.within, actor.backoff)
        bind(actor, self)
        context = Context()
        context.run(SCOPE.set, self.scope)
        self.task = core.tasks.start(self._run(actor), name=self.name, context=context)
        self.task.add_done_callback(self._finish)

    # ---------------------------------------------------------------------------------------------------- the verbs

    def stop(self) -> None:
        """Take nothing new, and end after the message at hand."""
        self._halted = True
        self._close(Stop())

    def drain(self) -> None:
        """Take nothing new, and end when what is queued has been handled and what was ordered has come."""
        self._draining = True
        self.mailbox.close()
        self.mailbox.admit(Envelope(Drained(), NO_CONTEXT, own=True))

    def kill(self) -> None:
        """End now: the handler at work is cancelled."""
        self.stop()
        if self._begun:
            self.task.cancel()

    def crash(self, error: Exception) -> None:
        """Fail as if a handler had raised ``error``."""
        self.mailbox.command(Envelope(Crash(error), NO_CONTEXT, own=True))

    @property
    def idle(self) -> bool:
        """Whether nothing waits, is being handled, or is outstanding."""
        return self.scope.envelope is None and not self.orders and self.mailbox.empty()

    async def end(self) -> None:
        """Wait until the actor has ended."""
        await asyncio.wait((self._end,))

    def _close(self, command: object) -> None:
        self.mailbox.close()
        self.mailbox.command(Envelope(command, NO_CONTEXT, own=True))
        self._resume()

    # --------------------------------------------------------------------------------------------------- its orders

    def order(self, order: Order) -> None:
        """Keep account of something outstanding.

        Raises:
            ActorStopped: the actor has ended.
            Overloaded: too much is outstanding already.
        """
        if self.ended:
            raise ActorStopped(f"{self.name} has stopped")
        if len(self.orders) >= self._order_limit:
            raise Overloaded(f"{self.name} has {self._order_limit} orders outstanding")
        self.orders.add(order)

    def arrived(self, order: Order) -> None:
        """Strike an order that is no longer outstanding; the last one of a draining actor lets it end."""
        self.orders.discard(order)
        if self._draining and order.delays_drain and not self.ended:
            self.mailbox.admit(Envelope(Drained(), NO_CONTEXT, own=True))

    def watch(self, watched: "Cell | None", news: Envelope) -> None:
        """Have ``news`` put into this actor's mailbox when ``watched`` has ended; a later watch replaces it."""
        if watched is None or watched.ended:
            self.mailbox.admit(news)
            return
        if len(self.watching) >= self._order_limit:
            raise Overloaded(f"{self.name} watches {self._order_limit} actors already")
        watched.watchers[self] = news
        self.watching.add(watched)

    # ----------------------------------------------------------------------------------------------------- its life

    async def _run(self, actor: Behaviour[Any]) -> None:
        if self._after is not None:
            await self._after.end()
            self._after = None
        self._begun = True
        fresh: Behaviour[Any] | None = actor
        while not self._halted and (failure := await self._live(fresh)) is not None:
            fresh = None
            delay = self._budget.after(self.core.clock.time())
            if delay is None:
                self._escalated = failure
                return
            self.restarts += 1
            self.core.log.warning("actor %s failed and restarts", self.name, exc_info=failure)
            self._abort(ActorFailed(f"{self.name} failed"), restart=True)
            await self._wait(delay)

    async def _live(self, actor: Behaviour[Any] | None) -> Exception | None:
        """Return the failure that ended this instance, or ``None`` if it was asked to end."""
        try:
            if actor is None:
                actor = self._factory()
                self._bind(actor, self)
        except Exception as error:  # noqa: BLE001 - supervision is where failures end
            return error
        try:
            await actor.started()
            return await self._serve(actor)
        except Exception as error:  # noqa: BLE001 - supervision is where failures end
            return error
        finally:
            self._settle_present()
            try:
                await actor.stopped()
            except Exception as error:  # noqa: BLE001 - the instance is gone already
                self.core.log.warning("actor %s failed in its stopped hook", self.name, exc_info=error)

    async def _serve(self, actor: Behaviour[Any]) -> Exception | None:
        core, scope, mailbox, handlers = self.core, self.scope, self.mailbox, actor._handlers  # noqa: SLF001 - its type
        system, queue, waiting = mailbox.lanes()
        budget = BUDGET
        while True:
            if system:
                envelope = system.popleft()
            elif queue:
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
                if envelope.context or message.traced:
                    result = await self._traced(handler, actor, envelope)
                else:
                    result = await handler(actor, message)
            except self.declared as error:
                core.refuse(envelope, error)
            except Exception as error:
                return self._failed(envelope, error)
            except CancelledError as error:
                if self._halted or self.task.cancelling():
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
        message = envelope.message
        now = self.core.clock.time()
        span = open_span(self.core.tracer, self.identity.destination, envelope, now) if message.traced else None
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

    # ------------------------------------------------------------------------------------------------------ its end

    def _settle_present(self) -> None:
        envelope, self.scope.envelope = self.scope.envelope, None
        if envelope is not None and envelope.pending:
            self.core.stopped(self.name, envelope)

    def _abort(self, error: Exception, *, restart: bool = False) -> None:
        for order in [order for order in self.orders if not (restart and order.survives_restart)]:
            self.orders.discard(order)
            order.abort(error)

    async def _wait(self, delay: float) -> None:
        self._pause = self.core.loop.create_future()
        timer = self.core.clock.call_at(self.core.clock.time() + delay, self._resume)
        try:
            await self._pause
        finally:
            timer.cancel()

    def _resume(self) -> None:
        if self._pause is not None and not self._pause.done():
            self._pause.set_result(None)

    def _finish(self, task: Task[None]) -> None:
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._escalated = error
        self.mailbox.close()
        while (envelope := self.mailbox.take()) is not None:
            if not envelope.own:
                self.core.stopped(self.name, envelope)
        self._abort(ActorStopped(f"{self.name} has stopped"))
        self.ended = True
        for watcher, news in self.watchers.items():
            watcher.watching.discard(self)
            watcher.mailbox.admit(news)
        for watched in self.watching:
            watched.watchers.pop(self, None)
        self._end.set_result(None)
        self._on_end(self)
        if self._escalated is not None:
            self.core.log.error("actor %s failed too often and has stopped", self.name, exc_info=self._escalated)
            if self.core.escalate is not None:
                self.core.escalate(self.name, self._escalated)
