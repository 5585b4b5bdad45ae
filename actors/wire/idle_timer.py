"""Things that may stay for a while, on one timer."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Expiry(Generic[T]):
    """A set in the order of adding; what has been in it for too long is taken out.

    Adding and removing cost no timer: the one timer looks, when it fires, whose time is up.

    Args:
        seconds: how long a thing may stay.
        expired: called with each whose time was up, once it is taken out.
    """

    __slots__ = ("_due", "_expired", "_loop", "_seconds", "_timer")

    def __init__(self, seconds: float, expired: Callable[[T], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._expired = expired
        self._due: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, thing: T) -> bool:
        return thing in self._due

    def __iter__(self) -> Iterator[T]:
        """Go through them, the oldest first."""
        return iter(self._due)

    def add(self, thing: T) -> None:
        """Let it stay from now on."""
        due = self._due[thing] = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._look)

    def remove(self, thing: T) -> None:
        """Take it out; nothing happens where it is not in."""
        self._due.pop(thing, None)

    def close(self) -> None:
        """Take all of them out; nobody is told."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        over = []
        for thing, due in self._due.items():
            if due > now:
                self._timer = self._loop.call_at(due, self._look)
                break
            over.append(thing)
        for thing in over:
            del self._due[thing]
            self._expired(thing)
