"""The tasks in which actors have their turns: one is on duty for all of them, and stays with whoever has to wait."""

import asyncio
from asyncio import Future, Task
from collections import deque
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import Any, Final, Protocol

from actors.runtime.tasks import Tasks

SPARE: Final = 16  # tasks kept for the next actors that have to wait: a new one costs more than most turns
TURNS: Final = 64  # turns that are given before the others in the loop have theirs


class Player(Protocol):
    """What has turns: an actor.

    Attributes:
        context: where its code runs.
        task: in which task it has its turn; ``None`` between two of them.
    """

    context: Context
    task: Task[Any] | None

    def turn(self) -> Coroutine[Any, Any, None]:
        """Handle what waits; whatever fails in it is its own affair, so that only a cancellation comes out of it."""


class Crew:
    """The tasks that give a system's actors their turns, in the order in which they were called.

    A task for each actor would sleep most of its life, and wake by way of the loop for each message. So a single one
    is on duty: it gives one turn after the other, and most of them end without waiting for anything. An actor that has
    to wait keeps the task that it has, as if it were its own, until its turn is over; another one goes on duty then.

    Args:
        loop: the loop that runs them.

    Attributes:
        stints: how many times a task has begun to give turns, or gone on with it: it moves as long as the actors do.
    """

    __slots__ = ("_closing", "_loop", "_on_duty", "_ready", "_resting", "_starting", "_tasks", "stints")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks = Tasks(loop)
        self._ready: deque[Player] = deque()
        self._resting: list[Future[bool]] = []
        self.stints = 0
        self._on_duty = False
        self._starting: Task[None] | None = None
        self._closing = False

    def call(self, player: Player) -> None:
        """Let an actor have a turn, soon; until that begins it is not called again."""
        self._ready.append(player)
        if not self._on_duty:
            self._go_on_duty()

    async def close(self) -> None:
        """Wait for the end of the turns at hand, and of the tasks; in the end cancel those that go on regardless."""
        self._closing = True
        while self._resting:
            _ring(self._resting.pop(), duty=False)
        await self._tasks.wait()
        await self._tasks.cancel()

    def _go_on_duty(self) -> None:
        self._on_duty = True
        while self._resting:
            if _ring(self._resting.pop(), duty=True):
                return
        self._starting = self._tasks.start(self._work(), name="actors", done=self._ended)

    def _ended(self, task: Task[None]) -> None:
        """Let another task do what one was started for that was cancelled before it ran."""
        if task is self._starting:
            self._starting = None
            self._relieve()

    def _relieve(self) -> None:
        self._on_duty = False
        if self._ready:
            self._go_on_duty()

    async def _work(self) -> None:
        task, self._starting = self._starting, None
        while task is not None and await self._give_turns(task) and len(self._resting) < SPARE and not self._closing:
            bell: Future[bool] = self._loop.create_future()
            self._resting.append(bell)
            try:
                if not await bell:
                    return
            except BaseException:
                self._leave(bell)
                raise

    def _leave(self, bell: Future[bool]) -> None:
        """Wait for no duty any more; one for which the bell has been rung is another's."""
        if bell in self._resting:
            self._resting.remove(bell)
        elif not bell.cancelled() and bell.result():
            self._relieve()

    async def _give_turns(self, task: Task[Any]) -> bool:
        """Give turns until nobody is to have one, or another task is on duty; say whether this one can be used again.

        One that has been cancelled can't: what is left of that is not for the next actor.
        """
        ready, on_duty = self._ready, True
        try:
            while ready:
                self.stints += 1
                for _ in range(TURNS):
                    if not ready:
                        return True
                    player = ready.popleft()
                    player.task = task
                    turn = player.turn()
                    try:
                        awaited = player.context.run(turn.send, None)
                    except StopIteration:
                        player.task = None
                        if task.cancelling():
                            return False
                        continue
                    on_duty = False
                    self._relieve()
                    try:
                        await _Remainder(player.context, turn, awaited)
                    finally:
                        player.task = None
                    if self._on_duty or task.cancelling():
                        return not task.cancelling()
                    on_duty = self._on_duty = True
                    break
                else:
                    await asyncio.sleep(0)
        finally:
            if on_duty:
                self._relieve()
        return True


class _Remainder:
    """What is left of a turn that had to wait: the rest of its steps, each in the actor's context.

    Args:
        context: where they run.
        turn: what has been begun.
        awaited: what it waits for, handed to the loop at the first step.
    """

    __slots__ = ("_awaited", "_context", "_turn")

    def __init__(self, context: Context, turn: Coroutine[Any, Any, None], awaited: object) -> None:
        self._context = context
        self._turn = turn
        self._awaited: list[object] = [awaited]

    def __await__(self) -> Generator[Any, None, None]:
        return self  # type: ignore[return-value]

    def __iter__(self) -> "_Remainder":
        return self

    def __next__(self) -> object:
        return self._awaited.pop() if self._awaited else self._context.run(self._turn.send, None)

    def throw(self, *error: Any) -> object:  # noqa: ANN401 - as a generator's
        """Let the turn go on with an exception, which is how a task is cancelled."""
        return self._context.run(self._turn.throw, *error)

    def close(self) -> None:
        """Give the turn up."""
        self._turn.close()


def _ring(bell: Future[bool], *, duty: bool) -> bool:
    if bell.done():
        return False
    bell.set_result(duty)
    return True
