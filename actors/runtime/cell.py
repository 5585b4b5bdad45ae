"""The actor cell: the task, the mailbox and the supervision of one actor."""

import asyncio
from asyncio import CancelledError, Future, Task
from collections.abc import Awaitable
from contextvars import Context
from typing import Any, Final

from actors.runtime.consumer import handle_traced
from actors.runtime.core import Core, exception_of, failure
from actors.runtime.envelope import (
    NO_CONTEXT,
    SCOPE,
    STOP,
    CallbackFuture,
    Crash,
    Discarded,
    Drained,
    Envelope,
    Scope,
    Stop,
)
from actors.runtime.mailbox import Mailbox
from actors.runtime.outstanding import Deferred, Outstanding
from actors.runtime.slot import Instance, Slot
from actors.runtime.supervision import RestartBudget
from protocol.errors import ActorFailed, ActorStopped, Overloaded

BUDGET: Final = 64  # messages that an actor handles before it yields to the loop


class ActorCell:
    """Runs one actor in one task: takes envelopes from the mailbox, calls the handlers, and restarts what failed.

    ::

        spawned ──► serving ──► draining ──► stopping ──► ended
                     │   ▲                      ▲
              failed │   │ fresh instance       │ stopped, killed, or failed too often
                     ▼   │                      │
                  backing off ──────────────────┘

    The task has the actor's name. Cancelling it ends the actor, in every state; ``kill`` does nothing else.

    Args:
        core: the shared parts of the system.
        slot: the actor's place in the system.
        predecessor: the actor that had this one's key before; this one starts when that has ended.

    Attributes:
        name: the actor's name, and its task's.
        mailbox: where its messages come in.
        declared: the domain errors, which a handler raises as a reply.
        lingers: whether it stays for a while when it is idle.
        scope: what its handlers run for.
        outstanding: what it has started and what has not ended.
        restarts: how many times it has been restarted.
        watchers: the actors that watch it, each with the notice that it gets.
        watching: the actors that it watches.
        halted: whether it is to end after the message at hand.
        ended: whether it has ended.
    """

    def __init__(self, core: Core, slot: "Slot[ActorCell]", predecessor: "ActorCell | None" = None) -> None:
        actor = slot.make()
        self.core = core
        self.slot = slot
        self.name = slot.name
        self.mailbox = Mailbox(actor.capacity, actor.overflow)
        self.declared = actor.domain_errors
        self.lingers = actor.lingers
        self.scope = Scope(core, slot.address, None)
        self.outstanding: set[Outstanding] = set()
        self.restarts = 0
        self.watchers: dict[ActorCell, Envelope] = {}
        self.watching: set[ActorCell] = set()
        self.halted = self.ended = False
        self._class = type(actor)
        self._first: Instance | None = actor
        self._instance: Instance | None = None
        self._limit = actor.outstanding_limit
        self._reports_idle = slot.reports_idle
        self._resting = self._draining = self._replied = False
        self._restart_budget: RestartBudget | None = None
        self._escalated: Exception | None = None
        self._backoff: asyncio.Event | None = None
        self._end_future: Future[None] | None = None
        self._predecessor = None if predecessor is None or predecessor.ended else predecessor
        slot.bind(actor, self)
        context = Context()
        context.run(SCOPE.set, self.scope)
        self._task = core.tasks.start(self._run(), name=self.name, context=context, done=self._on_task_done)

    def stop(self) -> None:
        """Take nothing new, and end after the message at hand; end at once where nothing is left to run."""
        self.halted = True
        self.mailbox.close()
        if self._resting and self.mailbox.empty() and not self._class._has_stopped_hook:  # noqa: SLF001 - its actor
            self._finish()
        self.mailbox.put_command(STOP)
        if self._backoff is not None:
            self._backoff.set()

    def drain(self) -> None:
        """Take nothing new, and end when the queued messages and the outstanding work are done."""
        self._draining = True
        self.mailbox.close()
        self.mailbox.put_internal(Envelope(Drained(), NO_CONTEXT, internal=True))

    def kill(self) -> None:
        """End now: cancel the task, and with it the handler at work."""
        self.stop()
        self._task.cancel()

    def crash(self, error: Exception) -> None:
        """Fail as if a handler had raised ``error``."""
        self.mailbox.put_command(Envelope(Crash(error), NO_CONTEXT, internal=True))

    @property
    def idle(self) -> bool:
        """Whether no message waits or is being handled, and nothing is outstanding."""
        return self._resting and self.mailbox.empty() and not self.outstanding

    async def end(self) -> None:
        """Wait until the actor and its task have ended."""
        if not self.ended:
            await asyncio.wait((self._end_awaited(),))
        if not self._task.done():
            await asyncio.wait((self._task,))

    def add_outstanding(self, item: Outstanding) -> None:
        """Register something that the actor has started.

        Raises:
            ActorStopped: the actor has ended.
            Overloaded: the actor's ``outstanding_limit`` is reached.
        """
        if self.ended:
            raise ActorStopped(f"{self.name} has stopped")
        if len(self.outstanding) >= self._limit:
            raise Overloaded(f"{self.name} has {self._limit} timers, tasks and replies outstanding")
        self.outstanding.add(item)

    def remove_outstanding(self, item: Outstanding) -> None:
        """Forget something that has ended; after the last one a draining actor ends, and another may be idle."""
        self.outstanding.discard(item)
        if self._draining and item.delays_drain and not self.ended:
            self.mailbox.put_internal(Envelope(Drained(), NO_CONTEXT, internal=True))
        if self._resting and self._reports_idle and self.idle:
            self.slot.on_idle(self)

    def watch(self, watched: "ActorCell | None", notice: Envelope) -> None:
        """Put ``notice`` into this actor's mailbox when ``watched`` has ended; a later watch replaces it."""
        if watched is None or watched.ended:
            self.mailbox.put_internal(notice)
            return
        if watched not in self.watching and len(self.watching) >= self._limit:
            raise Overloaded(f"{self.name} watches {self._limit} actors already")
        watched.watchers[self] = notice
        self.watching.add(watched)

    async def _run(self) -> None:
        """Serve with one instance after another, until the actor is to end."""
        if self._predecessor is not None:
            await self._predecessor.end()
            self._predecessor = None
        try:
            while not self.halted:
                try:
                    await self._serve(await self._start())
                except (Exception, CancelledError) as error:  # supervision is where failures end
                    if isinstance(error, CancelledError) and self._task.cancelling():
                        raise
                    await self._restart(exception_of(error))
        finally:
            if not self.ended:
                try:
                    await self._release()
                finally:
                    self._finish()

    async def _start(self) -> Instance:
        """Start an instance: the one made at the spawning, or after a failure a fresh one."""
        actor, self._first = self._first, None
        if actor is None:
            actor = self.slot.make()
            self.slot.bind(actor, self)
        self._instance = actor
        if self._class._has_started_hook:  # noqa: SLF001 - its actor
            await actor.started()
        return actor

    async def _serve(self, actor: Instance) -> None:
        """Handle messages until the actor is to end; raise what a handler raises and has not declared."""
        core, scope, mailbox, declared = self.core, self.scope, self.mailbox, self.declared
        messages, commands, putters = mailbox.messages, mailbox.commands, mailbox.putters
        get_nowait, handlers = mailbox.get_nowait, actor._handlers  # noqa: SLF001 - its actor
        budget, cancelling = BUDGET, self._task.cancelling
        while not self.halted:
            if not budget or not (messages or commands):
                budget, pause = BUDGET, self._pause()
                if pause is not None:
                    await pause
                    self._on_wakeup()
                continue
            budget -= 1
            envelope = get_nowait() if commands or putters else messages.popleft()
            message, reply = envelope.message, envelope.reply
            try:
                handler = handlers[type(message)]
            except KeyError:
                self._on_command(envelope)
                continue
            if reply is not None and reply.done():
                core.expired += 1
                continue
            scope.envelope = envelope
            try:
                if envelope.context or (core.tracing and message.traced):
                    result = await handle_traced(core, self.slot.group, handler, actor, envelope)
                else:
                    result = await handler(actor, message)
            except declared as error:
                core.refuse(envelope, error)
                continue
            except BaseException:
                del envelope, reply  # the reply will hold this error, and that this frame
                raise
            budget = 0 if cancelling() else budget  # the pause ends a cancellation that the handler has dealt with
            if reply is not None:
                self._reply(envelope, reply, result)

    def _pause(self) -> Awaitable[None] | None:
        """Return what to wait for before the next envelope; ``None`` where the actor has ended as it became idle."""
        mailbox = self.mailbox
        self.scope.envelope = None
        self.core.wakeups += 1
        if mailbox.messages or mailbox.commands:
            return asyncio.sleep(0)
        self._resting = True
        if self._reports_idle and not self.outstanding:
            self.slot.on_idle(self)
            if self.halted:
                return None
        if self._replied:  # the asker runs now, and its next message then wakes nobody
            self._replied = False
            return asyncio.sleep(0)
        return mailbox.arrival()

    def _on_wakeup(self) -> None:
        """Go on after a pause; reset the task's count of cancellations, which handlers have dealt with."""
        self._resting = False
        while self._task.cancelling():  # a ``TaskGroup`` that fails leaves one behind
            self._task.uncancel()

    def _reply(self, envelope: Envelope, reply: Future[Any], result: object) -> None:
        """Give the asker the handler's result, unless that is a reply that comes later."""
        if isinstance(result, Deferred):
            if result.envelope is not envelope:
                raise TypeError("a handler returned another message's reply")
            self.scope.envelope = None
        elif reply.done():
            self.core.late_replies += 1
        else:
            reply.set_result(result)
            self._replied = self._replied or not isinstance(reply, CallbackFuture)

    def _on_command(self, envelope: Envelope) -> None:
        """Carry out a command of the runtime; refuse a message that the actor does not handle."""
        self.scope.envelope = None
        match envelope.message:
            case Crash(error=error):
                raise error
            case Drained():
                self.halted = self.halted or not any(item.delays_drain for item in self.outstanding)
            case Stop() | Discarded():
                pass
            case foreign:
                reason = f"{self.name} has no handler for {type(foreign).__qualname__}"
                self.core.undelivered(self.name, envelope, ActorFailed(reason), reason)

    async def _restart(self, error: Exception) -> None:
        """Release the failed instance; then wait until a fresh one may start, or let the actor end."""
        failed, envelope = failure(self.name, error), self.scope.envelope
        if envelope is not None:
            self.core.refuse(envelope, failed)
        await self._release()
        if self._restart_budget is None:
            self._restart_budget = RestartBudget(self._class.restarts, self._class.within, self._class.backoff)
        delay = self._restart_budget.next_delay(self.core.clock.time())
        if delay is None:
            self._escalated, self.halted = error, True
            return
        self.restarts += 1
        self.core.log.warning("actor %s failed and restarts", self.name, exc_info=error)
        self._abort([item for item in self.outstanding if not item.survives_restart], failed)
        if self._draining:
            self.mailbox.put_internal(Envelope(Drained(), NO_CONTEXT, internal=True))
        if not self.halted:
            await self._back_off(delay)
            self._on_wakeup()

    async def _back_off(self, delay: float) -> None:
        await asyncio.sleep(0)
        if delay > 0 and not self.halted:
            self._backoff = asyncio.Event()
            timer = self.core.clock.call_at(self.core.clock.time() + delay, self._backoff.set)
            try:
                await self._backoff.wait()
            finally:
                timer.cancel()

    async def _release(self) -> None:
        """Return the message at hand to its asker, if it was cut off, and run the instance's ``stopped``."""
        actor, self._instance = self._instance, None
        self._resting = False
        envelope, self.scope.envelope = self.scope.envelope, None
        if envelope is not None and envelope.pending:
            self.core.stopped(self.name, envelope)
        if actor is None:
            return
        try:
            await actor.stopped()
        except (Exception, CancelledError) as error:
            if isinstance(error, CancelledError) and self._task.cancelling():
                raise
            self.core.log.warning("actor %s failed in its stopped hook", self.name, exc_info=error)

    def _end_awaited(self) -> Future[None]:
        """Return the future that is done when the actor has ended; it exists only where something waits for it."""
        if self._end_future is None:
            self._end_future = self.core.loop.create_future()
        return self._end_future

    def _on_task_done(self, task: Task[None]) -> None:
        """End the actor also where its task was cancelled before it began, but not before its predecessor."""
        self.core.tasks.forget(task)
        try:
            error = task.exception()
        except BaseException as cancelled:  # taken out of the task, whose frames hold this
            if not isinstance(cancelled, CancelledError):
                raise
            error = None
        if error is not None:
            self.core.log.error("the task of actor %s failed", self.name, exc_info=error)
        if not self.ended and (self._predecessor is None or self._predecessor.ended):
            self._finish()
        elif self._predecessor is not None and not self.ended:
            self.stop()
            self._predecessor._end_awaited().add_done_callback(lambda _: self._finish())  # noqa: SLF001 - its class

    def _abort(self, items: list[Outstanding], error: Exception) -> None:
        for item in items:
            self.outstanding.discard(item)
            item.abort(error)

    def _finish(self) -> None:
        """Mark the actor as ended, and tell everything that waits for it or that it holds."""
        self.halted = self.ended = True
        self._resting = False
        self._instance = self._first = None
        self.mailbox.close()
        while not self.mailbox.empty():
            envelope = self.mailbox.get_nowait()
            if not envelope.internal:
                self.core.stopped(self.name, envelope)
        if self.outstanding:
            self._abort(list(self.outstanding), ActorStopped(f"{self.name} has stopped"))
        for watcher, notice in self.watchers.items():
            watcher.watching.discard(self)
            watcher.mailbox.put_internal(notice)
        for watched in self.watching:
            watched.watchers.pop(self, None)
        if self._end_future is not None:
            self._end_future.set_result(None)
        self.slot.on_end(self)
        if self._escalated is not None:
            self.core.log.error("actor %s failed too often and has stopped", self.name, exc_info=self._escalated)
            if self.core.escalate is not None:
                self.core.escalate(self.name, self._escalated)
