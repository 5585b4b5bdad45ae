"""The body of one actor: its mailbox, and its life from the first start to the end."""

import asyncio
from asyncio import Future
from collections.abc import Callable
from typing import Any, Protocol

from actors.runtime.behaviour import Behaviour
from actors.runtime.clock import Handle
from actors.runtime.core import Core
from actors.runtime.dispatch import Dispatcher, Identity
from actors.runtime.envelope import NO_CONTEXT, Crash, Drained, Envelope, Stop
from actors.runtime.order import Order
from actors.runtime.supervision import Restarts
from protocol.errors import ActorFailed, ActorStopped, Overloaded


class Home(Identity, Protocol):
    """Where one actor belongs: in a place of its own in the system, or in one of a family's."""

    def make(self) -> Behaviour[Any]:
        """Make an instance."""

    def settle(self, actor: Behaviour[Any], cell: "Cell") -> None:
        """Give an instance its place, in this body."""

    @property
    def rested(self) -> Callable[[Any], object] | None:
        """What to call with the actor's body when it has become idle; ``None`` for nothing."""

    def ended(self, cell: "Cell") -> None:
        """Take note, once, that the actor has ended."""


class Cell(Dispatcher):
    """One actor from its spawning to its end, over all the instances that its restarts make.

    Args:
        core: the system's collaborators.
        home: where it belongs, which says what it is called.
        after: the actor that held this one's key before; this one begins when that has ended.

    Attributes:
        lingers: whether it stays for a while when it is idle.
        restarts: how many times it has been restarted.
        watchers: who is to have which news of its end.
        watching: whose end it is to hear of.
        successor: the actor that begins when this one has ended.
    """

    def __init__(self, core: Core, home: Home, after: "Cell | None" = None) -> None:
        actor = home.make()
        super().__init__(core, home, actor, home.rested)
        self.restarts = 0
        self.successor: Cell | None = None
        self.watchers: dict[Cell, Envelope] = {}
        self.watching: set[Cell] = set()
        self._home = home
        self.lingers = actor.lingers
        self._behaviour = type(actor)
        self._fresh: Behaviour[Any] | None = actor
        self._order_limit = actor.orders
        self._draining = False
        self._budget: Restarts | None = None
        self._pause: Handle | None = None
        self._end_awaited: Future[None] | None = None
        home.settle(actor, self)
        if after is None or after.ended:
            core.crew.call(self)
        else:
            after.successor = self

    # ---------------------------------------------------------------------------------------------------- the verbs

    def stop(self) -> None:
        """Take nothing new, and end after the message at hand; now, where that takes no turn."""
        self.halted = True
        self.mailbox.close()
        if self.mailbox.reader is not None and self._behaviour.stopped is Behaviour.stopped:
            self._finish(None)
            if self.task is None:
                self.life.close()
            return
        self.mailbox.command(Envelope(Stop(), NO_CONTEXT, own=True))
        if self._pause is not None:
            self._resume()

    def drain(self) -> None:
        """Take nothing new, and end when what is queued has been handled and what was ordered has come."""
        self._draining = True
        self.mailbox.close()
        self.mailbox.admit(Envelope(Drained(), NO_CONTEXT, own=True))

    def kill(self) -> None:
        """End now: the handler at work is cancelled."""
        self.stop()
        if self.task is not None:
            self.task.cancel()

    def crash(self, error: Exception) -> None:
        """Fail as if a handler had raised ``error``."""
        self.mailbox.command(Envelope(Crash(error), NO_CONTEXT, own=True))

    @property
    def idle(self) -> bool:
        """Whether nothing waits, is being handled, or is outstanding."""
        return self.mailbox.reader is not None and not self.orders

    async def end(self) -> None:
        """Wait until the actor has ended."""
        if not self.ended:
            if self._end_awaited is None:
                self._end_awaited = self.core.loop.create_future()
            await asyncio.wait((self._end_awaited,))

    # --------------------------------------------------------------------------------------------------- its orders

    def order(self, order: Order) -> None:
        """Keep account of something outstanding.

        Raises:
            ActorStopped: the actor has ended.
            Overloaded: too much is outstanding already.
        """
        if len(self.orders) >= self._order_limit:
            if self.ended:
                raise ActorStopped(f"{self.name} has stopped")
            raise Overloaded(f"{self.name} has {self._order_limit} orders outstanding")
        self.orders.add(order)

    def arrived(self, order: Order) -> None:
        """Strike an order that is no longer outstanding; the last one of a draining actor lets it end."""
        self.orders.discard(order)
        if self._draining and order.delays_drain and not self.ended:
            self.mailbox.admit(Envelope(Drained(), NO_CONTEXT, own=True))
        if self.rested is not None and self.idle:
            self.rested(self)

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

    async def _begin(self) -> Behaviour[Any] | None:
        self._pause = None
        if self.halted:
            self._finish(None)
            return None
        try:
            actor, self._fresh = self._fresh, None
            if actor is None:
                actor = self._home.make()
                self._home.settle(actor, self)
        except Exception as error:  # noqa: BLE001 - the instance is gone already
            await self._restart(error)
            return None
        self._serving = actor
        try:
            await actor.started()
        except Exception as error:  # noqa: BLE001 - supervision is where failures end
            await self._restart(error)
            return None
        except BaseException:
            await self._end()
            raise
        return actor

    async def _restart(self, error: Exception) -> None:
        if self._budget is None:
            self._budget = Restarts(self._behaviour.restarts, self._behaviour.within, self._behaviour.backoff)
        try:
            await self._leave()
        except BaseException:
            self._finish(None)
            raise
        delay = self._budget.after(self.core.clock.time())
        if delay is None:
            self._finish(error)
            return
        self.restarts += 1
        self.core.log.warning("actor %s failed and restarts", self.name, exc_info=error)
        self._abort(ActorFailed(f"{self.name} failed"), restart=True)
        self.life = self._serve()
        if delay > 0 and not self.halted:
            self._pause = self.core.clock.call_at(self.core.clock.time() + delay, self._resume)
        else:
            self.core.crew.call(self)

    async def _end(self) -> None:
        try:
            await self._leave()
        finally:
            self._finish(None)

    async def _leave(self) -> None:
        """Give the message at hand back to its asker, if it was cut off, and let the instance go."""
        actor, self._serving = self._serving, None
        envelope, self.scope.envelope = self.scope.envelope, None
        if envelope is not None and envelope.pending:
            self.core.stopped(self.name, envelope)
        if actor is None:
            return
        try:
            await actor.stopped()
        except Exception as error:
            self.core.log.warning("actor %s failed in its stopped hook", self.name, exc_info=error)

    def _resume(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
            self.core.crew.call(self)

    # ------------------------------------------------------------------------------------------------------ its end

    def _abort(self, error: Exception, *, restart: bool = False) -> None:
        for order in [order for order in self.orders if not (restart and order.survives_restart)]:
            self.orders.discard(order)
            order.abort(error)

    def _unwatch(self) -> None:
        for watcher, news in self.watchers.items():
            watcher.watching.discard(self)
            watcher.mailbox.admit(news)
        for watched in self.watching:
            watched.watchers.pop(self, None)

    def _finish(self, error: Exception | None) -> None:
        mailbox = self.mailbox
        mailbox.close()
        mailbox.reader = None
        while (envelope := mailbox.take()) is not None:
            if not envelope.own:
                self.core.stopped(self.name, envelope)
        if self.orders:
            self._abort(ActorStopped(f"{self.name} has stopped"))
        self.ended = True
        self._order_limit = 0
        if self.watchers or self.watching:
            self._unwatch()
        if self._end_awaited is not None:
            self._end_awaited.set_result(None)
        if self.successor is not None:
            self.core.crew.call(self.successor)
        self._serving = None
        self._home.ended(self)
        if error is not None:
            self.core.log.error("actor %s failed too often and has stopped", self.name, exc_info=error)
            if self.core.escalate is not None:
                self.core.escalate(self.name, error)
