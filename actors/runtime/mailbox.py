"""The mailbox: what waits for one actor, in two lanes, with a bound and a closing time."""

import asyncio
from asyncio import Future
from collections import deque
from typing import Literal

from actors.runtime.crew import Crew, Player
from actors.runtime.envelope import Envelope

Overflow = Literal["wait", "reject", "drop_oldest"]


class Mailbox:
    """Bounded, first in first out, with a lane for commands that is read before the messages.

    Only ``capacity`` messages come in from outside. What the actor itself has ordered (timers, the results of pipes,
    news of actors it watches) is let in beyond that by ``admit``: losing it would lose the actor's own state, and the
    actor bounds how much it orders.

    Args:
        capacity: how many messages may wait; at least 1.
        overflow: what happens to a message without room: its sender waits, it is rejected, or the oldest one goes.
        crew: gives the reader its turn when something has arrived.

    Attributes:
        queue: the messages, for the one loop that reads them.
        commands: those of the runtime, read first.
        senders: those who wait for room; whoever takes a message while there are some calls ``make_room``.
        reader: who found nothing left, and has a turn when something arrives; ``None`` while there is nobody.
    """

    __slots__ = ("_crew", "_room", "commands", "overflow", "queue", "reader", "senders")

    def __init__(self, capacity: int, overflow: Overflow, crew: Crew) -> None:
        if capacity < 1:
            message = f"capacity must be positive, got {capacity}"
            raise ValueError(message)
        if overflow not in {"wait", "reject", "drop_oldest"}:
            message = f"overflow must be wait, reject or drop_oldest, got {overflow!r}"
            raise ValueError(message)
        self.overflow = overflow
        self.queue: deque[Envelope] = deque()
        self.commands: list[Envelope] = []
        self.senders: deque[Future[None]] = deque()
        self.reader: Player | None = None
        self._room = capacity
        self._crew = crew

    def qsize(self) -> int:
        """Return how many envelopes wait, on both lanes."""
        return len(self.queue) + len(self.commands)

    def full(self) -> bool:
        """Whether a message from outside finds no room; a closed mailbox is always full."""
        return len(self.queue) >= self._room

    @property
    def closed(self) -> bool:
        """Whether the mailbox takes no more messages from outside."""
        return self._room == 0

    def offer(self, envelope: Envelope) -> bool:
        """Take a message from outside if there is room, and say whether there was."""
        queue = self.queue
        if len(queue) >= self._room:
            return False
        queue.append(envelope)
        if (reader := self.reader) is not None:
            self.reader = None
            self._crew.call(reader)
        return True

    def admit(self, envelope: Envelope) -> None:
        """Take what the actor itself has ordered, whether or not there is room."""
        self.queue.append(envelope)
        if (reader := self.reader) is not None:
            self.reader = None
            self._crew.call(reader)

    def command(self, envelope: Envelope) -> None:
        """Put a command of the runtime on its lane."""
        self.commands.append(envelope)
        if (reader := self.reader) is not None:
            self.reader = None
            self._crew.call(reader)

    def take(self) -> Envelope | None:
        """Return the next envelope, or ``None`` when there is none."""
        if self.commands:
            return self.commands.pop(0)
        return self.queue.popleft() if self.queue else None

    def make_room(self) -> None:
        """Wake the sender who has waited longest."""
        while self.senders:
            sender = self.senders.popleft()
            if not sender.done():
                sender.set_result(None)
                return

    def oldest(self) -> Envelope:
        """Remove and return the message that has waited longest, to make room."""
        return self.queue.popleft()

    def close(self) -> None:
        """Take no more messages from outside, and send away those who wait for room."""
        self._room = 0
        while self.senders:
            self.make_room()

    async def room(self, envelope: Envelope) -> None:
        """Wait until there may be room, the mailbox has closed, or the asker is out of time: then look again."""
        room = envelope.room = asyncio.get_running_loop().create_future()
        self.senders.append(room)
        try:
            await room
        except asyncio.CancelledError:
            self._pass_on(room)
            raise
        if envelope.reply is not None and envelope.reply.done():
            self._pass_on(room)

    def _pass_on(self, room: Future[None]) -> None:
        """Wait no longer; if the place was this one's, let the next one have it."""
        if room in self.senders:
            self.senders.remove(room)
        elif not self.full():
            self.make_room()
