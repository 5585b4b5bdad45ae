import asyncio
import gc
from contextvars import ContextVar
from typing import Any

import pytest

from actors.runtime import Actor, Ref, System, handles
from actors.runtime.cell import BUDGET
from actors.runtime.testing import TestSystem
from protocol.errors import ActorFailed, ActorStopped
from protocol.message import Message


class Note(Message[int], frozen=True):
    n: int


class Wait(Message[int], frozen=True):
    pass


class End(Message[None], frozen=True):
    pass


class Fail(Message[None], frozen=True):
    pass


class Clerk(Actor[Note | Wait | End | Fail]):
    """Notes at once, and waits for its gate when told to."""

    def __init__(self, gate: asyncio.Event | None = None, seen: list[int] | None = None) -> None:
        self.gate = gate or asyncio.Event()
        self.seen = [] if seen is None else seen

    @handles(Note)
    async def note(self, message: Note) -> int:
        self.seen.append(message.n)
        return message.n

    @handles(Wait)
    async def wait(self, message: Wait) -> int:
        await self.gate.wait()
        return 0

    @handles(End)
    async def end(self, message: End) -> None:
        self.system.kill(self.ref)

    @handles(Fail)
    async def fail(self, message: Fail) -> None:
        raise ValueError("broken")


class Slow(Clerk):
    """Waits long before its restart."""

    backoff = 1000.0


def task_of(name: str) -> "asyncio.Task[Any]":
    """Return the one task of this name."""
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == name)
    return task


def names() -> list[str]:
    """Return the names of all tasks but the test's own."""
    return sorted(task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()})


async def test_each_actor_is_one_task_of_its_name() -> None:
    """The tasks of the loop name every actor, keyed ones too, and go when the actors go."""
    async with TestSystem() as system:
        refs = [system.spawn(Clerk, name=name) for name in ("a", "b")]
        family = system.keyed(lambda _: Clerk(), name="family", idle=60, limit=8)
        await family.ref("c").ask(Note(1), timeout=5)
        assert names() == ["a", "b", "family/c"]
        await system.stop(refs[0])
        assert names() == ["b", "family/c"]
        await family.kill()
        assert names() == ["b"]
    assert names() == []


async def test_the_task_is_the_actors_for_good() -> None:
    """Hooks and handlers see one task, also after a restart."""
    tasks = set[asyncio.Task[Any] | None]()

    class Watched(Clerk):
        backoff = 0.0

        async def started(self) -> None:
            tasks.add(asyncio.current_task())

        async def stopped(self) -> None:
            tasks.add(asyncio.current_task())

        @handles(Wait)
        async def wait(self, message: Wait) -> int:
            tasks.add(asyncio.current_task())
            await asyncio.sleep(0)
            return 0

    async with TestSystem() as system:
        ref = system.spawn(Watched, name="watched")
        for _ in range(3):
            await ref.ask(Wait(), timeout=5)
            await ref.tell(Fail())
            await system.settle()
        assert tasks == {task_of("watched")}


async def test_an_actor_that_waits_holds_nobody_up() -> None:
    """However many actors wait in their handlers, the others handle their messages."""
    gate, seen = asyncio.Event(), list[int]()
    async with TestSystem() as system:
        waiting = [system.spawn(lambda: Clerk(gate, seen), name=f"clerk {n}") for n in range(32)]
        asked = [system.background(ref.ask(Wait(), timeout=5), name="asker") for ref in waiting]
        await system.settle()
        assert await system.spawn(lambda: Clerk(gate, seen), name="other").ask(Note(1), timeout=5) == 1
        gate.set()
        assert await asyncio.gather(*asked) == [0] * len(asked)


async def test_kill_cancels_one_actor_alone() -> None:
    """Of two actors that wait, killing one cancels its handler alone; cancelling its task is the same."""
    gate = asyncio.Event()
    async with TestSystem() as system:
        killed, cancelled, other = (system.spawn(lambda: Clerk(gate), name=name) for name in ("a", "b", "c"))
        asked = [system.background(ref.ask(Wait(), timeout=5), name="asker") for ref in (killed, cancelled, other)]
        await system.settle()
        system.kill(killed)
        task_of("b").cancel()
        for ask in asked[:2]:
            with pytest.raises(ActorStopped):
                await ask
        gate.set()
        assert await asked[2] == 0
        assert names() == ["c"]


