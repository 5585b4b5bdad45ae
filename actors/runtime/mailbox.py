"""The mailbox of an actor: a bounded ``asyncio.Queue`` with a second lane for commands of the runtime."""

import asyncio
from asyncio import Future
from collections import deque
from collections.abc import Callable
from typing import Literal

from actors.runtime.envelope import Envelope

Overflow = Literal["wait", "reject", "drop_oldest"]


class MailboxClosed(asyncio.QueueFull):
    """The mailbox takes no more messages from outside."""


class Mailbox(asyncio.Queue[Envelope]):
    """A bounded queue with two lanes: commands of the runtime are read before messages.

    ``maxsize`` bounds the messages that come from outside. A sender that finds no room waits in ``put``, as with any
    ``asyncio.Queue``. ``put_internal`` admits messages that the actor sends to itself (timers, results of piped tasks,
    notices of watched actors) also when the queue is full: losing them would lose the actor's state, and the actor
    bounds how many of them are outstanding. The command lane holds at most one command of each class.

    ``put_nowait`` and ``get_nowait`` do only what one consumer needs, so ``join`` and ``task_done`` have no use here.

    Args:
        maxsize: how many messages may wait; at least 1.
        overflow: what happens to a message that finds no room: its sender waits, it is rejected, or the oldest message
            is dropped for it.

    Attributes:
        messages: the lane of the messages.
        commands: the lane of the commands, by their class.
        putters: the senders that wait for room.
        closed: whether it takes no more messages from outside.
    """

    _getters: deque[Future[None]]
    _putters: deque[Future[None]]
    _wakeup_next: Callable[[deque[Future[None]]], None]
    _unfinished_tasks = 0
    _is_shutdown = False

    def __init__(self, maxsize: int, overflow: Overflow) -> None:
        if maxsize < 1:
            raise ValueError(f"capacity must be positive, got {maxsize}")
        if overflow not in {"wait", "reject", "drop_oldest"}:
            raise ValueError(f"overflow must be wait, reject or drop_oldest, got {overflow!r}")
        self.overflow = overflow
        self.closed = False
        self._room = self._maxsize = maxsize
        self._getters = deque()  # not by the base: for ``join`` it makes an event as well
        self.putters = self._putters = deque()
        self.messages: deque[Envelope] = deque()
        self.commands: dict[type, Envelope] = {}

    def qsize(self) -> int:
        """Return how many envelopes wait, on both lanes."""
        return len(self.messages) + len(self.commands)

    def empty(self) -> bool:
        """Whether both lanes are empty."""
        return not (self.messages or self.commands)

    def full(self) -> bool:
        """Whether ``put`` has to wait for room; in a closed mailbox it raises instead."""
        return len(self.messages) >= self._room and not self.closed

    def put_nowait(self, item: Envelope) -> None:
        """Add a message from outside.

        Raises:
            asyncio.QueueFull: there is no room.
            MailboxClosed: the mailbox is closed.
        """
        if len(self.messages) >= self._room:
            raise MailboxClosed if self.closed else asyncio.QueueFull
        self.messages.append(item)
        if self._getters:
            self._wakeup_next(self._getters)

    def put_internal(self, item: Envelope) -> None:
        """Add a message that the actor or the runtime sends, whether or not there is room."""
        self.messages.append(item)
        if self._getters:
            self._wakeup_next(self._getters)

    def put_command(self, item: Envelope) -> None:
        """Add a command, unless one of its class waits already."""
        self.commands.setdefault(type(item.message), item)
        if self._getters:
            self._wakeup_next(self._getters)

    def arrival(self) -> Future[None]:
        """Return a future that is done when an envelope has arrived; the mailbox is empty.

        ``get`` is the same with a coroutine around it, which costs more than the wait.
        """
        getter: Future[None] = asyncio.get_running_loop().create_future()
        self._getters.append(getter)
        return getter

    def get_nowait(self) -> Envelope:
        """Remove and return the next envelope; wake the sender that has waited longest for the room.

        Raises:
            asyncio.QueueEmpty: both lanes are empty.
        """
        if self.commands:
            return self.commands.pop(next(iter(self.commands)))
        try:
            envelope = self.messages.popleft()
        except IndexError:
            raise asyncio.QueueEmpty from None
        if self._putters and not self.full():
            self._wakeup_next(self._putters)
        return envelope

    def drop_oldest(self) -> Envelope | None:
        """Remove and return the message from outside that has waited longest; ``None`` where there is none."""
        for place, envelope in enumerate(self.messages):
            if not envelope.internal:
                del self.messages[place]
                return envelope
        return None

    def close(self) -> None:
        """Take no more messages from outside; the senders that wait for room get ``MailboxClosed``."""
        self.closed = True
        self._room = 0
        while self._putters:
            self._wakeup_next(self._putters)
