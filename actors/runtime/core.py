"""What the parts of one system share."""

import asyncio
import logging
from collections.abc import Callable

from opentelemetry.trace import Tracer

from actors.runtime.clock import Clock
from actors.runtime.crew import Crew
from actors.runtime.dead_letters import DeadLetters
from actors.runtime.deadlines import Deadlines
from actors.runtime.envelope import Envelope
from actors.runtime.tasks import LOGGER, Tasks
from protocol.errors import ActorStopped


class Core:
    """The collaborators and counts of one system, at hand for its actors' cells and refs.

    Attributes:
        loop: the loop it runs in.
        clock: the time.
        tracer: opens the spans of traced messages.
        tracing: whether there was anybody to take spans when the system opened.
        crew: gives the actors their turns.
        tasks: owns every task but the crew's.
        deadlines: ends the asks that take too long.
        dead_letters: tells that could not be delivered.
        late_replies: how many replies came after their asker had given up.
        expired: how many asks were passed over, because their asker had given up before they were handled.
        escalate: is told when an actor has ended for good because it failed too often.
        log: where restarts and escalations are written.
    """

    __slots__ = (
        "clock",
        "crew",
        "dead_letters",
        "deadlines",
        "escalate",
        "expired",
        "late_replies",
        "log",
        "loop",
        "tasks",
        "tracer",
        "tracing",
    )

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
        self.crew = Crew(loop)
        self.tasks = Tasks(loop)
        self.deadlines = Deadlines(clock)
        self.dead_letters = DeadLetters()
        self.late_replies = 0
        self.expired = 0
        self.log = logging.getLogger(LOGGER)

    def answer(self, envelope: Envelope, value: object) -> None:
        """Give the asker, if there is one, its reply; count it as late if it has left."""
        reply = envelope.reply
        if reply is None:
            return
        if reply.done():
            self.late_replies += 1
        else:
            reply.set_result(value)

    def refuse(self, envelope: Envelope, error: Exception) -> None:
        """Let the asker's ask raise ``error``; count it as a late reply if the asker has left."""
        reply = envelope.reply
        if reply is None:
            return
        if reply.done():
            self.late_replies += 1
        else:
            reply.set_exception(error)

    def undelivered(self, actor: str, envelope: Envelope, error: Exception, reason: str) -> None:
        """Give an ask back to its asker, and count a tell as a dead letter."""
        if envelope.reply is None:
            self.dead_letters.add(actor, envelope.message, reason)
        elif not envelope.reply.done():
            envelope.reply.set_exception(error)

    def stopped(self, actor: str, envelope: Envelope) -> None:
        """Return a message that its actor can no longer handle."""
        self.undelivered(actor, envelope, ActorStopped(f"{actor} has stopped"), "stopped")
