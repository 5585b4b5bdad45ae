"""Bounded queue of waiting calls that serves tenants in turn."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from actors.fair_shares import FairShares
from protocol.errors import Overloaded, TidegateError

T = TypeVar("T")


class _Waiter(Generic[T]):
    """One waiting call: the future of what it waits for, and its size."""

    __slots__ = ("granted", "size")

    def __init__(self, size: int) -> None:
        self.granted: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.size = size


class FairQueue(Generic[T]):
    """Calls that wait for values that are granted one by one.

    A value goes to the next tenant in turn, and to the first call of that tenant. The places are shared by the tenants,
    as ``FairShares`` says: where the queue is full, a tenant with fewer calls in it takes the place of the last call of
    the tenant that is furthest above its floor. The last one: its caller has waited for the shortest time.

    Args:
        bound: the most calls in it.
        full: makes the error for a call that finds no place in it, or loses its place.
    """

    __slots__ = ("_full", "_shares", "_waiting", "queued")

    def __init__(self, bound: int, full: Callable[[], Overloaded]) -> None:
        self._shares = FairShares(bound)
        self._full = full
        self._waiting: dict[str, deque[_Waiter[T]]] = {}
        self.queued = 0

    @property
    def total_size(self) -> int:
        """The sizes of all waiting calls together."""
        return sum(waiter.size for waiters in self._waiting.values() for waiter in waiters)

    @property
    def next_size(self) -> int | None:
        """The size of the call that is next; None where no call waits."""
        for tenant in self._waiting:
            return self._waiting[tenant][0].size
        return None

    async def wait(self, tenant: str, unclaimed: Callable[[T], object], *, size: int = 0) -> T:
        """Wait for a value and return it.

        Args:
            tenant: whose call waits.
            unclaimed: takes a value that was granted to a call which is cancelled in that moment.
            size: the call's, for ``next_size`` and ``total_size``.

        Raises:
            Overloaded: the queue is full, or the place in it went to another tenant.
            TidegateError: the error of ``fail_next``.
        """
        self._take_place(tenant)
        waiter: _Waiter[T] = _Waiter(size)
        self._waiting.setdefault(tenant, deque()).append(waiter)
        self.queued += 1
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.cancelled():
                self._remove(tenant, waiter)
            elif waiter.granted.exception() is None:
                unclaimed(waiter.granted.result())
            raise
        finally:
            del waiter  # a failed one holds its error, and that holds this frame

    def grant(self, value: T) -> bool:
        """Give ``value`` to the next call; False where no call waits."""
        waiter = self._next()
        if waiter is None:
            return False
        waiter.granted.set_result(value)
        return True

    def fail_next(self, error: TidegateError) -> bool:
        """Let the next call fail with ``error``; False where no call waits."""
        waiter = self._next()
        if waiter is None:
            return False
        waiter.granted.set_exception(error)
        return True

    def _next(self) -> _Waiter[T] | None:
        """Take the next call out of the queue; its tenant then goes to the end of the turn."""
        while self._waiting:
            tenant = next(iter(self._waiting))
            waiters = self._waiting.pop(tenant)
            waiter = waiters.popleft()
            self._give_back(tenant)
            if waiters:
                self._waiting[tenant] = waiters
            if not waiter.granted.done():
                return waiter
        return None

    def _take_place(self, tenant: str) -> None:
        while not self._shares.take(tenant):
            victim = self._shares.furthest_above(tenant)
            if victim is None or victim == tenant:
                raise self._full()
            waiter = self._waiting[victim].pop()
            if not self._waiting[victim]:
                del self._waiting[victim]
            self._give_back(victim)
            if not waiter.granted.done():
                waiter.granted.set_exception(self._full())

    def _give_back(self, tenant: str) -> None:
        self._shares.give_back(tenant)
        self.queued -= 1

    def _remove(self, tenant: str, waiter: _Waiter[T]) -> None:
        waiters = self._waiting.get(tenant, ())
        if waiter in waiters:
            self._waiting[tenant].remove(waiter)
            self._give_back(tenant)
            if not self._waiting[tenant]:
                del self._waiting[tenant]
