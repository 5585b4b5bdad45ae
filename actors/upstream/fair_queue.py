"""A bounded line of waiting calls that serves tenants in turn."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from protocol.errors import Overloaded, TidegateError

T = TypeVar("T")


class _Turn(Generic[T]):
    """A call that waits: what it gets when its turn comes, and how large it is."""

    __slots__ = ("given", "size")

    def __init__(self, size: int) -> None:
        self.given: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.size = size


class Line(Generic[T]):
    """Calls that wait for something that is handed out one by one.

    It goes to the next tenant in turn, and of a tenant's calls to the first that came. Where the line is full, a tenant
    with fewer calls in it takes the place of the last one of the tenant with the most.

    Args:
        bound: the most calls in it.
        full: makes the error for a call that has no place in it, or no more.
    """

    __slots__ = ("_bound", "_full", "_waiting", "queued")

    def __init__(self, bound: int, full: Callable[[], Overloaded]) -> None:
        self._bound = bound
        self._full = full
        self._waiting: dict[str, deque[_Turn[T]]] = {}
        self.queued = 0

    @property
    def sizes(self) -> int:
        """The sizes of all that wait, together."""
        return sum(turn.size for turns in self._waiting.values() for turn in turns)

    @property
    def next_size(self) -> int | None:
        """The size of the call whose turn is next; None where nobody waits."""
        for tenant in self._waiting:
            return self._waiting[tenant][0].size
        return None

    async def wait(self, tenant: str, back: Callable[[T], object], *, size: int = 0) -> T:
        """Return what is handed over when the turn has come; ``back`` gets it where nobody is there to take it.

        Raises:
            Overloaded: the line is full, or the place in it went to another tenant.
            TidegateError: what ``refuse`` was given.
        """
        if self.queued >= self._bound:
            self._make_room(tenant)
        turn: _Turn[T] = _Turn(size)
        self._waiting.setdefault(tenant, deque()).append(turn)
        self.queued += 1
        try:
            return await turn.given
        except asyncio.CancelledError:
            if turn.given.cancelled():
                self._forget(tenant, turn)
            elif turn.given.exception() is None:
                back(turn.given.result())
            raise
        finally:
            del turn  # what failed holds its error, and that holds this frame

    def hand(self, given: T) -> bool:
        """Give this to the next in turn; False where nobody waits."""
        turn = self._next()
        if turn is None:
            return False
        turn.given.set_result(given)
        return True

    def refuse(self, error: TidegateError) -> bool:
        """Let the next in turn fail with this; False where nobody waits."""
        turn = self._next()
        if turn is None:
            return False
        turn.given.set_exception(error)
        return True

    def _next(self) -> _Turn[T] | None:
        """Take the next in turn out of the line."""
        while self._waiting:
            tenant = next(iter(self._waiting))
            turns = self._waiting.pop(tenant)
            turn = turns.popleft()
            self.queued -= 1
            if turns:
                self._waiting[tenant] = turns
            if not turn.given.done():
                return turn
        return None

    def _make_room(self, tenant: str) -> None:
        most = max(self._waiting, key=lambda other: len(self._waiting[other]), default=tenant)
        if len(self._waiting.get(most, ())) <= len(self._waiting.get(tenant, ())) + 1:
            raise self._full()
        turn = self._waiting[most].pop()
        self.queued -= 1
        if not turn.given.done():
            turn.given.set_exception(self._full())

    def _forget(self, tenant: str, turn: _Turn[T]) -> None:
        turns = self._waiting.get(tenant, ())
        if turn in turns:
            self._waiting[tenant].remove(turn)
            self.queued -= 1
            if not self._waiting[tenant]:
                del self._waiting[tenant]
