import asyncio

import pytest

from actors.runtime import Actor, handles
from actors.runtime.testing import ManualClock, TestSystem
from protocol.errors import AskTimeout, NotFound
from protocol.message import AnyMessage, Message


class Ask(Message[str], frozen=True):
    n: int = 0


class Note(Message[None], frozen=True):
    pass


async def test_probe_expects_in_order() -> None:
    """A probe shows what came, one after the other."""
    async with TestSystem() as system:
        probe = system.probe(Message)
        await probe.ref.tell(Note())
        await probe.ref.tell(Ask(1))
        assert await probe.expect(Note) == Note()
        assert (await probe.expect(Ask)).n == 1
        await probe.expect_nothing()


async def test_probe_says_what_came_instead() -> None:
    """Another message than the expected one fails, and so does one where none was expected."""
    async with TestSystem() as system:
        probe = system.probe(Note, name="listener")
        await probe.ref.tell(Note())
        with pytest.raises(AssertionError, match="expected nothing"):
            await probe.expect_nothing()
        with pytest.raises(AssertionError, match=r"listener expected Ask, but Note"):
            await probe.expect(Ask)


async def test_scripted_replies() -> None:
    """A script is a value, a function of the message, or a failure."""
    async with TestSystem() as system:
        probe = system.probe(Ask)
        probe.reply(Ask, "one")
        assert await probe.ref.ask(Ask(), timeout=1) == "one"
        probe.reply(Ask, lambda message: str(message.n))
        assert await probe.ref.ask(Ask(7), timeout=1) == "7"
        probe.reply(Ask, OSError("no disk"))
        with pytest.raises(OSError, match="no disk"):
            await probe.ref.ask(Ask(), timeout=1)


async def test_answer_by_hand() -> None:
    """An ask without a script waits for its answer, or for its deadline."""
    async with TestSystem() as system:
        probe = system.probe(Ask)
        first = system.background(probe.ref.ask(Ask(1), timeout=1), name="first")
        probe.answer(await probe.expect(Ask), "one")
        assert await first == "one"
        second = system.background(probe.ref.ask(Ask(2), timeout=1), name="second")
        probe.answer(await probe.expect(Ask), NotFound("none"))
        with pytest.raises(NotFound):
            await second
        third = system.background(probe.ref.ask(Ask(3), timeout=1), name="third")
        message = await probe.expect(Ask)
        await system.advance(1)
        with pytest.raises(AskTimeout):
            await third
        with pytest.raises(AssertionError, match="nobody waits"):
            probe.answer(message, "late")


async def test_dead_letters_fail_the_test() -> None:
    """A dead letter at the end is an ``AssertionError`` that shows it."""

    async def test() -> None:
        async with TestSystem() as system:
            probe = system.probe(Note)
            await system.stop(probe.ref)
            await probe.ref.tell(Note())

    with pytest.raises(AssertionError, match=r"dead letters: .*Note to probe: stopped"):
        await test()


async def test_failing_test_keeps_its_own_error() -> None:
    """The error of the test's body is not covered by dead letters."""

    async def test() -> None:
        async with TestSystem() as system:
            probe = system.probe(Note)
            await system.stop(probe.ref)
            await probe.ref.tell(Note())
            raise KeyError

    with pytest.raises(KeyError):
        await test()


async def test_actors_that_never_rest_are_reported() -> None:
    """Settling gives up on actors that keep each other busy for ever."""

    class Restless(Actor[Note]):
        @handles(Note)
        async def note(self, message: Note) -> None:
            await asyncio.sleep(0)
            self.ref.post(message)

    async with TestSystem(allow_dead_letters=True) as system:
        ref = system.spawn(Restless, name="restless")
        await ref.tell(Note())
        with pytest.raises(AssertionError, match="restless"):
            await system.settle()
        system.kill(ref)


def test_manual_clock_keeps_the_order_of_moments() -> None:
    """Calls are made at their moments, in order; cancelled ones are not."""
    clock, seen = ManualClock(start=10), list[tuple[str, float]]()

    def note(name: str) -> None:
        seen.append((name, clock.time()))

    clock.call_at(12, note, "second")
    clock.call_at(11, note, "first")
    clock.call_at(11.5, note, "cancelled").cancel()
    while clock.step(12.5):
        pass
    assert seen == [("first", 11), ("second", 12)]
    assert clock.time() == 12.5


async def test_probe_takes_any_message() -> None:
    """A probe of the base class takes every message."""
    async with TestSystem() as system:
        probe = system.probe(AnyMessage)
        await probe.ref.tell(Note())
        assert await probe.expect(Note) == Note()
