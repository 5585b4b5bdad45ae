"""The address of an actor, and the only way to reach it."""

import asyncio
from asyncio import Future, QueueFull
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

from opentelemetry.context import get_current

from actors.runtime.cell import ActorCell
from actors.runtime.core import Core
from actors.runtime.envelope import SCOPE, Envelope
from actors.runtime.mailbox import Mailbox, MailboxClosed
from actors.runtime.slot import Instance
from protocol.errors import ActorStopped, AskCycle, AskTimeout, MailboxFull
from protocol.message import Replies

M_contra = TypeVar("M_contra", contravariant=True)
R = TypeVar("R")


class Ref(Generic[M_contra]):
    """An address that takes messages of the classes ``M``. It stays valid over restarts. Refs to one actor are equal.

    Attributes:
        name: the actor's name.
    """

    __slots__ = ("_address", "_cell", "_core", "_mailbox", "name")

    def __init__(self, name: str, core: Core, mailbox: Mailbox, address: object, cell: ActorCell | None) -> None:
        self.name = name
        self._address = address
        self._core = core
        self._mailbox = mailbox
        self._cell = cell

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and other._address == self._address

    def __hash__(self) -> int:
        return hash(self._address)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @property
    def alive(self) -> bool:
        """Whether a message sent now would be taken."""
        return not self._mailbox.closed

    async def tell(self, message: M_contra) -> None:
        """Send a message without waiting for it to be handled.

        Waits for room in a full mailbox whose policy is ``wait``. To an actor that has stopped the message is a counted
        dead letter, and nothing is raised.

        Raises:
            MailboxFull: the mailbox is full and its policy is ``reject``; or it is full, and it is the sender's own.
        """
        sent = self._core.clock.time() if message.traced else 0.0  # type: ignore[attr-defined]
        envelope = Envelope(message, get_current(), sent)
        try:
            self._mailbox.put_nowait(envelope)
        except QueueFull:
            try:
                await self._put(envelope)
            except ActorStopped:
                self._core.dead_letters.add(self.name, message, "stopped")

    def post(self, message: M_contra) -> None:
        """Send a message from a callback of the loop: like ``tell``, but it never waits.

        Raises:
            MailboxFull: the mailbox is full, and its policy is not ``drop_oldest``.
        """
        sent = self._core.clock.time() if message.traced else 0.0  # type: ignore[attr-defined]
        try:
            if self._put_nowait(Envelope(message, get_current(), sent)) is not None:
                raise MailboxFull(f"the mailbox of {self.name} is full")
        except ActorStopped:
            self._core.dead_letters.add(self.name, message, "stopped")

    async def ask(self, message: Replies[M_contra, R], *, timeout: float) -> R:  # noqa: ASYNC109 - see below
        """Send a message and wait for its reply: ``timeout`` seconds, but never beyond the sender's own deadline.

        The deadline travels with the message, which is why it is an argument here and not a scope around the call.

        Raises:
            AskTimeout: no reply in time; a reply that comes later is counted and dropped.
            AskCycle: the actor waits, directly or not, for the sender.
            MailboxFull: the mailbox was full, or became full and dropped this message.
            ActorFailed: the handler raised an exception that it had not declared, which is the ``__cause__``.
            ActorStopped: the actor ended before the reply.
            Exception: a domain error, as the handler raised it.
        """
        core = self._core
        now = core.clock.time()
        deadline = now + timeout
        cause, asker, scope = None, None, SCOPE.get()
        if scope is not None and scope.core is core:
            asker = scope.address
            if scope.envelope is not None and (cause := scope.envelope.open_ask()) is not None:
                deadline = min(deadline, cause.deadline)
            self._check_cycle(asker, cause)
        if not deadline > now:  # NaN, too
            raise AskTimeout(f"no time is left to ask {self.name}")
        reply = core.loop.create_future()
        envelope = Envelope(message, get_current(), now, cause, reply, deadline, asker, self.name)
        core.deadlines.add(envelope, now)
        try:
            try:
                self._mailbox.put_nowait(envelope)
            except QueueFull:
                await self._put(envelope)
            answer: R = await reply
        except BaseException:
            if reply.done() and not reply.cancelled():
                reply.exception()
            raise
        finally:
            core.deadlines.discard(envelope)
            del envelope, reply  # an error that came as the reply holds this frame
        return answer

    def _ask_nowait(self, message: object, timeout: float, reply: Future[Any]) -> Envelope | None:
        """Send an ask that blocks no actor, and return it; ``None`` where it would have to wait for room.

        Raises:
            AskTimeout: no time is left.
            MailboxFull: the mailbox is full, and its policy is ``reject``.
            ActorStopped: the actor takes no more messages.
        """
        core = self._core
        now = core.clock.time()
        deadline = now + timeout
        cause, scope = None, SCOPE.get()
        if scope is not None and scope.core is core and scope.envelope is not None:
            cause = scope.envelope.open_ask()
            if cause is not None:
                deadline = min(deadline, cause.deadline)
        if not deadline > now:  # NaN, too
            raise AskTimeout(f"no time is left to ask {self.name}")
        envelope = Envelope(message, get_current(), now, cause, reply, deadline, None, self.name)
        if self._put_nowait(envelope) is not None:
            return None
        core.deadlines.add(envelope, now)
        return envelope

    def _check_cycle(self, asker: object, cause: Envelope | None) -> None:
        address = self._address
        if address == asker or (cause is not None and cause.is_awaited_by(address)):
            raise AskCycle(f"{self.name} already waits for this ask")

    def _live_cell(self) -> ActorCell | None:
        """Return the actor's cell, or ``None`` when the actor is not alive."""
        return None if self._cell is None or self._cell.ended else self._cell

    def _put_nowait(self, envelope: Envelope) -> Mailbox | None:
        """Deliver by the mailbox's overflow policy; return the mailbox if the sender has to wait for room.

        Raises:
            ActorStopped: the actor takes no more messages.
            MailboxFull: the policy rejects the message.
        """
        mailbox = self._mailbox
        try:
            mailbox.put_nowait(envelope)
        except MailboxClosed:
            raise ActorStopped(f"{self.name} has stopped") from None
        except QueueFull:
            if mailbox.overflow == "wait":
                return mailbox
            full = MailboxFull(f"the mailbox of {self.name} is full")
            if mailbox.overflow == "reject":
                raise full from None
            while mailbox.full():
                oldest = mailbox.drop_oldest()
                if oldest is None:  # all of them are the actor's own; this one is dropped next
                    mailbox.put_internal(envelope)
                    return None
                self._core.undelivered(self.name, oldest, full, "dropped for a newer one")
            mailbox.put_nowait(envelope)
        return None

    async def _put(self, envelope: Envelope) -> None:
        """Deliver as ``_put_nowait`` does, and wait for room; an ask waits no longer than for its reply."""
        while (mailbox := self._put_nowait(envelope)) is not None:
            scope = SCOPE.get()
            if scope is not None and scope.address == self._address:
                raise MailboxFull(f"{self.name} would wait for room in its own mailbox")
            reply = envelope.reply
            try:
                await (mailbox.put(envelope) if reply is None else _put_in_time(mailbox, envelope, reply))
            except MailboxClosed:
                continue
            return


class Addressed(Instance, Protocol[M_contra]):
    """An actor that handles the messages ``M``, as its system sees it."""

    @property
    def ref(self) -> Ref[M_contra]:
        """The actor's own address."""


async def _put_in_time(mailbox: Mailbox, envelope: Envelope, reply: Future[Any]) -> None:
    """Put an ask into a full mailbox, or give up when its deadline has given it a reply."""
    waiting = True
    with suppress(TimeoutError):  # the asker gets its own from the reply
        async with asyncio.timeout(None) as limit:

            def on_reply_done(_: Future[Any]) -> None:
                if waiting:
                    limit.reschedule(0)

            reply.add_done_callback(on_reply_done)
            try:
                await mailbox.put(envelope)
            finally:
                waiting = False
                reply.remove_done_callback(on_reply_done)
