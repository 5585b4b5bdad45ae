import asyncio
import gc

import pytest

from actors.runtime import Actor, Child, System, handles
from actors.runtime.testing import TestSystem
from protocol.errors import ActorStopped, Overloaded
from protocol.message import Message


class Add(Message[int], frozen=True):
    n: int


class Wake(Message[None], frozen=True):
    pass


class Poison(Message[None], frozen=True):
    pass


class Account(Actor[Add | Wake | Poison]):
    """Adds up, and writes its life into ``seen``."""

    restarts = 0

    def __init__(self, key: str, seen: list[str], gate: asyncio.Event | None = None) -> None:
        self.key = key
        self.seen = seen
        self.gate = gate
        self.total = 0

    async def started(self) -> None:
        self.seen.append(f"{self.key} started")

    async def stopped(self) -> None:
        if self.gate is not None:
            await self.gate.wait()
        self.seen.append(f"{self.key} stopped")

    @handles(Add)
    async def add(self, message: Add) -> int:
        self.total += message.n
        return self.total

    @handles(Wake)
    async def wake(self, message: Wake) -> None:
        self.schedule(100.0, Wake())

    @handles(Poison)
    async def poison(self, message: Poison) -> None:
        raise ValueError("poison")


async def test_made_at_the_first_message() -> None:
    """An actor for a key is made at its first message, once, and keeps its state."""
    seen = list[str]()
    async with TestSystem() as system:
        accounts = system.keyed(lambda key: Account(key, seen), name="account", idle=60, limit=8)
        ref = accounts.ref("a")
        assert (len(accounts), accounts.get("a"), ref.alive, seen) == (0, None, False, [])
        assert await ref.ask(Add(1), timeout=1) == 1
        assert await accounts.ref("a").ask(Add(2), timeout=1) == 3
        accounts.ref("b").post(Add(3))
        await system.settle()
        assert accounts.get("a") == ref
        assert ref.name == "account/a"
        assert system.children() == [Child("account", 2, 0, 0)]
        assert seen == ["a started", "b started"]


async def test_passivated_when_idle() -> None:
    """An actor without messages for ``idle`` seconds is stopped; the next message makes a fresh one."""
    seen = list[str]()
    async with TestSystem() as system:
        accounts = system.keyed(lambda key: Account(key, seen), name="account", idle=60, limit=8)
        ref = accounts.ref("a")
        await ref.ask(Add(1), timeout=1)
        await system.advance(40)
        await ref.ask(Add(1), timeout=1)
        await system.advance(40)
        assert len(accounts) == 1
        await system.advance(20)
        assert len(accounts) == 0
        assert await ref.ask(Add(5), timeout=1) == 5
    assert seen == ["a started", "a stopped", "a started", "a stopped"]


async def test_orders_keep_an_actor_awake() -> None:
    """An actor that has a timer outstanding is not idle."""
    async with TestSystem() as system:
        accounts = system.keyed(lambda key: Account(key, []), name="account", idle=60, limit=1)
        await accounts.ref("a").tell(Wake())
        await system.advance(99)
        assert len(accounts) == 1
        with pytest.raises(Overloaded):
            await accounts.ref("b").tell(Add(1))


async def test_one_that_does_not_linger_is_passivated_at_once() -> None:
    """It goes when nothing waits and nothing is outstanding, and the next message makes a fresh one."""
    seen = list[str]()

    class Brief(Account):
        lingers = False

    async with TestSystem() as system:
        accounts = system.keyed(lambda key: Brief(key, seen), name="account", idle=60, limit=2)
        assert [await accounts.ref("a").ask(Add(n), timeout=1) for n in (1, 2)] == [1, 2]
        await accounts.ref("b").tell(Wake())
        await system.settle()
        assert [accounts.get("a"), accounts.get("b")] == [None, accounts.ref("b")]
    assert seen == ["a started", "a stopped", "a started", "a stopped", "b started", "b stopped"]


