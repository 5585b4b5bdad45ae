import asyncio
import gc

import pytest

from actors.runtime import Actor, Ref, System, handles
from actors.runtime.mailbox import Overflow
from actors.runtime.testing import TestSystem
from protocol.errors import ActorFailed, ActorStopped, AskCycle, AskTimeout, MailboxFull, NotFound
from protocol.message import AnyMessage, Message


class Work(Message[int], frozen=True):
    n: int


class Fail(Message[None], frozen=True):
    pass


class Refuse(Message[None], frozen=True):
    pass


class Foreign(Message[None], frozen=True):
    pass


class Worker(Actor[Work | Fail | Refuse]):
    """Handles ``Work`` once its gate is open."""

    capacity = 2
    backoff = 0.0

    def __init__(self, gate: asyncio.Event | None = None) -> None:
        self.gate = gate
        self.seen: list[int] = []

    @handles(Work)
    async def work(self, message: Work) -> int:
        if self.gate is not None:
            await self.gate.wait()
        self.seen.append(message.n)
        return message.n

    @handles(Fail)
    async def fail(self, message: Fail) -> None:
        raise ValueError("broken")

    @handles(Refuse)
    async def refuse(self, message: Refuse) -> None:
        raise NotFound("no such thing")


def closed(policy: Overflow) -> tuple[type[Worker], asyncio.Event]:
    """Return a worker class with this policy, and the gate that keeps it busy."""
    gate = asyncio.Event()

    class Closed(Worker):
        overflow = policy

        def __init__(self) -> None:
            super().__init__(gate)

    return Closed, gate


async def fill(system: TestSystem, ref: Ref[Work | Fail | Refuse]) -> None:
    """Give the worker one message to be busy with, and fill its mailbox."""
    await ref.tell(Work(0))
    await system.settle()
    await ref.tell(Work(1))
    await ref.tell(Work(2))


async def test_ask_returns_the_reply_and_keeps_order() -> None:
    """Messages of one sender are handled in the order in which they were sent."""
    worker = Worker()
    async with TestSystem() as system:
        ref = system.spawn(lambda: worker, name="worker")
        for n in range(10):
            await ref.tell(Work(n))
        assert await ref.ask(Work(10), timeout=1) == 10
    assert worker.seen == list(range(11))


async def test_failure_reaches_the_asker_with_its_cause() -> None:
    """A handler that raises what it has not declared answers ``ActorFailed``, whose cause is the real exception."""
    async with TestSystem() as system:
        ref = system.spawn(Worker, name="worker")
        with pytest.raises(ActorFailed) as caught:
            await ref.ask(Fail(), timeout=1)
        assert isinstance(caught.value.__cause__, ValueError)


async def test_domain_error_is_a_reply() -> None:
    """A declared error reaches the asker as it is, and the actor lives on without a restart."""
    async with TestSystem() as system:
        ref = system.spawn(Worker, name="worker")
        with pytest.raises(NotFound, match="no such thing"):
            await ref.ask(Refuse(), timeout=1)
        assert system.children()[0].restarts == 0


async def test_full_mailbox_waits() -> None:
    """With the policy ``wait`` a teller waits for room, and is let in when there is some."""
    kind, gate = closed("wait")
    async with TestSystem() as system:
        ref = system.spawn(kind, name="worker")
        await fill(system, ref)
        teller = system.background(ref.tell(Work(3)), name="teller")
        await system.settle()
        assert not teller.done()
        with pytest.raises(MailboxFull):
            ref.post(Work(4))
        gate.set()
        await teller


async def test_cancelled_teller_leaves_its_place() -> None:
    """A teller cancelled while it waits for room sends nothing, and the next one gets its place."""
    kind, gate = closed("wait")
    worker = kind()
    async with TestSystem() as system:
        ref = system.spawn(lambda: worker, name="worker")
        await fill(system, ref)
        first = system.background(ref.tell(Work(3)), name="first")
        second = system.background(ref.tell(Work(4)), name="second")
        await system.settle()
        first.cancel()
        gate.set()
        await second
        await system.settle()
    assert worker.seen == [0, 1, 2, 4]


async def test_place_of_a_teller_cancelled_as_it_is_woken_is_passed_on() -> None:
    """When the teller that was given the room is cancelled in the same turn, the next one is let in."""
    kind, gate = closed("wait")
    async with TestSystem() as system:
        ref = system.spawn(kind, name="worker")
        await fill(system, ref)
        first = system.background(ref.tell(Work(3)), name="first")
        second = system.background(ref.tell(Work(4)), name="second")
        await system.settle()
        ref._mailbox.get_nowait()
        first.cancel()
        await second
        gate.set()


