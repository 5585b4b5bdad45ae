"""The body of one actor: its mailbox, the task that serves it, and its life from the first start to the end."""

import asyncio
from asyncio import Future, Task
from collections.abc import Callable
from contextvars import Context
from typing import Any

from actors.runtime.behaviour import Behaviour
from actors.runtime.core import Core
from actors.runtime.dispatch import Dispatcher, Identity
from actors.runtime.envelope import NO_CONTEXT, SCOPE, Crash, Drained, Envelope, Stop
from actors.runtime.mailbox import Mailbox
from actors.runtime.order import Order
from actors.runtime.supervision import Restarts
from protocol.errors import ActorFailed, ActorStopped, Overloaded


class Cell(Dispatcher):
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
        self.ended = False
        self.restarts = 0
        self.watchers: dict[Cell, Envelope] = {}
        self.watching: set[Cell] = set()
        self._factory = factory
        self._bind = bind
        self._on_end = ended
        self._after = after
        self._draining = self._begun = False
        self._escalated: Exception | None = None
        self._end = core.loop.create_future()
        self._pause: Future[None] | None = None
        actor = factory()
        super().__init__(core, identity, Mailbox(actor.capacity, actor.overflow), actor.domain_errors, rest)
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
        self.halted = True
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
        while not self.halted and (failure := await self._live(fresh)) is not None:
            fresh = None
            delay = self._budget.after(self.core.clock.time())
            if delay is None:
                self._escalated = failure
                return
            self.restarts += 1
            self.core.log.warning("actor %s failed and restarts", self.name, exc_info=failure)
            self._abort(ActorFailed(f"{self.name} failed"), restart=True)
            if delay > 0:
                await self._wait(delay)

    async def _live(self, actor: Behaviour[Any] | None) -> Exception | None:
        """Return the failure that ended this instance, or ``None`` if it was asked to end."""
        try:
            if actor is None:
                actor = self._factory()
                self._bind(actor, self)
        except Exception as error:  # noqa: BLE001 - the instance is gone already
            return error
        try:
            await actor.started()
            return await self.serve(actor)
        except Exception as error:  # noqa: BLE001 - the instance is gone already
            return error
        finally:
            self.leave_present()
            try:
                await actor.stopped()
            except Exception as error:
                self.core.log.warning("actor %s failed in its stopped hook", self.name, exc_info=error)

    # ------------------------------------------------------------------------------------------------------ its end

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
        if self.orders:
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