async def test_timer_of_one_that_does_not_linger() -> None:
    """A timer keeps its actor, and its message is handled before the actor goes."""
    woken = list[float]()

    class Brief(Actor[Add | Wake]):
        lingers = False

        @handles(Add)
        async def add(self, message: Add) -> int:
            self.schedule(message.n, Wake())
            return message.n

        @handles(Wake)
        async def wake(self, message: Wake) -> None:
            woken.append(self.system.clock.time())

    async with TestSystem() as system:
        family = system.keyed(lambda _: Brief(), name="brief", idle=60, limit=2)
        await family.ref("a").ask(Add(100), timeout=1)
        await system.advance(99)
        assert len(family) == 1
        await system.advance(1)
        assert len(family) == 0
    assert woken == [100]


async def test_ended_actors_leave_no_garbage() -> None:
    """What an ended actor was made of is freed at once, and not left to the collector."""

    class Brief(Actor[Add]):
        lingers = False

        @handles(Add)
        async def add(self, message: Add) -> int:
            return message.n

    async with TestSystem() as system:
        family = system.keyed(lambda _: Brief(), name="brief", idle=60, limit=2)
        ref = family.ref("a")
        await ref.ask(Add(1), timeout=1)
        await system.settle()
        gc.collect()
        for n in range(10):
            assert await ref.ask(Add(n), timeout=1) == n
        await system.settle()
        assert len(family) == 0
        assert gc.collect() == 0


async def test_limit_passivates_the_longest_idle() -> None:
    """A new key takes the place of the actor that has been idle longest."""
    seen = list[str]()
    async with TestSystem() as system:
        accounts = system.keyed(lambda key: Account(key, seen), name="account", idle=60, limit=2)
        for key in ("a", "b", "a", "c"):
            await accounts.ref(key).ask(Add(1), timeout=1)
            await system.settle()
        assert accounts.get("b") is None
        assert accounts.get("a") is not None
        assert seen == ["a started", "b started", "b stopped", "c started"]


async def test_limit_with_nobody_idle() -> None:
    """When every place is taken by an actor at work, tell, post and ask raise ``Overloaded``."""
    gate = asyncio.Event()

    class Busy(Actor[Add]):
        @handles(Add)
        async def add(self, message: Add) -> int:
            await gate.wait()
            return message.n

    async with TestSystem() as system:
        family = system.keyed(lambda _: Busy(), name="busy", idle=60, limit=1)
        await family.ref("a").tell(Add(1))
        await system.settle()
        for send in (family.ref("b").tell(Add(1)), family.ref("b").ask(Add(1), timeout=1)):
            with pytest.raises(Overloaded):
                await send
        with pytest.raises(Overloaded):
            family.ref("b").post(Add(1))
        gate.set()


async def test_message_during_passivation_waits_for_the_successor() -> None:
    """A message to an actor on its way out is kept; the fresh actor starts when the old one has ended."""
    seen, gate = list[str](), asyncio.Event()
    async with TestSystem() as system:
        accounts = system.keyed(lambda key: Account(key, seen, gate), name="account", idle=60, limit=1)
        ref = accounts.ref("a")
        await ref.ask(Add(1), timeout=1)
        await system.advance(60)
        ref.post(Add(2))
        asked = system.background(ref.ask(Add(3), timeout=1), name="asker")
        await system.settle()
        assert seen == ["a started"]
        gate.set()
        assert await asked == 5
        assert seen == ["a started", "a stopped", "a started"]


async def test_successor_that_is_killed_while_it_waits() -> None:
    """Two actors for one key never live at once, even when one between them is killed before its start."""
    seen, gate = list[str](), asyncio.Event()
    async with TestSystem(allow_dead_letters=True) as system:
        accounts = system.keyed(lambda key: Account(key, seen, gate), name="account", idle=60, limit=2)
        ref = accounts.ref("a")
        await ref.ask(Add(1), timeout=1)
        await system.advance(60)
        ref.post(Add(2))
        system.kill(ref)
        asked = system.background(ref.ask(Add(3), timeout=1), name="asker")
        await system.settle()
        assert seen == ["a started"]
        gate.set()
        assert await asked == 3
        assert seen == ["a started", "a stopped", "a started"]
        assert [letter.message for letter in system.dead_letters.last] == [Add(2)]


