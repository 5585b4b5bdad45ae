"""The shared parts of one system: its loop, its clock, its tasks and its counts."""

import asyncio
import logging
from collections.abc import Callable

from opentelemetry.trace import Tracer

from actors.runtime.clock import Clock
from actors.runtime.dead_letters import DeadLetters
from actors.runtime.deadlines import Deadlines
from actors.runtime.envelope import Envelope
from actors.runtime.tasks import LOGGER, Tasks
from protocol.errors import ActorFailed, ActorStopped


class Core:
    """The shared parts and counts of one system, used by its cells and refs.

    Attributes:
        loop: the event loop it runs in.
        clock: the time.
        tracer: opens the spans of traced messages.
        tracing: whether spans had somewhere to go when the system opened.
        tasks: owns every task of the system.
        deadlines: ends the asks that take too long.
        dead_letters: tells that could not be delivered.
        late_replies: how many replies came after their asker had given up.
        expired: how many asks were not handled, because their asker had given up before.
        wakeups: how many times an actor has waited or yielded: it moves as long as the actors do something.
        escalate: is called when an actor has failed too often and has ended.
        log: where restarts and escalations are written.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        tracer: Tracer,
        tracing: bool,  # noqa: FBT001 - one caller, and it names nothing else
        escalate: Callable[[str, Exception], None] | None,
    ) -> None:
        self.loop = loop
        self.clock = clock
        self.tracer = tracer
        self.tracing = tracing
        self.escalate = escalate
        self.tasks = Tasks(loop)
        self.deadlines = Deadlines(clock)
        self.dead_letters = DeadLetters()
        self.late_replies = 0
        self.expired = 0
        self.wakeups = 0
        self.log = logging.getLogger(LOGGER)

    def answer(self, envelope: Envelope, value: object) -> None:
        """Give the asker, if there is one, its reply; count it as late if the asker has left."""
        if envelope.reply is not None and not envelope.reply.done():
            envelope.reply.set_result(value)
        elif envelope.reply is not None:
            self.late_replies += 1

    def refuse(self, envelope: Envelope, error: Exception) -> None:
        """Let the ask raise ``error``; count it as a late reply if the asker has left."""
        if envelope.reply is not None and not envelope.reply.done():
            envelope.reply.set_exception(error)
        elif envelope.reply is not None:
            self.late_replies += 1

    def undelivered(self, actor: str, envelope: Envelope, error: Exception, reason: str) -> None:
        """Let an ask raise ``error``, and count a tell as a dead letter."""
        if envelope.reply is None:
            self.dead_letters.add(actor, envelope.message, reason)
        elif not envelope.reply.done():
            envelope.reply.set_exception(error)

    def stopped(self, actor: str, envelope: Envelope) -> None:
        """Return a message that its actor can no longer handle."""
        self.undelivered(actor, envelope, ActorStopped(f"{actor} has stopped"), "stopped")


def exception_of(error: Exception | asyncio.CancelledError) -> Exception:
    """Return what an actor's own code raised, with ``RuntimeError`` for a cancellation that came from within."""
    if isinstance(error, Exception):
        return error
    failed = RuntimeError("cancelled from within")
    failed.__cause__ = error
    return failed


def failure(actor: str, cause: BaseException) -> ActorFailed:
    """Return the failure that an asker gets when an actor raised what it had not declared."""
    failed = ActorFailed(f"{actor} failed")
    failed.__cause__ = cause
    return failed