async def test_an_actor_that_kills_itself() -> None:
    """The message at hand is the last one, and nobody else ends."""
    async with TestSystem(allow_dead_letters=True) as system:
        ref, other = (system.spawn(Clerk, name=name) for name in ("a", "b"))
        ref.post(End())
        ref.post(Note(1))
        await system.settle()
        assert (ref.alive, other.alive) == (False, True)
        assert system.dead_letters.count == 1


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
async def test_cancelling_the_task_ends_the_actor(steps: int) -> None:
    """Whenever its task is cancelled, also before the first step, the actor ends as if killed."""
    seen = list[int]()
    async with TestSystem(allow_dead_letters=True) as system:
        ref = system.spawn(lambda: Clerk(seen=seen), name="clerk")
        for _ in range(steps):
            await asyncio.sleep(0)
        ref.post(Note(1))
        task_of("clerk").cancel()
        with pytest.raises(ActorStopped):
            await ref.ask(Note(2), timeout=5)
        assert system.children() == []
        assert system.dead_letters.count == 1
        assert names() == []
    assert seen == []


@pytest.mark.parametrize("way", ["stop", "kill", "cancel"])
async def test_an_actor_that_waits_for_its_restart_ends_at_once(way: str) -> None:
    """No failed actor is waited for, and its hook does not run a second time."""
    stops = list[str]()

    class Counted(Slow):
        async def stopped(self) -> None:
            stops.append("stopped")

    async with TestSystem() as system:
        ref = system.spawn(Counted, name="slow")
        await ref.tell(Fail())
        await system.settle()
        asked = system.background(ref.ask(Note(1), timeout=5), name="asker")
        await system.settle()
        match way:
            case "stop":
                await system.stop(ref)
            case "kill":
                system.kill(ref)
            case _:
                task_of("slow").cancel()
        with pytest.raises(ActorStopped):
            await asked
        await system.settle()
        assert names() == []
    assert stops == ["stopped"]


async def test_kill_while_a_failed_instance_is_released() -> None:
    """An actor that is killed in the ``stopped`` hook before its restart does not restart."""
    entered, starts = asyncio.Event(), list[str]()

    class Stuck(Clerk):
        backoff = 0.0

        async def started(self) -> None:
            starts.append("started")

        async def stopped(self) -> None:
            entered.set()
            await self.gate.wait()

    async with TestSystem() as system:
        ref = system.spawn(Stuck, name="stuck")
        ref.post(Fail())
        await entered.wait()
        system.kill(ref)
        await system.settle()
        assert system.children() == []
        assert names() == []
    assert starts == ["started"]


async def test_kill_in_the_middle_of_the_stopped_hook() -> None:
    """An actor that is killed while its hook runs has ended after that, too."""
    entered = asyncio.Event()

    class Stuck(Clerk):
        async def stopped(self) -> None:
            entered.set()
            await asyncio.Event().wait()

    async with TestSystem() as system:
        ref: Ref[Any] = system.spawn(Stuck, name="stuck")
        stopping = system.background(system.stop(ref), name="stopper")
        await entered.wait()
        system.kill(ref)
        await stopping
        assert not ref.alive
        assert system.children() == []


async def test_a_key_has_one_actor_even_when_the_next_one_is_cancelled_before_its_start() -> None:
    """The third actor of a key waits for the first, when the second was cancelled while it waited."""
    events, gate = list[str](), asyncio.Event()

    class Account(Clerk):
        async def started(self) -> None:
            events.append("started")

        async def stopped(self) -> None:
            await gate.wait()
            events.append("stopped")

    async with TestSystem(allow_dead_letters=True) as system:
        ref = system.keyed(lambda _: Account(), name="account", idle=60, limit=4).ref("a")
        await ref.ask(Note(1), timeout=5)
        first = task_of("account/a")
        await system.advance(60)
        ref.post(Note(2))
        await system.settle()
        (asyncio.all_tasks() - {first, asyncio.current_task()}).pop().cancel()
        await system.settle()
        asked = system.background(ref.ask(Note(3), timeout=5), name="asker")
        await system.settle()
        assert events == ["started"]
        gate.set()
        assert await asked == 3
        assert events == ["started", "stopped", "started"]


async def test_each_actor_has_a_context_of_its_own() -> None:
    """A context variable set in one handler is there in the actor's next one, and in no other actor's."""
    variable: ContextVar[str] = ContextVar("variable", default="nothing")
    variable.set("the spawner's")
    found: dict[str, list[str]] = {"a": [], "b": []}

    class Writer(Actor[Note]):
        def __init__(self, name: str) -> None:
            self.name = name

        @handles(Note)
        async def note(self, message: Note) -> int:
            found[self.name].append(variable.get())
            await asyncio.sleep(0)
            variable.set(f"{self.name}{message.n}")
            await asyncio.sleep(0)
            found[self.name].append(variable.get())
            return 0

    async with TestSystem() as system:
        refs = [system.spawn(lambda name=name: Writer(name), name=name) for name in found]  # type: ignore[misc]
        for n in range(2):
            for ref in refs:
                await ref.tell(Note(n))
        await system.settle()
    assert found == {"a": ["nothing", "a0", "a0", "a1"], "b": ["nothing", "b0", "b0", "b1"]}


