"""Idle timeout for many items, on one event loop timer."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class IdleTimer(Generic[T]):
    """An ordered set that drops each item ``seconds`` after it was added.

    Adding and removing set no timer. One timer runs for the oldest item; it drops every item that is due when it fires.

    Args:
        seconds: how long an item may stay.
        on_expired: called with each item that is due, after it was removed.
    """

    __slots__ = ("_due", "_loop", "_on_expired", "_seconds", "_timer")

    def __init__(self, seconds: float, on_expired: Callable[[T], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._on_expired = on_expired
        self._due: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, item: T) -> bool:
        return item in self._due

    def __iter__(self) -> Iterator[T]:
        """Iterate over the items, the oldest first."""
        return iter(self._due)

    def add(self, item: T) -> None:
        """Add an item; its time starts now."""
        due = self._due[item] = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._fire)

    def remove(self, item: T) -> None:
        """Remove an item; does nothing where it is not in the set."""
        self._due.pop(item, None)

    def close(self) -> None:
        """Remove all items without calling ``on_expired``, and cancel the timer."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        now = self._loop.time()
        expired = []
        for item, due in self._due.items():
            if due > now:
                self._timer = self._loop.call_at(due, self._fire)
                break
            expired.append(item)
        for item in expired:
            del self._due[item]
            self._on_expired(item)
