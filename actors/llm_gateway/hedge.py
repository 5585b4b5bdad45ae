"""A second call beside one that is slow to begin: whichever brings content first gives the answer."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from actors.runtime import Clock
from protocol.errors import TidegateError
from protocol.gateway import Progress, ProgressSink

T = TypeVar("T")

Ask = Callable[[ProgressSink], Coroutine[Any, Any, T]]
"""Makes a call that tells this sink, and returns what comes of it."""


class Race(Generic[T]):
    """At most two calls for one answer. It runs once.

    The first content, or the end of a good answer without any, decides: the other call is cancelled in that moment, and
    nothing of its content is told. The calls are tasks of ``run``, which ends when both have, and cancels both when it
    is cancelled.

    Args:
        clock: the time.
        sink: is told what the calls tell; None for nobody.
    """

    __slots__ = ("_clock", "_last", "_news", "_runners", "_sink", "_winner")

    def __init__(self, clock: Clock, sink: ProgressSink | None) -> None:
        self._clock = clock
        self._sink = sink
        self._news = asyncio.Event()
        self._runners: list[_Runner[T]] = []
        self._winner: _Runner[T] | None = None
        self._last: _Runner[T] | None = None

    async def run(self, first: Ask[T], *, after: float, second: Callable[[], Ask[T] | None]) -> T:
        """Return what comes of the call that wins, or where none does of the one that ends last.

        Args:
            first: the call that is made at once.
            after: how many seconds it has for its first content.
            second: is asked for another call when they are over; None for none.

        Raises:
            TidegateError: the failure of that call.
        """
        timer = self._clock.call_at(self._clock.time() + after, self._news.set)
        try:
            async with asyncio.TaskGroup() as group:
                self._begin(group, first)
                await self._news.wait()
                if self._winner is None and self._last is None and (ask := second()) is not None:
                    self._begin(group, ask)
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
        """Say whether the answer is this call's: it is of the first one that asks."""
        if self._winner is None:
            self._winner = runner
            self._news.set()
            for other in self._runners:
                if other is not runner:
                    other.cancel()
        return self._winner is runner

    def ended(self, runner: "_Runner[T]") -> None:
        """Hear that a call has come to its end by itself."""
        self._last = runner
        self._news.set()

    async def tell(self, progress: Progress) -> None:
        """Pass on what a call tells."""
        if self._sink is not None:
            await self._sink.tell(progress)

    def _begin(self, group: asyncio.TaskGroup, ask: Ask[T]) -> None:
        runner = _Runner(self)
        self._runners.append(runner)
        runner.begin(group, ask)


class _Runner(Generic[T]):
    """One of the calls; it is the sink that the call tells.

    Args:
        race: whose it is.
    """

    __slots__ = ("_ended", "_error", "_race", "_task")

    def __init__(self, race: Race[T]) -> None:
        self._race = race
        self._task: asyncio.Task[None] | None = None
        self._error: TidegateError | None = None
        self._ended: list[T] = []

    def begin(self, group: asyncio.TaskGroup, ask: Ask[T]) -> None:
        """Make the call in a task of ``group``."""
        self._task = group.create_task(self._run(ask))

    def cancel(self) -> None:
        """Give the call up."""
        if self._task is not None:
            self._task.cancel()

    def result(self) -> T:
        """Return what came of the call; it has ended.

        Raises:
            TidegateError: it failed.
        """
        if self._error is not None:
            raise self._error
        return self._ended[0]

    def forget(self) -> None:
        """Let go of a failure, whose traceback holds this."""
        self._error = None

    async def tell(self, progress: Progress) -> None:
        """Take what the call tells: content and a good end are for the one whose the answer is."""
        good = progress.attempt is not None and not progress.attempt.error
        if (progress.events or good) and not self._race.claims(self):
            return
        await self._race.tell(progress)

    async def _run(self, ask: Ask[T]) -> None:
        try:
            self._ended.append(await ask(self))
        except TidegateError as error:
            self._error = error
        self._race.ended(self)
