"""The envelope: a message on its way, with its asker, its deadline and its context."""

from asyncio import Future
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

import msgspec
from opentelemetry.context import Context

from actors.runtime.clock import Handle
from protocol.errors import AskTimeout

NO_CONTEXT: Final = Context()


class CallbackFuture(Future[Any]):
    """The reply of a ``PendingAsk``: calls one function as soon as it is done, without a pass of the loop in between.

    Attributes:
        on_done: is called with the future; ``None`` until the ask has been sent. Whoever makes the future sets it.
    """

    __slots__ = ("on_done",)
    on_done: Callable[[Future[Any]], object] | None

    def set_result(self, result: Any) -> None:  # noqa: ANN401, D102 - the contract is the base's
        Future.set_result(self, result)  # ``super()`` would cost more than the call
        self._call()

    def set_exception(self, exception: type | BaseException, /) -> None:  # noqa: D102 - the contract is the base's
        Future.set_exception(self, exception)
        self._call()

    def cancel(self, msg: object | None = None) -> bool:  # noqa: D102 - the contract is the base's
        cancelled = Future.cancel(self, msg)
        if cancelled:
            self._call()
        return cancelled

    def _call(self) -> None:
        on_done, self.on_done = self.on_done, None
        if on_done is not None:
            on_done(self)


class Envelope(msgspec.Struct, eq=False):
    """A message on its way. It belongs to the runtime: an actor sees only the message.

    Attributes:
        message: the message; a cancelled timer or task replaces it by ``Discarded``.
        context: the sender's OpenTelemetry context; while a traced message is handled, the context of its span.
        sent: when a traced message was sent, in seconds of the clock; 0 for a message that is not traced.
        cause: the ask on whose behalf this was sent.
        reply: the asker's reply; ``None`` for a tell.
        deadline: when the asker gives up, in seconds of the clock.
        asker: the address of the actor whose handler waits for the reply; ``None`` where no handler waits.
        actor: the name of the actor that was asked.
        internal: whether the actor itself or the runtime sent it: it is no dead letter when the actor has ended.
        timer: ends an ask at its deadline; ``None`` while the ask is too young to need one.
    """

    message: Any
    context: Context
    sent: float = 0.0
    cause: "Envelope | None" = None
    reply: Future[Any] | None = None
    deadline: float = 0.0
    asker: object = None
    actor: str = ""
    internal: bool = False
    timer: Handle | None = None

    @property
    def pending(self) -> bool:
        """Whether an asker waits."""
        return self.reply is not None and not self.reply.done()

    @property
    def abandoned(self) -> bool:
        """Whether there was an asker that left, or ran out of time, before the reply."""
        reply = self.reply
        if reply is None or not reply.done():
            return False
        return reply.cancelled() or isinstance(reply.exception(), AskTimeout)

    def open_ask(self) -> "Envelope | None":
        """Return the ask on whose behalf this is handled, or ``None`` when that has its reply.

        Until its reply an ask binds everything that is done for it: its deadline counts, and the actors that wait for
        it can't be asked. Work that goes on after the reply keeps nobody waiting.
        """
        ask = self.cause if self.reply is None else self
        if ask is None or ask.reply is None or not ask.reply.done() or ask.abandoned:
            return ask
        return None

    def is_awaited_by(self, address: object) -> bool:
        """Whether a handler of the actor at ``address`` waits for this ask, directly or through others."""
        ask: Envelope | None = self
        while ask is not None:
            if ask.pending and ask.asker == address:
                return True
            ask = ask.cause
        return False


class Discarded:
    """Replaces a message that was cancelled while it was in the mailbox."""


class Stop:
    """Command: wake the actor, which then sees that it is to end."""


class Crash(msgspec.Struct, frozen=True):
    """Command: fail with an error that the actor's own code raised outside of a handler."""

    error: Exception


class Drained:
    """Follows the last message of a draining actor: end, unless work is still outstanding."""


STOP: Final = Envelope(Stop(), NO_CONTEXT, internal=True)


class Scope:
    """What code runs for: an actor's handler, or work on behalf of a message.

    Attributes:
        core: the parts of the system; the scope of another system has no effect.
        address: the address of the actor whose handler runs; ``None`` in work, which blocks no actor.
        envelope: the envelope at hand; ``None`` between messages and in the ``started`` and ``stopped`` hooks.
    """

    __slots__ = ("address", "core", "envelope")

    def __init__(self, core: object, address: object, envelope: Envelope | None) -> None:
        self.core = core
        self.address = address
        self.envelope = envelope


SCOPE: Final[ContextVar[Scope | None]] = ContextVar("tidegate_scope", default=None)
