import asyncio
from contextvars import ContextVar

import pytest

from actors.runtime import Actor, Child, Ref, System, handles
from actors.runtime.testing import TestSystem
from protocol.errors import ActorFailed, ActorStopped, ShuttingDown
from protocol.message import Message


class Work(Message[int], frozen=True):
    n: int


class Fail(Message[None], frozen=True):
    pass


class Gone(Message[None], frozen=True):
    who: str


class Worker(Actor[Work | Fail]):
    """Waits at its gate before each ``Work``."""

    def __init__(self, gate: asyncio.Event, seen: list[str]) -> None:
        self.gate = gate
        self.seen = seen

    async def started(self) -> None:
        self.seen.append("started")

    async def stopped(self) -> None:
        self.seen.append("stopped")

    @handles(Work)
    async def work(self, message: Work) -> int:
        await self.gate.wait()
        self.seen.append(str(message.n))
        return message.n

    @handles(Fail)
    async def fail(self, message: Fail) -> None:
        raise ValueError("broken")


class Watcher(Actor[Gone]):
    def __init__(self, watched: Ref[Work | Fail], seen: list[str]) -> None:
        self.watched = watched
        self.seen = seen

    async def started(self) -> None:
        self.watch(self.watched, Gone("first"))
        self.watch(self.watched, Gone(self.watched.name))

    @handles(Gone)
    async def gone(self, message: Gone) -> None:
        self.seen.append(f"{message.who} is gone")


async def busy(system: TestSystem, gate: asyncio.Event, seen: list[str]) -> tuple[Ref[Work | Fail], asyncio.Task[int]]:
    """Return a worker that is at its first message, with a tell and an ask behind it."""
    ref = system.spawn(lambda: Worker(gate, seen), name="worker")
    await ref.tell(Work(1))
    await system.settle()
    await ref.tell(Work(2))
    asked = system.background(ref.ask(Work(3), timeout=5), name="asker")
    await system.settle()
    return ref, asked


async def test_stop_with_messages_waiting() -> None:
    """Stop finishes the message at hand; queued asks raise ``ActorStopped`` and queued tells are dead letters."""
    gate, seen = asyncio.Event(), list[str]()
    async with TestSystem(allow_dead_letters=True) as system:
        ref, asked = await busy(system, gate, seen)
        stopping = system.background(system.stop(ref), name="stopper")
        await system.settle()
        assert not stopping.done()
        gate.set()
        await stopping
        with pytest.raises(ActorStopped):
            await asked
        assert [letter.message for letter in system.dead_letters.last] == [Work(2)]
        await system.stop(ref)
    assert seen == ["started", "1", "stopped"]


async def test_drain_handles_what_is_queued() -> None:
    """Drain takes nothing new, handles what is there, then ends the actor."""
    gate, seen = asyncio.Event(), list[str]()
    async with TestSystem(allow_dead_letters=True) as system:
        ref, asked = await busy(system, gate, seen)
        draining = system.background(system.drain(ref, deadline=10), name="drainer")
        await system.settle()
        await ref.tell(Work(4))
        with pytest.raises(ActorStopped):
            await ref.ask(Work(5), timeout=1)
        gate.set()
        await draining
        assert await asked == 3
        assert not ref.alive
    assert seen == ["started", "1", "2", "3", "stopped"]


async def test_drain_kills_at_its_deadline() -> None:
    """What is not done at the deadline is killed."""
    gate, seen = asyncio.Event(), list[str]()
    async with TestSystem(allow_dead_letters=True) as system:
        ref, asked = await busy(system, gate, seen)
        draining = system.background(system.drain(ref, deadline=4), name="drainer")
        await system.advance(4)
        await draining
        with pytest.raises(ActorStopped):
            await asked
    assert seen == ["started", "stopped"]


async def test_kill_cancels_the_handler() -> None:
    """Kill cancels the message at hand, whose asker gets ``ActorStopped``, and runs the stopped hook."""
    gate, seen = asyncio.Event(), list[str]()
    async with TestSystem() as system:
        ref = system.spawn(lambda: Worker(gate, seen), name="worker")
        asked = system.background(ref.ask(Work(1), timeout=5), name="asker")
        await system.settle()
        system.kill(ref)
        with pytest.raises(ActorStopped):
            await asked
        await system.stop(ref)
        system.kill(ref)
    assert seen == ["started", "stopped"]


