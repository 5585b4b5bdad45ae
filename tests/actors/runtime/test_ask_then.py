import asyncio
import gc

import pytest

from actors.runtime import Actor, Callback, Deferred, Ref, handles
from actors.runtime.testing import TestSystem
from protocol.errors import NotFound
from protocol.message import Message


class Question(Message[str], frozen=True):
    text: str


class Ask(Message[None], frozen=True):
    text: str
    timeout: float = 5.0


class Answered(Message[None], frozen=True):
    text: str


class Unanswered(Message[None], frozen=True):
    why: Exception


class GiveUp(Message[None], frozen=True):
    pass


class Oracle(Actor[Question]):
    """Answers some questions at once, refuses some, and thinks about the others for ever."""

    capacity = 1

    def __init__(self, stopped_thinking: asyncio.Event) -> None:
        self.stopped_thinking = stopped_thinking

    @handles(Question)
    async def question(self, message: Question) -> str | Deferred[str]:
        if message.text == "why":
            raise NotFound("nobody knows")
        if message.text == "when":
            return self.defer(self.think())
        return f"re: {message.text}"

    async def think(self) -> str:
        try:
            return await asyncio.Future[str]()
        finally:
            self.stopped_thinking.set()


class Pilgrim(Actor[Ask | Answered | Unanswered | GiveUp]):
    """Asks without waiting."""

    def __init__(self, oracle: Ref[Question], heard: "asyncio.Queue[str]") -> None:
        self.oracle = oracle
        self.heard = heard
        self.callbacks: list[Callback[Answered | Unanswered]] = []

    @handles(Ask)
    async def ask(self, message: Ask) -> None:
        callback = self.ask_then(
            self.oracle, Question(message.text), timeout=message.timeout, ok=Answered, err=Unanswered
        )
        self.callbacks.append(callback)

    @handles(Answered)
    async def answered(self, message: Answered) -> None:
        self.heard.put_nowait(message.text)

    @handles(Unanswered)
    async def unanswered(self, message: Unanswered) -> None:
        self.heard.put_nowait(type(message.why).__name__)

    @handles(GiveUp)
    async def give_up(self, message: GiveUp) -> None:
        self.callbacks.pop().cancel()
        self.heard.put_nowait("gave up")


class Pair:
    """An oracle and a pilgrim."""

    def __init__(self, system: TestSystem) -> None:
        self.heard: asyncio.Queue[str] = asyncio.Queue(100)
        self.stopped_thinking = asyncio.Event()
        self.oracle = system.spawn(lambda: Oracle(self.stopped_thinking), name="oracle")
        self.pilgrim = system.spawn(lambda: Pilgrim(self.oracle, self.heard), name="pilgrim")


async def test_the_reply_comes_as_a_message() -> None:
    """The asker goes on meanwhile, and its task count does not grow."""
    async with TestSystem() as system:
        pair = Pair(system)
        await pair.pilgrim.tell(Ask("how"))
        assert await pair.heard.get() == "re: how"


async def test_a_refusal_comes_as_a_message_too() -> None:
    """What ``ask`` would raise is handed to ``err``."""
    async with TestSystem() as system:
        pair = Pair(system)
        await pair.pilgrim.tell(Ask("why"))
        assert await pair.heard.get() == "NotFound"


async def test_a_deadline_comes_as_a_message_and_ends_the_work() -> None:
    """Nobody thinks on after the asker has run out of time."""
    async with TestSystem() as system:
        pair = Pair(system)
        await pair.pilgrim.tell(Ask("when", timeout=2.0))
        await system.advance(3)
        assert await pair.heard.get() == "AskTimeout"
        await pair.stopped_thinking.wait()


async def test_one_that_is_cancelled_brings_nothing_and_ends_the_work() -> None:
    """The other actor learns that nobody waits."""
    async with TestSystem() as system:
        pair = Pair(system)
        await pair.pilgrim.tell(Ask("when"))
        await system.settle()
        await pair.pilgrim.tell(GiveUp())
        await pair.stopped_thinking.wait()
        await system.advance(10)
        assert [pair.heard.get_nowait() for _ in range(pair.heard.qsize())] == ["gave up"]


async def test_more_than_the_other_mailbox_holds_are_all_answered() -> None:
    """Where there is no room the ask waits beside the actor: nothing is lost, and the actor is not held up."""
    async with TestSystem() as system:
        pair = Pair(system)
        for number in range(20):
            await pair.pilgrim.tell(Ask(str(number)))
        assert sorted([await pair.heard.get() for _ in range(20)]) == sorted(f"re: {number}" for number in range(20))


@pytest.mark.parametrize("verb", ["stop", "kill"])
async def test_an_asker_that_ends_ends_the_work(verb: str) -> None:
    """An actor's outstanding asks end with it."""
    async with TestSystem() as system:
        pair = Pair(system)
        await pair.pilgrim.tell(Ask("when"))
        await system.settle()
        if verb == "stop":
            await system.stop(pair.pilgrim)
        else:
            system.kill(pair.pilgrim)
        await pair.stopped_thinking.wait()


async def test_an_oracle_that_stopped_is_a_failure_like_any_other() -> None:
    """Asking into the void comes back as a message."""
    async with TestSystem() as system:
        pair = Pair(system)
        await system.stop(pair.oracle)
        await pair.pilgrim.tell(Ask("how"))
        assert await pair.heard.get() == "ActorStopped"


async def test_what_is_over_leaves_no_garbage() -> None:
    """Questions that were answered, refused, deferred or given up are freed at once, and not left to the collector."""
    async with TestSystem() as system:
        pair = Pair(system)
        for collected in (False, True):
            for text in ("how", "why"):
                await pair.pilgrim.tell(Ask(text))
                await pair.heard.get()
            await pair.pilgrim.tell(Ask("when"))
            await system.settle()
            await pair.pilgrim.tell(GiveUp())
            await pair.stopped_thinking.wait()
            await system.settle()
            assert gc.collect() == 0 or not collected
