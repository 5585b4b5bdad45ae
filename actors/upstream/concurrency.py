"""Concurrency limit of one provider."""

from typing import Final

from actors.upstream.fair_queue import FairQueue
from protocol.errors import Overloaded

RETRY_AFTER: Final = 1.0  # seconds


class ConcurrencyLimiter:
    """Bounds the calls to a provider that are under way, and those that wait for a place.

    A place that becomes free goes to the next call of the ``FairQueue``.

    Args:
        name: the provider's.
        concurrency: calls under way at once; at least 1.
        queue: calls that may wait for a place.
    """

    __slots__ = ("_concurrency", "_name", "_waiting", "in_flight", "queue")

    def __init__(self, name: str, *, concurrency: int, queue: int) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be positive, got {concurrency}")
        self._name = name
        self._concurrency = concurrency
        self._waiting: FairQueue[None] = FairQueue(queue, self._full)
        self.queue = queue
        self.in_flight = 0

    @property
    def queued(self) -> int:
        """How many calls wait."""
        return self._waiting.queued

    @property
    def free(self) -> bool:
        """Whether ``acquire`` would not wait."""
        return self.in_flight < self._concurrency and not self._waiting.queued

    def acquire_nowait(self) -> None:
        """Take a place; only while ``free``."""
        self.in_flight += 1

    async def acquire(self, tenant: str = "") -> None:
        """Wait for a place, which ``release`` gives back.

        Raises:
            Overloaded: ``provider_overloaded``: the queue is full, or the place in it went to another tenant.
        """
        if self.free:
            self.acquire_nowait()
        else:
            await self._waiting.wait(tenant, self._unclaimed)

    def release(self) -> None:
        """Pass the place on to the next waiting call, or give it back."""
        if not self._waiting.queued or not self._waiting.grant(None):
            self.in_flight -= 1

    def _unclaimed(self, _place: None) -> None:
        self.release()

    def _full(self) -> Overloaded:
        message = f"{self._name} has {self.in_flight} calls under way and {self.queued} waiting"
        return Overloaded(message, code="provider_overloaded", retry_after=RETRY_AFTER)