async def test_kill_before_the_start() -> None:
    """An actor that is killed before it ran has neither started nor stopped."""
    seen = list[str]()
    async with TestSystem() as system:
        ref = system.spawn(lambda: Worker(asyncio.Event(), seen), name="worker")
        system.kill(ref)
        await system.settle()
        assert system.children() == []
    assert seen == []


async def test_restart_keeps_the_mailbox_and_drops_the_poison() -> None:
    """A failure is answered by a fresh instance, which goes on with the next message."""
    gate, seen = asyncio.Event(), list[str]()
    async with TestSystem() as system:
        ref = system.spawn(lambda: Worker(gate, seen), name="worker")
        await ref.tell(Fail())
        asked = system.background(ref.ask(Work(1), timeout=60), name="asker")
        gate.set()
        await system.advance(1)
        assert await asked == 1
        assert system.children() == [Child("worker", 1, 0, 1)]
    assert seen == ["started", "stopped", "started", "1", "stopped"]


async def test_fourth_failure_escalates() -> None:
    """The fourth failure within ten seconds stops the actor, tells its watchers and calls ``on_escalate``."""
    gate, seen, told = asyncio.Event(), list[str](), list[tuple[str, str]]()
    async with TestSystem(on_escalate=lambda name, error: told.append((name, str(error)))) as system:
        ref = system.spawn(lambda: Worker(gate, []), name="worker")
        system.spawn(lambda: Watcher(ref, seen), name="watcher")
        for _ in range(4):
            await ref.tell(Fail())
            await system.advance(1)
        assert not ref.alive
        assert seen == ["worker is gone"]
        assert told == [("worker", "broken")]


async def test_window_of_failures_slides() -> None:
    """Failures that are further apart than the window allows never escalate."""
    async with TestSystem() as system:
        ref = system.spawn(lambda: Worker(asyncio.Event(), []), name="worker")
        for _ in range(12):
            await ref.tell(Fail())
            await system.advance(3.4)
        assert ref.alive
        assert system.children()[0].restarts == 12


async def test_failing_start_escalates() -> None:
    """An actor that can't start is tried three times more, then it is given up; those who asked it are told."""
    told = list[str]()

    class Broken(Worker):
        async def started(self) -> None:
            raise OSError("no disk")

    async with TestSystem(on_escalate=lambda _, error: told.append(str(error))) as system:
        ref = system.spawn(lambda: Broken(asyncio.Event(), []), name="broken")
        asked = system.background(ref.ask(Work(1), timeout=60), name="asker")
        await system.advance(5)
        with pytest.raises(ActorStopped):
            await asked
    assert told == ["no disk"]


async def test_stop_cuts_the_backoff_short() -> None:
    """An actor that waits for its restart ends at once when it is stopped."""

    class Slow(Worker):
        backoff = 1000.0

    async with TestSystem() as system:
        ref = system.spawn(lambda: Slow(asyncio.Event(), []), name="slow")
        await ref.tell(Fail())
        await system.settle()
        await system.stop(ref)
        assert system.children() == []


async def test_handler_cancelled_from_within_is_a_failure() -> None:
    """A handler that awaits what somebody else cancelled fails; the actor does not silently end."""
    shared: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    class Waiter(Actor[Work]):
        backoff = 0.0

        @handles(Work)
        async def work(self, message: Work) -> int:
            return await shared if message.n else 0

    async with TestSystem() as system:
        ref = system.spawn(Waiter, name="waiter")
        asked = system.background(ref.ask(Work(1), timeout=5), name="asker")
        await system.settle()
        shared.cancel()
        with pytest.raises(ActorFailed):
            await asked
        assert await ref.ask(Work(0), timeout=5) == 0


async def test_watch_of_what_has_ended() -> None:
    """Watching an actor that is not alive brings the news at once."""
    seen = list[str]()
    async with TestSystem() as system:
        ref = system.spawn(lambda: Worker(asyncio.Event(), []), name="worker")
        await system.stop(ref)
        system.spawn(lambda: Watcher(ref, seen), name="watcher")
        await system.settle()
        assert seen == ["first is gone", "worker is gone"]


