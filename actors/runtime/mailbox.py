"""The mailbox: an ``asyncio.Queue`` with two lanes and a closing time."""

import asyncio
from asyncio import Future
from collections import deque
from typing import Literal

from actors.runtime.envelope import Envelope

Overflow = Literal["wait", "reject", "drop_oldest"]


class Mailbox(asyncio.Queue[Envelope]):
    """Bounded, first in first out, with a system lane that is read before the messages.

    Only ``capacity`` messages come in from outside. What the actor itself has ordered (timers, the results of pipes,
    news of actors it watches) is let in beyond that by ``admit``: losing it would lose the actor's own state, and the
    actor bounds how much it orders.

    Args:
        capacity: how many messages may wait; at least 1.
        overflow: what happens to a message without room: its sender waits, it is rejected, or the oldest one goes.
    """

    _getters: deque[Future[None]]
    _putters: deque[Future[None]]

    def __init__(self, capacity: int, overflow: Overflow) -> None:
        if capacity < 1:
            message = f"capacity must be positive, got {capacity}"
            raise ValueError(message)
        if overflow not in {"wait", "reject", "drop_oldest"}:
            message = f"overflow must be wait, reject or drop_oldest, got {overflow!r}"
            raise ValueError(message)
        super().__init__(capacity)
        self.capacity = capacity
        self.overflow = overflow
        self._room = capacity

    def _init(self, maxsize: int) -> None:  # noqa: ARG002 - the hook's signature
        self._queue: deque[Envelope] = deque()
        self._system: deque[Envelope] = deque()

    def _put(self, item: Envelope) -> None:
        self._queue.append(item)

    def _get(self) -> Envelope:
        return self._system.popleft() if self._system else self._queue.popleft()

    def qsize(self) -> int:
        """Return how many envelopes wait, on both lanes."""
        return len(self._queue) + len(self._system)

    def empty(self) -> bool:
        """Whether nothing waits, on either lane."""
        return not self._queue and not self._system

    def full(self) -> bool:
        """Whether a message from outside finds no room; a closed mailbox is always full."""
        return len(self._queue) >= self._room

    @property
    def closed(self) -> bool:
        """Whether the mailbox takes no more messages from outside."""
        return self._room == 0

    def offer(self, envelope: Envelope) -> bool:
        """Take a message from outside if there is room, and say whether there was."""
        queue = self._queue
        if len(queue) >= self._room:
            return False
        queue.append(envelope)
        if self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
        return True

    def admit(self, envelope: Envelope) -> None:
        """Take what the actor itself has ordered, whether or not there is room."""
        self._queue.append(envelope)
        self._wake(self._getters)

    def command(self, envelope: Envelope) -> None:
        """Put a command of the runtime on the system lane."""
        self._system.append(envelope)
        self._wake(self._getters)

    def take(self) -> Envelope | None:
        """Return the next envelope, or ``None`` when there is none: ``get`` waits for one."""
        if self._system:
            return self._system.popleft()
        if not self._queue:
            return None
        envelope = self._queue.popleft()
        if self._putters:
            self._wake(self._putters)
        return envelope

    def lanes(self) -> tuple[deque[Envelope], deque[Envelope], deque[Future[None]]]:
        """Return the system lane, the messages and the senders who wait for room, for the one loop that reads them.

        Whoever takes a message while senders wait calls ``make_room``.
        """
        return self._system, self._queue, self._putters

    def make_room(self) -> None:
        """Wake the sender who has waited longest."""
        self._wake(self._putters)

    def arrival(self) -> Future[None]:
        """Return what is done when something has arrived; for the one reader of an empty mailbox."""
        getter: Future[None] = asyncio.get_running_loop().create_future()
        self._getters.append(getter)
        return getter

    def oldest(self) -> Envelope:
        """Remove and return the message that has waited longest, to make room."""
        return self._queue.popleft()

    def close(self) -> None:
        """Take no more messages from outside, and send away those who wait for room."""
        self._room = 0
        while self._putters:
            self._wake(self._putters)

    async def room(self, envelope: Envelope) -> None:
        """Wait until there may be room, the mailbox has closed, or the asker is out of time: then look again."""
        room = envelope.room = asyncio.get_running_loop().create_future()
        self._putters.append(room)
        try:
            await room
        except asyncio.CancelledError:
            self._pass_on(room)
            raise
        if envelope.reply is not None and envelope.reply.done():
            self._pass_on(room)

    def _pass_on(self, room: Future[None]) -> None:
        """Wait no longer; if the place was this one's, let the next one have it."""
        if room in self._putters:
            self._putters.remove(room)
        elif not self.full():
            self._wake(self._putters)

    @staticmethod
    def _wake(waiters: deque[Future[None]]) -> None:
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
