"""Who may call a provider now, who waits, and who is turned away."""

import asyncio
from collections import deque
from typing import Final

from protocol.errors import Overloaded

RETRY_AFTER: Final = 1.0  # seconds


class Lane:
    """A provider's bounded concurrency with its bounded queue, first come, first served.

    Args:
        name: the provider's.
        concurrency: calls under way at once; at least 1.
        queue: calls that may wait for a place.
    """

    __slots__ = ("_concurrency", "_name", "_queue", "_waiting", "in_flight")

    def __init__(self, name: str, *, concurrency: int, queue: int) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be positive, got {concurrency}")
        self._name = name
        self._concurrency = concurrency
        self._queue = queue
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.in_flight = 0

    @property
    def queued(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    @property
    def free(self) -> bool:
        """Whether entering would not wait."""
        return self.in_flight < self._concurrency and not self._waiting

    async def enter(self) -> None:
        """Wait for a place; whoever got one has to ``leave``.

        Raises:
            Overloaded: ``provider_overloaded``: the queue is full.
        """
        if self.free:
            self.in_flight += 1
            return
        if len(self._waiting) >= self._queue:
            message = f"{self._name} has {self.in_flight} calls under way and {self.queued} waiting"
            raise Overloaded(message, code="provider_overloaded", retry_after=RETRY_AFTER)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            else:
                self._waiting.remove(turn)
            raise

    def leave(self) -> None:
        """Hand the place on to the next in the queue, or give it back."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.in_flight -= 1