async def test_watchers_are_forgotten_when_they_end() -> None:
    """A watched actor holds nothing of a watcher that has ended."""
    async with TestSystem() as system:
        ref = system.spawn(lambda: Worker(asyncio.Event(), []), name="worker")
        watcher = system.spawn(lambda: Watcher(ref, []), name="watcher")
        await system.settle()
        await system.stop(watcher)
        cell = ref._live_cell()
        assert cell is not None
        assert cell.watchers == {}


async def test_actor_inherits_no_context() -> None:
    """An actor, and a background task, start in an empty context, whoever spawns them."""
    variable: ContextVar[str] = ContextVar("variable", default="nothing")
    variable.set("the spawner's")

    class Reader(Actor[Work]):
        @handles(Work)
        async def work(self, message: Work) -> int:
            return len(variable.get())

    async def read() -> str:
        return variable.get()

    async with TestSystem() as system:
        assert await system.spawn(Reader, name="reader").ask(Work(1), timeout=1) == len("nothing")
        assert await system.background(read(), name="read") == "nothing"


async def test_busy_actor_yields() -> None:
    """An actor with a full mailbox lets others have their turn after a budget of messages."""
    turns = list[int]()

    class Counter(Actor[Work]):
        capacity = 1000

        @handles(Work)
        async def work(self, message: Work) -> int:
            turns.append(message.n)
            return message.n

    async with System() as system:
        ref = system.spawn(Counter, name="counter")
        for n in range(1000):
            ref.post(Work(n))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert 0 < len(turns) < 200


async def test_two_systems_in_one_loop() -> None:
    """Two systems share no name, no count and no fate."""
    async with TestSystem(allow_dead_letters=True) as one, TestSystem() as other:
        gate = asyncio.Event()
        gate.set()
        first = one.spawn(lambda: Worker(gate, []), name="worker")
        second = other.spawn(lambda: Worker(gate, []), name="worker")
        await one.stop(first)
        await first.tell(Work(1))
        assert (one.dead_letters.count, other.dead_letters.count) == (1, 0)
        assert await second.ask(Work(2), timeout=1) == 2


async def test_exit_leaves_no_task() -> None:
    """After the system has ended there is no task of its own left, whatever they were waiting for."""
    seen = list[str]()
    before = asyncio.all_tasks()
    async with System() as system:
        ref = system.spawn(lambda: Worker(asyncio.Event(), seen), name="worker")
        waiter = system.background(asyncio.Event().wait(), name="waiter")
        asked = system.background(ref.ask(Work(1), timeout=60), name="asker")
        await ref.tell(Work(2))
        await ref.tell(Work(3))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert asked.done()
    assert waiter.cancelled()
    assert seen == ["started", "stopped"]
    assert system.dead_letters.count == 1
    with pytest.raises(ShuttingDown):
        system.spawn(lambda: Worker(asyncio.Event(), seen), name="late")
    with pytest.raises(ShuttingDown):
        await system.background(asyncio.sleep(0), name="late")


async def test_names_are_unique_among_the_living() -> None:
    """A name is taken as long as its actor lives, and free again after."""
    async with TestSystem() as system:
        ref = system.spawn(lambda: Worker(asyncio.Event(), []), name="worker")
        with pytest.raises(ValueError, match="worker"):
            system.spawn(lambda: Worker(asyncio.Event(), []), name="worker")
        await system.stop(ref)
        system.spawn(lambda: Worker(asyncio.Event(), []), name="worker")


async def test_background_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A background task that fails says so in the log."""

    async def fail() -> None:
        raise OSError("no disk")

    async with TestSystem() as system:
        failing = system.background(fail(), name="failing")
        await system.settle()
        assert failing.done()
    assert "failing" in caplog.text


async def test_capacity_is_checked() -> None:
    """A mailbox without room is refused when the actor is spawned, and the error says the value."""

    class Tiny(Worker):
        capacity = 0

    async with TestSystem() as system:
        with pytest.raises(ValueError, match="got 0"):
            system.spawn(lambda: Tiny(asyncio.Event(), []), name="tiny")