async def test_time_limits_within_a_handler() -> None:
    """A handler may bound its own waiting; what it does after that is not cancelled, nor is its next message."""

    class Patient(Actor[Wait]):
        @handles(Wait)
        async def wait(self, message: Wait) -> int:
            try:
                async with asyncio.timeout(0):
                    await asyncio.Event().wait()
            except TimeoutError:
                await asyncio.sleep(0)
                return 7
            return 0

    async with System() as system:
        ref = system.spawn(Patient, name="patient")
        assert [await ref.ask(Wait(), timeout=5) for _ in range(3)] == [7, 7, 7]


async def test_task_groups_within_a_handler() -> None:
    """A handler may run a task group; a child that fails is its failure, and cancels nothing else."""

    class Parent(Actor[Note]):
        backoff = 0.0

        @handles(Note)
        async def note(self, message: Note) -> int:
            async with asyncio.TaskGroup() as group:
                child = group.create_task(self.child(message.n))
                group.create_task(asyncio.sleep(0) if message.n else asyncio.Event().wait())
            return child.result()

        async def child(self, n: int) -> int:
            await asyncio.sleep(0)
            return 6 // n

    async with System() as system:
        ref = system.spawn(Parent, name="parent")
        assert await ref.ask(Note(2), timeout=5) == 3
        with pytest.raises(ActorFailed) as caught:
            await ref.ask(Note(0), timeout=5)
        assert isinstance(caught.value.__cause__, ExceptionGroup)
        assert await ref.ask(Note(3), timeout=5) == 2


async def test_a_handler_that_keeps_a_cancellation_to_itself() -> None:
    """An actor whose handler swallowed a cancellation lives on; the next one is none of that any more."""
    shared: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    class Stubborn(Clerk):
        backoff = 0.0

        @handles(Wait)
        async def wait(self, message: Wait) -> int:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                return 7
            return 0

        @handles(Note)
        async def note(self, message: Note) -> int:
            await shared
            return 0

    async with TestSystem() as system:
        ref = system.spawn(Stubborn, name="stubborn")
        asked = system.background(ref.ask(Wait(), timeout=5), name="asker")
        await system.settle()
        task_of("stubborn").cancel()
        assert await asked == 7
        failing = system.background(ref.ask(Note(1), timeout=5), name="asker")
        await system.settle()
        shared.cancel()
        with pytest.raises(ActorFailed):
            await failing
        await system.settle()
        assert system.children()[0].restarts == 1
        system.kill(ref)
        await system.settle()
        assert not ref.alive


async def test_actors_that_go_on_for_ever_leave_the_loop_to_others() -> None:
    """Two actors that tell each other without end keep nobody else from the loop."""
    seen = list[int]()

    class Player(Actor[Note]):
        other: Ref[Note]

        @handles(Note)
        async def note(self, message: Note) -> int:
            seen.append(message.n)
            self.other.post(Note(message.n + 1))
            return 0

    players = [Player(), Player()]
    async with System() as system:
        refs = [system.spawn(lambda player=player: player, name=str(id(player))) for player in players]  # type: ignore[misc]
        players[0].other, players[1].other = refs[1], refs[0]
        refs[0].post(Note(0))
        for _ in range(4):
            await asyncio.sleep(0)
        assert 0 < len(seen) <= 4 * BUDGET


async def test_asks_in_a_row_take_one_pass_of_the_loop_each() -> None:
    """An actor looks once more for a message before it rests, so that the next ask of its asker wakes nobody."""
    passes = 0

    async def count() -> None:
        nonlocal passes
        while True:
            await asyncio.sleep(0)
            passes += 1

    async with System() as system:
        ref = system.spawn(Clerk, name="clerk")
        await ref.ask(Note(0), timeout=5)
        counter = system.background(count(), name="counter")
        for n in range(20):
            assert await ref.ask(Note(n), timeout=5) == n
        counter.cancel()
        assert passes <= 20


async def test_a_loop_with_eager_tasks() -> None:
    """A task factory that starts tasks at once changes nothing: an actor begins after ``spawn`` has returned."""
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("the loop of this Python has no eager tasks")
    loop, seen = asyncio.get_running_loop(), list[int]()
    loop.set_task_factory(asyncio.eager_task_factory)
    async with System() as system:
        ref = system.spawn(lambda: Clerk(seen=seen), name="clerk")
        assert await ref.ask(Note(1), timeout=5) == 1
    assert seen == [1]


async def test_an_actor_that_has_ended_leaves_no_garbage() -> None:
    """The memory of an actor is free as soon as it has ended, and not left to the collector."""
    async with TestSystem() as system:
        family = system.keyed(lambda _: Clerk(), name="family", idle=1, limit=8)
        for collected in (False, True):
            ref = system.spawn(Clerk, name="clerk")
            assert await ref.ask(Note(1), timeout=5) == 1
            await system.stop(ref)
            await family.ref("a").ask(Note(1), timeout=5)
            await system.advance(2)
            assert len(family) == 0
            del ref
            assert gc.collect() == 0 or not collected
