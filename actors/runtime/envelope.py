"""What travels: a message, who waits for its reply until when, and on whose behalf it was sent."""

from asyncio import Future
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, Protocol

import msgspec
from opentelemetry.context import Context

from actors.runtime.clock import Handle
from protocol.errors import AskTimeout

NO_CONTEXT: Final = Context()


class Reply(Protocol):
    """Where an asker waits for its reply: the future of an ask, or the errand of one that goes on meanwhile.

    Each method does what that of ``asyncio.Future`` does.
    """

    def done(self) -> bool:
        """Whether there is a reply, or nobody waits for one any more."""

    def cancelled(self) -> bool:
        """Whether the asker has left before the reply."""

    def exception(self) -> BaseException | None:
        """Return what the ask raises."""

    def set_result(self, value: Any, /) -> None:  # noqa: ANN401 - typed by the message
        """Give the reply."""

    def set_exception(self, error: Any, /) -> None:  # noqa: ANN401 - a future takes classes, too
        """Let the ask raise ``error``."""

    def add_done_callback(self, callback: Callable[[Any], object], /) -> None:
        """Call ``callback`` from the loop when it is done."""

    def remove_done_callback(self, callback: Callable[[Any], object], /) -> int:
        """Don't call it after all, and return how often it would have been."""


class Envelope(msgspec.Struct, eq=False):
    """A message on its way. It belongs to the runtime: an actor sees only the message.

    Attributes:
        message: the message; a cancelled timer or pipe replaces it by a ``Void``.
        context: the sender's OpenTelemetry context, and while a traced message is handled, that of its span.
        sent: the clock's time at which a traced message was sent, in seconds; 0 for one that is not traced.
        cause: the ask on whose behalf this was sent; it keeps binding until its asker has its answer.
        reply: where the asker waits; ``None`` for a tell.
        deadline: the clock's time at which the asker gives up, in seconds.
        asker: the address of the actor whose handler waits for the reply; ``None`` where no handler waits.
        actor: the name of the actor asked.
        own: whether the actor or the runtime ordered it, so that nobody misses it when the actor has ended.
        room: where the sender waits for room in the mailbox; ``None`` when it does not.
        timer: ends an ask at its deadline; ``None`` while it is too young to need one.
    """

    message: Any
    context: Context
    sent: float = 0.0
    cause: "Envelope | None" = None
    reply: Reply | None = None
    deadline: float = 0.0
    asker: object = None
    actor: str = ""
    own: bool = False
    room: Future[None] | None = None
    timer: Handle | None = None

    @property
    def pending(self) -> bool:
        """Whether an asker still waits."""
        return self.reply is not None and not self.reply.done()

    @property
    def given_up(self) -> bool:
        """Whether there was an asker who left, or ran out of time, before the reply."""
        reply = self.reply
        if reply is None or not reply.done():
            return False
        return reply.cancelled() or isinstance(reply.exception(), AskTimeout)

    def binding(self) -> "Envelope | None":
        """Return the ask on whose behalf this is handled, or ``None`` when that has been answered.

        An ask binds what is done for it (its deadline, the actors that wait for it) until its answer is given; work
        that goes on after the answer is nobody's waiting time.
        """
        ask = self.cause if self.reply is None else self
        if ask is None or ask.reply is None or not ask.reply.done() or ask.given_up:
            return ask
        return None

    def waits(self, address: object) -> bool:
        """Whether a handler of the actor at ``address`` is waiting, directly or not, for this ask."""
        ask: Envelope | None = self
        while ask is not None:
            if ask.pending and ask.asker == address:
                return True
            ask = ask.cause
        return False


class Void:
    """Takes the place of a message that was cancelled after it had been queued; it is passed over in silence."""


class Stop:
    """On the system lane: end after the message at hand."""


class Drained:
    """Behind the last message of a draining actor: end, unless work that it ordered is still on its way."""


class Crash(msgspec.Struct, frozen=True):
    """On the system lane: code of the actor failed outside a handler, so fail as if it had been inside."""

    error: Exception


class Scope:
    """Where code runs: in an actor's handler, or in work done on behalf of a message.

    Attributes:
        core: what is the same for all of one system; the scope of another system means nothing here.
        address: the address of the actor whose handler this is; ``None`` in work, which blocks no actor.
        envelope: the envelope at hand; ``None`` between messages and in the ``started`` and ``stopped`` hooks.
    """

    __slots__ = ("address", "core", "envelope")

    def __init__(self, core: object, address: object, envelope: Envelope | None) -> None:
        self.core = core
        self.address = address
        self.envelope = envelope


SCOPE: Final[ContextVar[Scope | None]] = ContextVar("tidegate_scope", default=None)