async def test_full_mailbox_rejects() -> None:
    """With the policy ``reject`` tell and ask raise ``MailboxFull`` at once."""
    kind, gate = closed("reject")
    async with TestSystem() as system:
        ref = system.spawn(kind, name="worker")
        await fill(system, ref)
        with pytest.raises(MailboxFull):
            await ref.tell(Work(3))
        with pytest.raises(MailboxFull):
            await ref.ask(Work(4), timeout=1)
        with pytest.raises(MailboxFull):
            ref.post(Work(5))
        gate.set()


async def test_full_mailbox_drops_the_oldest() -> None:
    """With ``drop_oldest`` the oldest message makes room: a tell is a dead letter, an ask raises ``MailboxFull``."""
    kind, gate = closed("drop_oldest")
    worker = kind()
    async with TestSystem(allow_dead_letters=True) as system:
        ref = system.spawn(lambda: worker, name="worker")
        await ref.tell(Work(0))
        await system.settle()
        asked = system.background(ref.ask(Work(1), timeout=1), name="asker")
        await system.settle()
        await ref.tell(Work(2))
        await ref.tell(Work(3))
        with pytest.raises(MailboxFull):
            await asked
        ref.post(Work(4))
        assert [letter.message for letter in system.dead_letters.last] == [Work(2)]
        gate.set()
        await system.settle()
    assert worker.seen == [0, 3, 4]


async def test_teller_never_waits_for_its_own_mailbox() -> None:
    """An actor that tells itself through a full mailbox gets ``MailboxFull`` where it would wait for ever."""

    class Selfish(Actor[Work]):
        capacity = 1

        @handles(Work)
        async def work(self, message: Work) -> int:
            await self.ref.tell(message)
            with pytest.raises(MailboxFull):
                await self.ref.tell(message)
            await self.system.stop(self.ref)
            return 1

    async with TestSystem(allow_dead_letters=True) as system:
        assert await system.spawn(Selfish, name="selfish").ask(Work(1), timeout=1) == 1


async def test_ask_past_its_deadline_and_the_late_reply() -> None:
    """An ask that is not answered in time raises ``AskTimeout`` at its exact deadline; its late reply is counted."""
    kind, gate = closed("wait")
    async with TestSystem() as system:
        ref = system.spawn(kind, name="worker")
        asked = system.background(ref.ask(Work(1), timeout=0.5), name="asker")
        await system.advance(0.49)
        assert not asked.done()
        await system.advance(0.01)
        with pytest.raises(AskTimeout):
            await asked
        assert system.late_replies == 0
        gate.set()
        await system.settle()
        assert system.late_replies == 1


async def test_expired_ask_is_passed_over() -> None:
    """An ask whose asker gave up while it was queued is not handled."""
    kind, gate = closed("wait")
    worker = kind()
    async with TestSystem() as system:
        ref = system.spawn(lambda: worker, name="worker")
        await ref.tell(Work(0))
        asked = system.background(ref.ask(Work(1), timeout=0.001), name="asker")
        await system.advance(1)
        with pytest.raises(AskTimeout):
            await asked
        gate.set()
        await system.settle()
        assert system.expired == 1
    assert worker.seen == [0]


async def test_asker_that_waits_for_room_keeps_its_deadline() -> None:
    """An ask that finds no room gives up at its deadline, and its message is never sent."""
    kind, gate = closed("wait")
    worker = kind()
    async with TestSystem() as system:
        ref = system.spawn(lambda: worker, name="worker")
        await fill(system, ref)
        asked = system.background(ref.ask(Work(3), timeout=1), name="asker")
        await system.advance(1)
        with pytest.raises(AskTimeout):
            await asked
        gate.set()
        await system.settle()
    assert worker.seen == [0, 1, 2]


async def test_askers_that_wait_for_room() -> None:
    """Of two asks that find no room one is cancelled and sends nothing; the other is let in and gets its reply."""
    kind, gate = closed("wait")
    worker = kind()
    async with TestSystem() as system:
        ref = system.spawn(lambda: worker, name="worker")
        await fill(system, ref)
        first = system.background(ref.ask(Work(3), timeout=5), name="first")
        second = system.background(ref.ask(Work(4), timeout=5), name="second")
        await system.settle()
        first.cancel()
        gate.set()
        assert await second == 4
        assert first.cancelled()
    assert worker.seen == [0, 1, 2, 4]


async def test_senders_that_wait_for_room_learn_of_the_end() -> None:
    """When the actor ends, an ask that waits for room raises ``ActorStopped``, and a tell is a dead letter."""
    kind, _ = closed("wait")
    async with TestSystem(allow_dead_letters=True) as system:
        ref = system.spawn(kind, name="worker")
        await fill(system, ref)
        teller = system.background(ref.tell(Work(3)), name="teller")
        asker = system.background(ref.ask(Work(4), timeout=5), name="asker")
        await system.settle()
        system.kill(ref)
        await teller
        with pytest.raises(ActorStopped):
            await asker
        await system.settle()
        assert sorted(letter.message.n for letter in system.dead_letters.last) == [1, 2, 3]


