import asyncio
import contextlib

import pytest

from actors.runtime import Actor, Keyed, Ref, System, handles
from actors.runtime.testing import TestSystem
from protocol.errors import ActorFailed, AskTimeout, Overloaded
from protocol.message import Message


class Add(Message[int], frozen=True):
    """Returns ``amount``."""

    amount: int = 1


class Begin(Message[None], frozen=True):
    """Begins some work."""


class Note(Message[None], frozen=True):
    """Something that an actor tells itself."""


class Adder(Actor[Add]):
    """Answers, and ends when ``may_end`` is set."""

    def __init__(self, may_end: asyncio.Event) -> None:
        self.may_end = may_end

    async def stopped(self) -> None:
        await self.may_end.wait()

    @handles(Add)
    async def add(self, message: Add) -> int:
        return message.amount


async def succeed(system: System, family: Keyed[Add]) -> list[asyncio.Task[None]]:
    """Leave three actors of one key: one in its stopped hook, one that is stopped and waits for it, and a third."""
    ref = family.ref("key")
    stops = []
    for _ in range(2):
        await ref.tell(Add())
        stops.append(asyncio.create_task(system.stop(ref)))
        await asyncio.sleep(0)
    await ref.tell(Add())
    return stops


async def test_killing_a_family_ends_the_predecessors_of_stopped_successors() -> None:
    """Three actors of one key: the first in its hook, the second stopped and waiting for it, the third new."""
    may_end = asyncio.Event()
    async with System() as system:
        family = system.keyed(lambda _: Adder(may_end), name="adders", idle=60, limit=10)
        stops = await succeed(system, family)
        async with asyncio.timeout(5):
            await family.kill()
            await asyncio.gather(*stops)
        assert system.children() == []


async def test_draining_a_family_keeps_its_deadline_with_predecessors_that_do_not_end() -> None:
    """The same three, and a deadline."""
    may_end = asyncio.Event()
    async with System() as system:
        family = system.keyed(lambda _: Adder(may_end), name="adders", idle=60, limit=10)
        stops = await succeed(system, family)
        async with asyncio.timeout(5):
            await family.drain(deadline=system.clock.time() + 0.05)
            await asyncio.gather(*stops)
        assert system.children() == []


async def test_successors_of_one_key_are_bounded_by_the_limit() -> None:
    """An actor may be stopped and told again without end, while the first one is still in its hook."""
    may_end = asyncio.Event()
    made: list[str] = []
    async with System() as system:

        def make(key: str) -> Adder:
            made.append(key)
            return Adder(may_end)

        ref = system.keyed(make, name="adders", idle=60, limit=10).ref("key")
        assert await ref.ask(Add(), timeout=5) == 1
        stops: list[asyncio.Task[None]] = []

        async def succeed_often() -> None:
            for _ in range(100):
                stops.append(asyncio.create_task(system.stop(ref)))
                await asyncio.sleep(0)
                await ref.tell(Add())

        with pytest.raises(Overloaded):
            await succeed_often()
        assert len(made) <= 21  # ten that are stopping, ten, and one that found no place
        may_end.set()
        await asyncio.gather(*stops)


class Brief(Adder):
    """Ends as soon as it is idle."""

    lingers = False


async def test_an_actor_that_does_not_linger_runs_its_stopped_hook_by_itself() -> None:
    """The command to stop comes before the actor waits for anything; it is not lost."""
    ended = asyncio.Event()

    class Last(Brief):
        async def stopped(self) -> None:
            ended.set()

    async with System() as system:
        ref = system.keyed(lambda _: Last(ended), name="brief", idle=60, limit=1).ref("key")
        assert await ref.ask(Add(), timeout=5) == 1
        async with asyncio.timeout(5):
            await ended.wait()
        assert await ref.ask(Add(2), timeout=5) == 2


class Slip(Actor[Add]):
    """Fails at ``Add(0)``; its stopped hook awaits a task that it has cancelled, which raises ``CancelledError``."""

    backoff = 0.0

    async def started(self) -> None:
        self.task = asyncio.create_task(asyncio.Event().wait())

    async def stopped(self) -> None:
        self.task.cancel()
        await self.task

    @handles(Add)
    async def add(self, message: Add) -> int:
        if message.amount == 0:
            raise ValueError("nothing to add")
        return message.amount


