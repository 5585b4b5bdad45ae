"""Hedging: a second call beside one that is slow to begin; the first content decides which one gives the answer."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from actors.runtime import Clock
from protocol.errors import TidegateError
from protocol.gateway import Progress, ProgressSink

T = TypeVar("T")

MakeCall = Callable[[ProgressSink], Coroutine[Any, Any, T]]
"""Makes a call that sends its progress to this sink, and returns its result."""


class Race(Generic[T]):
    """At most two calls for one answer. It runs once.

    ::

        first call ──content──► decided
            └──after──► both calls ──content of one──► decided: the other is cancelled

    The first content, or the end of a good answer without any, decides: the other call is cancelled in that moment, and
    the sink receives none of its content. The calls are tasks of ``run``, which ends when both have, and cancels both
    when it is cancelled.

    Args:
        clock: the time.
        sink: receives the progress; None for none.
    """

    __slots__ = ("_changed", "_clock", "_last", "_runners", "_sink", "_winner")

    def __init__(self, clock: Clock, sink: ProgressSink | None) -> None:
        self._clock = clock
        self._sink = sink
        self._changed = asyncio.Event()
        self._runners: list[_Runner[T]] = []
        self._winner: _Runner[T] | None = None
        self._last: _Runner[T] | None = None

    async def run(self, first: MakeCall[T], *, after: float, second: Callable[[], MakeCall[T] | None]) -> T:
        """Return the result of the call that wins; where none does, that of the call that ends last.

        Args:
            first: makes the first call, at once.
            after: the seconds that the first call has for its first content.
            second: called after them; returns what makes the second call, or None for no second call.

        Raises:
            TidegateError: the failure of that call.
        """
        timer = self._clock.call_at(self._clock.time() + after, self._changed.set)
        try:
            async with asyncio.TaskGroup() as group:
                self._begin(group, first)
                await self._changed.wait()
                if self._winner is None and self._last is None and (make := second()) is not None:
                    self._begin(group, make)
        finally:
            timer.cancel()
        decisive = self._winner or self._last
        if decisive is None:
            raise asyncio.CancelledError
        try:
            return decisive.result()
        finally:
            for runner in self._runners:
                runner.forget()

    def claims(self, runner: "_Runner[T]") -> bool:
        """Return whether this call gives the answer: the first one that claims it does."""
        if self._winner is None:
            self._winner = runner
            self._changed.set()
            for other in self._runners:
                if other is not runner:
                    other.cancel()
        return self._winner is runner

    def ended(self, runner: "_Runner[T]") -> None:
        """Note that a call has ended by itself."""
        self._last = runner
        self._changed.set()

    async def tell(self, progress: Progress) -> None:
        """Send the progress of a call to the sink."""
        if self._sink is not None:
            await self._sink.tell(progress)

    def _begin(self, group: asyncio.TaskGroup, make: MakeCall[T]) -> None:
        runner = _Runner(self)
        self._runners.append(runner)
        runner.begin(group, make)


class _Runner(Generic[T]):
    """One of the calls, and the sink of its progress.

    Args:
        race: decides whether the progress goes on to the race's own sink.
    """

    __slots__ = ("_error", "_race", "_results", "_task")

    def __init__(self, race: Race[T]) -> None:
        self._race = race
        self._task: asyncio.Task[None] | None = None
        self._error: TidegateError | None = None
        self._results: list[T] = []

    def begin(self, group: asyncio.TaskGroup, make: MakeCall[T]) -> None:
        """Make the call in a task of ``group``."""
        self._task = group.create_task(self._run(make))

    def cancel(self) -> None:
        """Cancel the call."""
        if self._task is not None:
            self._task.cancel()

    def result(self) -> T:
        """Return the result of the call, which has ended.

        Raises:
            TidegateError: it failed.
        """
        if self._error is not None:
            raise self._error
        return self._results[0]

    def forget(self) -> None:
        """Drop a failure, whose traceback holds this."""
        self._error = None

    async def tell(self, progress: Progress) -> None:
        """Receive progress: content and a good end pass only where this call gives the answer."""
        good = progress.attempt is not None and not progress.attempt.error
        if (progress.events or good) and not self._race.claims(self):
            return
        await self._race.tell(progress)

    async def _run(self, make: MakeCall[T]) -> None:
        try:
            self._results.append(await make(self))
        except TidegateError as error:
            self._error = error
        self._race.ended(self)