async def test_ask_without_time_left() -> None:
    """A timeout that is not positive raises ``AskTimeout`` at once."""
    async with TestSystem() as system:
        with pytest.raises(AskTimeout):
            await system.spawn(Worker, name="worker").ask(Work(1), timeout=0)


class Relay(Actor[Work]):
    """Asks on, and tells what came of it."""

    def __init__(self, to: dict[str, Ref[Work]], name: str, timeout: float = 60) -> None:
        self.to = to
        self.name = name
        self.timeout = timeout
        self.deadlines: list[float | None] = []

    @handles(Work)
    async def work(self, message: Work) -> int:
        self.deadlines.append(self.deadline)
        return await self.to[self.name].ask(message, timeout=self.timeout)


@pytest.mark.parametrize("others", [["a"], ["b", "a"], ["b", "c", "a"]])
async def test_cycle_of_asks(others: list[str]) -> None:
    """An ask that comes back to an actor in its own chain raises ``AskCycle`` at once, at whatever distance."""
    refs: dict[str, Ref[Work]] = {}
    async with TestSystem() as system:
        for name, to in zip(["a", *others], others, strict=False):
            refs[name] = system.spawn(lambda to=to: Relay(refs, to), name=name)  # type: ignore[misc]
        with pytest.raises(AskCycle):
            await refs["a"].ask(Work(1), timeout=1)


async def test_smaller_deadline_travels() -> None:
    """The effective deadline of an ask within an ask is the smaller of the two."""
    refs: dict[str, Ref[Work]] = {}
    relay = Relay(refs, "worker")
    async with TestSystem() as system:
        probe = system.probe(Work)
        refs["relay"] = probe.ref
        refs["worker"] = system.spawn(lambda: Relay(refs, "probe"), name="worker")
        refs["probe"] = probe.ref
        start = system.spawn(lambda: relay, name="start")
        asked = system.background(start.ask(Work(1), timeout=2), name="asker")
        await probe.expect(Work)
        assert relay.deadlines == [2.0]
        await system.advance(2)
        with pytest.raises(AskTimeout):
            await asked


async def test_foreign_message_is_no_failure() -> None:
    """What the type checker would have refused is answered ``ActorFailed`` or becomes a dead letter; no restart."""
    async with TestSystem(allow_dead_letters=True) as system:
        ref: Ref[AnyMessage] = system.spawn(Worker, name="worker")  # type: ignore[arg-type]
        with pytest.raises(ActorFailed, match="no handler for Foreign"):
            await ref.ask(Foreign(), timeout=1)
        await ref.tell(Foreign())
        await system.settle()
        assert system.dead_letters.count == 1
        assert system.children()[0].restarts == 0


async def test_tell_to_a_stopped_actor_is_a_dead_letter() -> None:
    """Tell and post to a stopped actor raise nothing and are counted; ask raises ``ActorStopped``."""
    async with TestSystem(allow_dead_letters=True) as system:
        ref = system.spawn(Worker, name="worker")
        await system.stop(ref)
        assert not ref.alive
        await ref.tell(Work(1))
        ref.post(Work(2))
        with pytest.raises(ActorStopped):
            await ref.ask(Work(3), timeout=1)
        assert [letter.message for letter in system.dead_letters.last] == [Work(1), Work(2)]
        assert system.dead_letters.last[0].actor == "worker"


async def test_cancelled_asker_hears_nothing_more() -> None:
    """An asker that is cancelled leaves quietly; the reply is counted as late."""
    kind, gate = closed("wait")
    async with TestSystem() as system:
        ref = system.spawn(kind, name="worker")
        asked = system.background(ref.ask(Work(1), timeout=1), name="asker")
        await system.settle()
        asked.cancel()
        gate.set()
        await system.settle()
        assert asked.cancelled()
        assert system.late_replies == 1


async def test_refs_to_one_actor_are_equal() -> None:
    """The spawner's ref and the actor's own are equal, and differ from any other."""
    worker = Worker()
    async with TestSystem() as system:
        ref = system.spawn(lambda: worker, name="worker")
        other = system.spawn(Worker, name="other")
        assert ref == worker.ref
        assert hash(ref) == hash(worker.ref)
        assert ref != other


async def test_actor_is_safe_from_the_collector() -> None:
    """An actor whose ref nobody holds goes on, also across a garbage collection."""
    async with System() as system:
        probe: list[int] = []

        class Keeper(Actor[Work]):
            async def started(self) -> None:
                self.pipe(self.later(), Work, lambda _: Work(-1))

            async def later(self) -> int:
                for _ in range(5):
                    gc.collect()
                    await asyncio.sleep(0)
                return 7

            @handles(Work)
            async def work(self, message: Work) -> int:
                probe.append(message.n)
                done.set()
                return 0

        done = asyncio.Event()
        system.spawn(Keeper, name="keeper")
        async with asyncio.timeout(5):
            await done.wait()
        assert probe == [7]
