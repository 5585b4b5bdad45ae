"""The tasks in which actors have their turns: one is on duty for all of them, and stays with whoever has to wait."""

import asyncio
from asyncio import Future, Task
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from types import coroutine
from typing import Any, Final, Protocol

from actors.runtime.tasks import Tasks

SPARE: Final = 16  # tasks kept for the next actors that have to wait: a new one costs more than most turns
TURNS: Final = 64  # turns that are given before the others in the loop have theirs


IDLE: Final = object()


@coroutine
def pause() -> Generator[object, None, None]:
    """End an actor's turn; what comes after this is its next one."""
    yield IDLE


@coroutine
def _let_others_go_on() -> Generator[None, None, None]:
    """Do what ``asyncio.sleep(0)`` does, in one step: whatever else is due in the loop comes first."""
    yield


class Player(Protocol):
    """What has turns: an actor.

    Attributes:
        context: where its code runs.
        life: its turns, with a ``pause`` after each but the last; whatever fails in it is its own affair, so that only
            a cancellation comes out of it.
        task: in which task it has its turn; ``None`` between two of them.
    """

    context: Context
    life: Coroutine[Any, Any, None]
    task: Task[Any] | None


class Crew:
    """The tasks that give a system's actors their turns, in the order in which they were called.

    A task for each actor would sleep most of its life, and wake by way of the loop for each message. So a single one
    is on duty: it gives one turn after the other, and most of them end without waiting for anything. An actor that has
    to wait keeps the task that it has, as if it were its own, until its turn is over; another one goes on duty then.

    After the last turn it stays for one more pass of the loop before it rests: whoever was answered in the turns goes
    on in that pass, and often with the next message, which then has nobody to wake.

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
            bell = self._resting.pop()
            if not bell.done():
                bell.set_result(False)
        await self._tasks.wait()
        await self._tasks.cancel()

    def _go_on_duty(self) -> None:
        self._on_duty = True
        while self._resting:
            bell = self._resting.pop()
            if not bell.done():
                bell.set_result(True)
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

    def _leave(self, bell: Future[bool]) -> None:
        """Wait for no duty any more; one for which the bell has been rung is another's."""
        if bell in self._resting:
            self._resting.remove(bell)
        elif not bell.cancelled() and bell.result():
            self._relieve()

    async def _work(self) -> None:  # noqa: C901, PLR0912 - each branch is one way in which a turn may end
        """Give turns while on duty, and rest in between.

        A task that has been cancelled ends: what is left of that is not for the next actor.
        """
        task, self._starting = self._starting, None
        ready, resting, on_duty = self._ready, self._resting, True
        try:
            while task is not None:
                self.stints += 1
                left = TURNS
                while on_duty and ready and left:
                    left -= 1
                    player = ready.popleft()
                    player.task = task
                    life = player.life
                    try:
                        awaited = player.context.run(life.send, None)
                    except StopIteration:
                        awaited = IDLE
                    if awaited is not IDLE:
                        on_duty = False
                        self._relieve()
                        await _Remainder(player.context, life, awaited)
                        if not self._on_duty:
                            on_duty = self._on_duty = True
                    player.task = None
                    if task.cancelling():
                        return
                if on_duty:
                    await _let_others_go_on()
                    if ready:
                        continue
                    on_duty = self._on_duty = False
                if self._closing or len(resting) >= SPARE:
                    return
                bell: Future[bool] = self._loop.create_future()
                resting.append(bell)
                try:
                    on_duty = await bell
                except BaseException:
                    self._leave(bell)
                    raise
                if not on_duty:
                    return
        finally:
            if on_duty:
                self._relieve()


class _Remainder:
    """What is left of a turn that had to wait: the rest of its steps, each in the actor's context.

    Args:
        context: where they run.
        life: what has begun a turn.
        awaited: what it waits for, which the loop has not been told yet.
    """

    __slots__ = ("_awaited", "_context", "_life")

    def __init__(self, context: Context, life: Coroutine[Any, Any, None], awaited: object) -> None:
        self._context = context
        self._life = life
        self._awaited = awaited

    def __await__(self) -> Generator[Any, None, None]:
        return self  # type: ignore[return-value]

    def __iter__(self) -> "_Remainder":
        return self

    def __next__(self) -> object:
        awaited, self._awaited = self._awaited, IDLE
        return self._step(self._life.send, None) if awaited is IDLE else awaited

    def throw(self, *error: Any) -> object:  # noqa: ANN401 - as a generator's
        """Let the turn go on with an exception, which is how a task is cancelled."""
        self._awaited = IDLE
        return self._step(self._life.throw, *error)

    def close(self) -> None:
        """Give the turn up, and all that would come after."""
        self._life.close()

    def _step(self, go_on: Callable[..., object], *args: Any) -> object:  # noqa: ANN401 - as a generator's
        awaited = self._context.run(go_on, *args)
        if awaited is IDLE:
            raise StopIteration
        return awaited
