"""Who may call a provider now, who waits, and who is turned away."""

import asyncio
from collections import deque
from typing import Final

from protocol.errors import Overloaded

RETRY_AFTER: Final = 1.0  # seconds


class Lane:
    """A provider's bounded concurrency with its bounded queue, shared fairly between tenants.

    A place that gets free goes to the next tenant in turn, and of a tenant's calls to the first that came. Where the
    queue is full, a tenant with fewer calls in it takes the place of the last one of the tenant with the most.

    Args:
        name: the provider's.
        concurrency: calls under way at once; at least 1.
        queue: calls that may wait for a place.
    """

    __slots__ = ("_concurrency", "_name", "_queue", "_waiting", "in_flight", "queued")

    def __init__(self, name: str, *, concurrency: int, queue: int) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be positive, got {concurrency}")
        self._name = name
        self._concurrency = concurrency
        self._queue = queue
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self.in_flight = 0
        self.queued = 0

    @property
    def free(self) -> bool:
        """Whether entering would not wait."""
        return self.in_flight < self._concurrency and not self.queued

    async def enter(self, tenant: str = "") -> None:
        """Wait for a place; whoever got one has to ``leave``.

        Raises:
            Overloaded: ``provider_overloaded``: the queue is full, or the place in it went to another tenant.
        """
        if self.free:
            self.in_flight += 1
            return
        if self.queued >= self._queue:
            self._make_room(tenant)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        self.queued += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._forget(tenant, turn)
            elif turn.exception() is None:
                self.leave()
            raise

    def leave(self) -> None:
        """Hand the place on to the next in turn, or give it back."""
        while self._waiting:
            tenant = next(iter(self._waiting))
            turns = self._waiting.pop(tenant)
            turn = turns.popleft()
            self.queued -= 1
            if turns:
                self._waiting[tenant] = turns
            if not turn.done():
                turn.set_result(None)
                return
        self.in_flight -= 1

    def _make_room(self, tenant: str) -> None:
        most = max(self._waiting, key=lambda other: len(self._waiting[other]), default=tenant)
        if len(self._waiting.get(most, ())) <= len(self._waiting.get(tenant, ())) + 1:
            raise self._full()
        turn = self._waiting[most].pop()
        self.queued -= 1
        if not turn.done():
            turn.set_exception(self._full())

    def _forget(self, tenant: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(tenant, ())
        if turn in turns:
            self._waiting[tenant].remove(turn)
            self.queued -= 1
            if not self._waiting[tenant]:
                del self._waiting[tenant]

    def _full(self) -> Overloaded:
        message = f"{self._name} has {self.in_flight} calls under way and {self.queued} waiting"
        return Overloaded(message, code="provider_overloaded", retry_after=RETRY_AFTER)
