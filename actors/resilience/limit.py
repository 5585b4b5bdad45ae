"""Bounded concurrency: so many calls at once, so many that wait, and an error for one more."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from protocol.errors import Overloaded

P = ParamSpec("P")
T = TypeVar("T")

WAITING: Final = 256  # calls


class ConcurrencyLimit:
    """A bound on concurrent calls with a bounded queue, first come first served.

    ::

        limited = limit(10)
        fetch = limited(fetch)                       # a function whose calls share the limit
        pages = await limited.run(lambda: get(url))  # a single call within the same limit

    Args:
        concurrency: calls at once; at least 1.
        waiting: calls that may wait for a place; one more raises ``Overloaded``.

    Attributes:
        running: calls at work now.
        queued: calls that wait for a place now.
    """

    __slots__ = ("_concurrency", "_semaphore", "_waiting", "queued", "running")

    def __init__(self, concurrency: int, *, waiting: int = WAITING) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be positive, got {concurrency}")
        if waiting < 0:
            raise ValueError(f"waiting must not be negative, got {waiting}")
        self._concurrency = concurrency
        self._waiting = waiting
        self._semaphore = asyncio.Semaphore(concurrency)
        self.running = 0
        self.queued = 0

    def __call__(self, work: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return ``work`` with this limit: all functions that it is given to share the places."""

        @wraps(work)
        async def limited(*args: P.args, **kwargs: P.kwargs) -> T:
            return await self.run(lambda: work(*args, **kwargs))

        return limited

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Wait for a place, await ``work()`` in it, and return the result.

        Raises:
            Overloaded: ``waiting`` calls wait already.
        """
        if self._semaphore.locked() and self.queued >= self._waiting:
            raise Overloaded(f"{self.running} calls are running and {self.queued} waiting")
        self.queued += 1
        try:
            await self._semaphore.acquire()
        finally:
            self.queued -= 1
        self.running += 1
        try:
            return await work()
        finally:
            self.running -= 1
            self._semaphore.release()


def limit(concurrency: int, *, waiting: int = WAITING) -> ConcurrencyLimit:
    """Return a limit of ``concurrency`` calls at once, with at most ``waiting`` calls in its queue.

    ``limit(10)(work)`` is ``work`` with a limit of its own; ``@limit(10)`` decorates a function.
    """
    return ConcurrencyLimit(concurrency, waiting=waiting)
