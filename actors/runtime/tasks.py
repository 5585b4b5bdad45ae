"""Every task has an owner: a strong reference while it runs, and an end no later than the system's."""

import asyncio
import logging
from asyncio import Task
from collections.abc import Callable, Coroutine
from contextvars import Context
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
        """Run ``work`` in a task of its own, in ``context`` or in an empty one: nothing is inherited from the caller.

        It never starts before this returns, whatever task factory the loop has.

        Args:
            work: what to run.
            name: of the task.
            context: where it runs.
            done: is called with the ended task, and has to call ``forget`` with it; by default only that happens.
        """
        task = Task(work, loop=self._loop, name=name, context=Context() if context is None else context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard if done is None else done)
        return task

    def forget(self, task: Task[Any]) -> None:
        """Own an ended task no longer."""
        self._tasks.discard(task)

    def log_failure(self, task: Task[Any]) -> None:
        """Log the failure of a task whose result may never be read."""
        task.add_done_callback(self._report)

    async def cancel(self) -> None:
        """Cancel all tasks and wait for their end; cancel tasks that go on regardless again."""
        current = asyncio.current_task()
        for _ in range(ROUNDS):
            if not (pending := self._others(current)):
                return
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=ROUND)
        if pending := self._others(current):
            names = ", ".join(sorted(task.get_name() for task in pending))
            self._log.error("tasks go on after %d cancellations: %s", ROUNDS, names)

    def _others(self, current: Task[Any] | None) -> set[Task[Any]]:
        return self._tasks - {current}

    def _report(self, task: Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("background task %s failed", task.get_name(), exc_info=error)
