import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from actors.runtime import Actor, Ref, System, handles
from actors.runtime.crew import SPARE, TURNS
from actors.runtime.testing import TestSystem
from protocol.errors import ActorStopped
from protocol.message import Message


class Note(Message[int], frozen=True):
    n: int


class Wait(Message[int], frozen=True):
    pass


class End(Message[None], frozen=True):
    pass


class Clerk(Actor[Note | Wait | End]):
    """Notes at once, and waits for its gate when told to."""

    def __init__(self, gate: asyncio.Event, seen: list[int]) -> None:
        self.gate = gate
        self.seen = seen

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


async def test_who_waits_holds_nobody_up() -> None:
    """However many actors wait in their handlers, the others have their turns, and so do they when they can go on."""
    gate, seen = asyncio.Event(), list[int]()
    async with TestSystem() as system:
        waiting = [system.spawn(lambda: Clerk(gate, seen), name=f"clerk {n}") for n in range(2 * SPARE)]
        asked = [system.background(ref.ask(Wait(), timeout=5), name="asker") for ref in waiting]
        await system.settle()
        assert await system.spawn(lambda: Clerk(gate, seen), name="other").ask(Note(1), timeout=5) == 1
        gate.set()
        assert await asyncio.gather(*asked) == [0] * len(asked)
        assert await asyncio.gather(*(ref.ask(Note(2), timeout=5) for ref in waiting)) == [2] * len(asked)


async def test_tasks_are_few_again() -> None:
    """Of the tasks that many waiting actors have taken only some are kept for the next ones."""
    gate, before = asyncio.Event(), len(asyncio.all_tasks())
    async with TestSystem() as system:
        refs = [system.spawn(lambda: Clerk(gate, []), name=f"clerk {n}") for n in range(3 * SPARE)]
        for ref in refs:
            await ref.tell(Wait())
        await system.settle()
        assert len(asyncio.all_tasks()) - before >= 3 * SPARE
        gate.set()
        await system.settle()
        assert len(asyncio.all_tasks()) - before <= SPARE
    assert len(asyncio.all_tasks()) == before


async def test_who_does_not_wait_needs_one_task() -> None:
    """Actors whose handlers never wait have all their turns in one task."""
    before = len(asyncio.all_tasks())
    async with TestSystem() as system:
        refs = [system.spawn(lambda: Clerk(asyncio.Event(), []), name=f"clerk {n}") for n in range(100)]
        for ref in refs:
            await ref.tell(Note(1))
        await system.settle()
        assert len(asyncio.all_tasks()) - before == 1


async def test_end_of_one_is_not_the_next_ones() -> None:
    """An actor that kills itself in its handler takes nobody with it who has a turn after it."""
    gate, seen = asyncio.Event(), list[int]()
    async with TestSystem() as system:
        first, second, third = (system.spawn(lambda: Clerk(gate, seen), name=name) for name in ("a", "b", "c"))
        await system.settle()
        first.post(End())
        second.post(Note(1))
        waits = system.background(third.ask(Wait(), timeout=5), name="asker")
        await system.settle()
        assert [first.alive, second.alive, third.alive] == [False, True, True]
        gate.set()
        assert await waits == 0
        assert seen == [1]


async def test_kill_of_one_that_waits_leaves_the_others() -> None:
    """Of two actors that wait, killing one cancels its handler alone."""
    gate = asyncio.Event()
    async with TestSystem() as system:
        first, second = (system.spawn(lambda: Clerk(gate, []), name=name) for name in ("a", "b"))
        asked = [system.background(ref.ask(Wait(), timeout=5), name="asker") for ref in (first, second)]
        await system.settle()
        system.kill(first)
        with pytest.raises(ActorStopped):
            await asked[0]
        gate.set()
        assert await asked[1] == 0


async def test_nothing_set_in_one_actor_is_seen_in_another() -> None:
    """Each actor has a context of its own, which stays from one message to the next, before and after it waits."""
    variable: ContextVar[str] = ContextVar("variable", default="nothing")
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
    """A handler may bound its own waiting; what it does after that is not cancelled, nor is who comes after it."""

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


async def test_actors_that_go_on_for_ever_leave_the_loop_its_turns() -> None:
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
        assert 0 < len(seen) <= 4 * TURNS


async def test_who_asks_again_at_once_wakes_nobody() -> None:
    """One ask after the other from outside the actors takes a single pass of the loop for each."""
    passes = 0

    async def count() -> None:
        nonlocal passes
        while True:
            await asyncio.sleep(0)
            passes += 1

    async with System() as system:
        ref = system.spawn(lambda: Clerk(asyncio.Event(), []), name="clerk")
        await ref.ask(Note(0), timeout=5)
        counter = system.background(count(), name="counter")
        for n in range(20):
            assert await ref.ask(Note(n), timeout=5) == n
        counter.cancel()
        assert passes <= 20


@pytest.mark.parametrize("turns", [0, 1, 3])
async def test_cancelled_tasks_are_replaced(turns: int) -> None:
    """Whoever cancels the actors' tasks, at whatever moment, takes the next message's turn from nobody."""
    seen = list[int]()
    before = asyncio.all_tasks()
    async with System() as system:
        ref = system.spawn(lambda: Clerk(asyncio.Event(), seen), name="clerk")
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - before:
            task.cancel()
        assert await ref.ask(Note(1), timeout=5) == 1
        for task in asyncio.all_tasks() - before:
            task.cancel()
        ref.post(Note(2))
        await asyncio.sleep(0)
        assert await ref.ask(Note(3), timeout=5) == 3
    assert seen == [1, 2, 3]


async def test_end_in_the_middle_of_the_stopped_hook() -> None:
    """An actor that is killed while its hook runs has ended after that, too."""
    entered = asyncio.Event()

    class Slow(Clerk):
        async def stopped(self) -> None:
            entered.set()
            await asyncio.Event().wait()

    async with TestSystem() as system:
        ref: Ref[Any] = system.spawn(lambda: Slow(asyncio.Event(), []), name="slow")
        stopping = system.background(system.stop(ref), name="stopper")
        await entered.wait()
        system.kill(ref)
        await stopping
        assert not ref.alive
        assert system.children() == []
