"""Single flight: concurrent calls with the same key share one execution and its result."""

import asyncio
import logging
from asyncio import AbstractEventLoop, Task
from collections.abc import Awaitable, Callable, Hashable
from contextvars import ContextVar
from typing import Any, Final, TypeVar, cast
from weakref import WeakKeyDictionary

from actors.resilience.retry import LOGGER
from protocol.errors import Overloaded, RequestCancelled

T = TypeVar("T")

MAX_KEYS: Final = 10_000  # executions in flight at once


class _Flight:
    """One execution, and how many callers wait for it."""

    __slots__ = ("task", "token", "waiters")

    def __init__(self, task: Task[Any], token: object) -> None:
        self.token = token
        self.task = task
        self.waiters = 0


class SingleFlight:
    """Executions in flight by key; a result is handed out and then forgotten: this is no cache.

    The execution runs in a task of its own, in the context of the first caller. A caller that is cancelled stops
    waiting; the execution goes on, for the other callers and also without any. A failure reaches every caller that
    waits; where none is left it is logged as a warning.

    Args:
        max_keys: executions in flight at once; one more raises ``Overloaded``.
    """

    __slots__ = ("_flights", "_max_keys")

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        if max_keys < 1:
            raise ValueError(f"max_keys must be positive, got {max_keys}")
        self._flights: dict[Hashable, _Flight] = {}
        self._max_keys = max_keys

    def __len__(self) -> int:
        return len(self._flights)

    async def __call__(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """Return the result of the execution for ``key`` that is in flight, or start ``work()``.

        Raises:
            Exception: what the execution raised, the same object for every caller.
            Overloaded: too many executions are in flight.
            RequestCancelled: the execution itself was cancelled.
        """
        flight = self._flights.get(key) or self._start(key, work)
        if flight.token in _ABOVE.get():
            raise RuntimeError(f"the shared execution of {key!r} waits for itself")
        flight.waiters += 1
        try:
            await asyncio.wait((flight.task,))
        finally:
            flight.waiters -= 1
        try:
            if flight.task.cancelled():
                raise RequestCancelled("the shared execution was cancelled")
            return cast("T", flight.task.result())
        finally:
            del flight  # its failure holds this frame

    def _start(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> _Flight:
        if len(self._flights) >= self._max_keys:
            raise Overloaded(f"{self._max_keys} shared executions are in flight")
        token = object()
        task = asyncio.create_task(_run(work, token), name=f"share {key!r}"[:100])
        flight = self._flights[key] = _Flight(task, token)

        def ended(task: Task[Any]) -> None:
            del self._flights[key]
            if not task.cancelled() and task.exception() is not None and not flight.waiters:
                logging.getLogger(LOGGER).warning(
                    "a shared execution failed and no caller waited for it", exc_info=task.exception()
                )

        flight.task.add_done_callback(ended)
        return flight


_ABOVE: ContextVar[tuple[Any, ...]] = ContextVar("tidegate_share", default=())


async def _run(work: Callable[[], Awaitable[T]], token: object) -> T:
    _ABOVE.set((*_ABOVE.get(), token))
    return await work()


_BY_LOOP: Final[WeakKeyDictionary[AbstractEventLoop, SingleFlight]] = WeakKeyDictionary()
"""The one table that ``share`` needs: of the running loop alone, empty when nothing is in flight, and gone with it."""


async def share(key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
    """Return the result of ``work()``, shared with all callers in this event loop that pass an equal ``key`` meanwhile.

    ``SingleFlight`` is the same with a table of one's own. Begin a key with what it is about, such as
    ``("user", user_id)``: all callers in the program share this one table.

    Raises:
        Exception: what the execution raised, the same object for every caller.
        Overloaded: too many executions are in flight.
        RequestCancelled: the execution itself was cancelled.
    """
    loop = asyncio.get_running_loop()
    flights = _BY_LOOP.get(loop)
    if flights is None:
        flights = _BY_LOOP[loop] = SingleFlight()
    return await flights(key, work)