async def test_leaving_actors_are_bounded() -> None:
    """Actors that are slow to leave hold at most as many places again as there may be actors."""
    gate = asyncio.Event()
    async with TestSystem() as system:
        accounts = system.keyed(lambda key: Account(key, [], gate), name="account", idle=60, limit=1)
        await accounts.ref("a").ask(Add(1), timeout=1)
        await system.settle()
        await accounts.ref("b").ask(Add(1), timeout=1)
        await system.settle()
        with pytest.raises(Overloaded):
            await accounts.ref("c").ask(Add(1), timeout=1)
        gate.set()
        await system.settle()
        assert await accounts.ref("c").ask(Add(1), timeout=1) == 1


async def test_no_message_is_lost_between_many_passivations() -> None:
    """However often actors come and go under pressure, each tell is handled once."""
    handled = list[str]()

    class Count(Actor[Add]):
        def __init__(self, key: str) -> None:
            self.key = key

        @handles(Add)
        async def add(self, message: Add) -> int:
            await asyncio.sleep(0)
            handled.append(f"{self.key}{message.n}")
            return message.n

    async def send(key: str) -> None:
        ref = family.ref(key)
        for n in range(50):
            while True:
                try:
                    await (ref.tell(Add(n)) if n % 2 else ref.ask(Add(n), timeout=30))
                except Overloaded:
                    await asyncio.sleep(0)
                else:
                    break

    async with System() as system:
        family = system.keyed(Count, name="count", idle=0.000_001, limit=3)
        senders = [system.background(send(key), name=key) for key in "abcdef"]
        for sender in senders:
            await sender
        await family.drain(deadline=system.clock.time() + 30)
        assert system.dead_letters.count == 0
    assert sorted(handled) == sorted(f"{key}{n}" for key in "abcdef" for n in range(50))


async def test_escalated_actor_is_made_anew() -> None:
    """A key whose actor failed too often gets a fresh one at its next message."""
    async with TestSystem() as system:
        accounts = system.keyed(lambda key: Account(key, []), name="account", idle=60, limit=8)
        ref = accounts.ref("a")
        await ref.tell(Add(1))
        await ref.tell(Poison())
        await system.settle()
        assert len(accounts) == 0
        assert await ref.ask(Add(5), timeout=1) == 5


async def test_drained_family_takes_nothing_new() -> None:
    """A drained family handles what is queued; after that asks raise ``ActorStopped`` and tells are dead letters."""
    async with TestSystem(allow_dead_letters=True) as system:
        accounts = system.keyed(lambda key: Account(key, []), name="account", idle=60, limit=8)
        asked = system.background(accounts.ref("a").ask(Add(1), timeout=1), name="asker")
        accounts.ref("b").post(Add(1))
        await system.settle()
        await accounts.drain(deadline=5)
        assert await asked == 1
        await accounts.ref("a").tell(Add(2))
        with pytest.raises(ActorStopped):
            await accounts.ref("c").ask(Add(3), timeout=1)
        assert system.dead_letters.count == 1


@pytest.mark.parametrize(("idle", "limit"), [(0, 1), (1, 0)])
async def test_figures_are_checked(idle: float, limit: int) -> None:
    """A family without time or places is refused."""
    async with TestSystem() as system:
        with pytest.raises(ValueError, match="must be positive"):
            system.keyed(lambda key: Account(key, []), name="account", idle=idle, limit=limit)


async def test_a_family_that_is_killed_gives_its_name_back() -> None:
    """Whoever owns a family may end it with itself, and set up another of the same name after a restart."""
    seen = list[str]()
    async with TestSystem() as system:
        accounts = system.keyed(lambda key: Account(key, seen), name="account", idle=60, limit=8)
        assert await accounts.ref("a").ask(Add(2), timeout=1) == 2
        await accounts.kill()
        assert seen == ["a started", "a stopped"]
        with pytest.raises(ActorStopped):
            await accounts.ref("a").ask(Add(1), timeout=1)
        again = system.keyed(lambda key: Account(key, seen), name="account", idle=60, limit=8)
        assert await again.ref("a").ask(Add(1), timeout=1) == 1
