"""Every task has an owner: a strong reference while it runs, and an end no later than the system's."""

import asyncio
import logging
from asyncio import Task
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any, Final, TypeVar

T = TypeVar("T")

LOGGER: Final = "tidegate.actors"
ROUND: Final = 5.0  # seconds that cancelled tasks get before they are cancelled once more
ROUNDS: Final = 3  # a task that outlives these is named in the log and left


class Tasks:
    """The tasks of one system.

    Args:
        loop: the loop that runs them.
    """

    __slots__ = ("_log", "_loop", "_tasks")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: set[Task[Any]] = set()
        self._log = logging.getLogger(LOGGER)

    def __len__(self) -> int:
        return len(self._tasks)

    def start(
        self,
        work: Coroutine[Any, Any, T],
        *,
        name: str,
        context: Context | None = None,
        done: Callable[[Task[T]], object] | None = None,
    ) -> Task[T]:
        """Run ``work`` in a task of its own, in ``context`` or an empty one: nothing is inherited from the caller.

        When it has ended, ``done`` is called with the task.
        """
        task = self._loop.create_task(work, name=name, context=Context() if context is None else context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard if done is None else partial(self._ended, done))
        return task

    def watch_over(self, task: Task[Any]) -> None:
        """Log the failure of a task whose result nobody may ever look at."""
        task.add_done_callback(self._report)

    async def wait(self) -> None:
        """Wait for the end of all tasks, those that begin meanwhile included, but no longer than ``ROUND``."""
        until = self._loop.time() + ROUND
        while self._tasks and (left := until - self._loop.time()) > 0:
            await asyncio.wait(self._tasks, timeout=left)

    async def cancel(self) -> None:
        """Cancel all tasks and wait for their end, cancelling again those that go on regardless."""
        present = asyncio.current_task()
        for _ in range(ROUNDS):
            if not (pending := self._others(present)):
                return
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=ROUND)
        if pending := self._others(present):
            names = ", ".join(sorted(task.get_name() for task in pending))
            self._log.error("tasks go on after %d cancellations: %s", ROUNDS, names)

    def _others(self, present: Task[Any] | None) -> set[Task[Any]]:
        return self._tasks - {present}

    def _ended(self, done: Callable[[Task[Any]], object], task: Task[Any]) -> None:
        self._tasks.discard(task)
        done(task)

    def _report(self, task: Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("background task %s failed", task.get_name(), exc_info=error)
