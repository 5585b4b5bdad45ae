"""Who may call a provider now, who waits, and who is turned away."""

from typing import Final

from actors.upstream.fair_queue import Line
from protocol.errors import Overloaded

RETRY_AFTER: Final = 1.0  # seconds


class Lane:
    """A provider's bounded concurrency with its bounded queue, shared fairly between tenants.

    A place that gets free goes to the next in turn, as ``Line`` says.

    Args:
        name: the provider's.
        concurrency: calls under way at once; at least 1.
        queue: calls that may wait for a place.
    """

    __slots__ = ("_concurrency", "_line", "_name", "in_flight", "queue")

    def __init__(self, name: str, *, concurrency: int, queue: int) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be positive, got {concurrency}")
        self._name = name
        self._concurrency = concurrency
        self._line: Line[None] = Line(queue, self._full)
        self.queue = queue
        self.in_flight = 0

    @property
    def queued(self) -> int:
        """How many calls wait."""
        return self._line.queued

    @property
    def free(self) -> bool:
        """Whether entering would not wait."""
        return self.in_flight < self._concurrency and not self._line.queued

    def take(self) -> None:
        """Take a free place, as ``enter`` does."""
        self.in_flight += 1

    async def enter(self, tenant: str = "") -> None:
        """Wait for a place; whoever got one has to ``leave``.

        Raises:
            Overloaded: ``provider_overloaded``: the queue is full, or the place in it went to another tenant.
        """
        if self.free:
            self.take()
        else:
            await self._line.wait(tenant, self._back)

    def leave(self) -> None:
        """Hand the place on to the next in turn, or give it back."""
        if not self._line.hand(None):
            self.in_flight -= 1

    def _back(self, _place: None) -> None:
        self.leave()

    def _full(self) -> Overloaded:
        message = f"{self._name} has {self.in_flight} calls under way and {self.queued} waiting"
        return Overloaded(message, code="provider_overloaded", retry_after=RETRY_AFTER)