async def test_a_stopped_hook_that_is_cancelled_from_within_does_not_end_the_actor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The hook of a failed instance fails; the next instance serves."""
    async with TestSystem() as system:
        ref = system.spawn(Slip, name="slip")
        with pytest.raises(ActorFailed):
            await ref.ask(Add(0), timeout=1)
        await system.settle()
        assert await ref.ask(Add(3), timeout=1) == 3
    assert "actor slip failed in its stopped hook" in [record.message for record in caplog.records]


class Careless(Actor[Add]):
    """Survives the failure of a task group at ``Add(1)``, and is cancelled from within at ``Add(2)``."""

    backoff = 0.0

    @handles(Add)
    async def add(self, message: Add) -> int:
        if message.amount == 1:
            with contextlib.suppress(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.fail())
        if message.amount == 2:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        return message.amount

    @staticmethod
    async def fail() -> None:
        raise ValueError("a child fails")


async def test_a_task_group_that_failed_does_not_turn_the_next_failure_into_the_end() -> None:
    """The count of cancellations that a failed group leaves behind is reset."""
    async with TestSystem() as system:
        ref = system.spawn(Careless, name="careless")
        first, second, third = await asyncio.gather(
            *(ref.ask(Add(amount), timeout=1) for amount in (1, 2, 3)), return_exceptions=True
        )
    assert (first, third) == (1, 3)
    assert isinstance(second, ActorFailed)


class Asker(Actor[Begin | Note]):
    """Asks, with a callback that raises ``CancelledError``."""

    backoff = 0.0

    def __init__(self, other: Ref[Add]) -> None:
        self.other = other

    @handles(Begin)
    async def begin(self, _: Begin) -> None:
        self.ask_then(self.other, Add(), timeout=1, ok=self.cancelled, err=lambda _: Note())

    @handles(Note)
    async def note(self, message: Note) -> None: ...

    @staticmethod
    def cancelled(_: int) -> Note:
        raise asyncio.CancelledError


async def test_a_callback_that_raises_cancelled_fails_the_asker_alone() -> None:
    """The answerer, in whose task the callback runs, goes on."""
    may_end = asyncio.Event()
    may_end.set()
    async with TestSystem() as system:
        other = system.spawn(lambda: Adder(may_end), name="other")
        asker = system.spawn(lambda: Asker(other), name="asker")
        await asker.tell(Begin())
        await system.settle()
        assert {child.name: child.restarts for child in system.children()} == {"other": 0, "asker": 1}


class Piper(Actor[Begin | Note]):
    """Pipes work that never ends, and fails at a note."""

    backoff = 0.0

    @handles(Begin)
    async def begin(self, _: Begin) -> None:
        self.pipe(asyncio.sleep(0), ok=lambda _: Note(), err=lambda _: Note())
        self.pipe(asyncio.Event().wait(), ok=lambda _: Note(), err=lambda _: Note())

    @handles(Note)
    async def note(self, _: Note) -> None:
        raise ValueError("a note fails")


async def test_a_draining_actor_ends_when_a_restart_aborts_what_was_outstanding() -> None:
    """Nothing is outstanding after the restart, so there is nothing left to wait for."""
    async with TestSystem() as system:
        ref = system.spawn(Piper, name="piper")
        await ref.tell(Begin())
        async with asyncio.timeout(5):  # of real time: the deadline is one of the manual clock
            await system.drain(ref, deadline=system.clock.time() + 60)
        assert system.children() == []


async def test_an_ask_with_no_number_for_a_timeout_spoils_no_other_deadline() -> None:
    """NaN compares with nothing, and would leave the heap of deadlines out of order."""
    async with TestSystem() as system:
        probe = system.probe(Add)
        with pytest.raises(AskTimeout):
            await probe.ref.ask(Add(), timeout=float("nan"))
        asked = asyncio.create_task(probe.ref.ask(Add(), timeout=1))
        await probe.expect(Add)
        await system.advance(2)
        with pytest.raises(AskTimeout):
            await asked
