"""Two calls for one answer: which one wins, and the end of the other."""

import asyncio
from collections.abc import Callable

import pytest

from actors.llm_gateway.hedge import MakeCall, Race
from actors.runtime.testing import ManualClock
from protocol.errors import ProviderError
from protocol.events import Delta
from protocol.gateway import Progress, ProgressSink
from protocol.llm import Attempt

AFTER = 2.0


class Told:
    """A sink that keeps what it receives."""

    def __init__(self) -> None:
        self.all: list[Progress] = []

    async def tell(self, message: Progress) -> None:
        """Keep it."""
        self.all.append(message)

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(event.text for told in self.all for event in told.events if isinstance(event, Delta))


class Scripted:
    """A call that the test controls."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.begun = self.cancelled = False
        self._steps: asyncio.Queue[Progress | ProviderError | None] = asyncio.Queue()

    async def __call__(self, sink: ProgressSink) -> str:
        """Do what the test says; the result is the name."""
        self.begun = True
        try:
            while (step := await self._steps.get()) is not None:
                if isinstance(step, ProviderError):
                    raise step
                await sink.tell(step)
        except asyncio.CancelledError:
            self.cancelled = True
            await sink.tell(Progress(attempt=Attempt(provider=self.name, model="m", error="cancelled")))
            raise
        await sink.tell(Progress(attempt=Attempt(provider=self.name, model="m")))
        return self.name

    async def say(self, text: str) -> None:
        """Send content."""
        await self._do(Progress(events=(Delta(text=text),)))

    async def end(self) -> None:
        """End well."""
        await self._do(None)

    async def fail(self) -> None:
        """Fail, with the name in the message."""
        await self._do(ProviderError(self.name, code="provider_error"))

    async def _do(self, step: Progress | ProviderError | None) -> None:
        self._steps.put_nowait(step)
        await turn()


async def turn() -> None:
    """Let other tasks run."""
    for _ in range(6):
        await asyncio.sleep(0)


class Bench:
    """A race that has begun."""

    def __init__(self, second: Callable[[], MakeCall[str] | None] | None = None) -> None:
        self.clock = ManualClock()
        self.told = Told()
        self.one, self.two = Scripted("one"), Scripted("two")
        race = Race[str](self.clock, self.told)
        self.result = asyncio.create_task(race.run(self.one, after=AFTER, second=second or (lambda: self.two)))

    async def pass_time(self) -> None:
        """Let the first call's time pass."""
        await turn()
        self.clock.step(AFTER)
        await turn()


@pytest.fixture
async def bench() -> Bench:
    """A race that has begun."""
    return Bench()


async def test_a_call_that_begins_in_time_is_alone(bench: Bench) -> None:
    """No second call is made, however long the first then takes."""
    await bench.one.say("Hel")
    await bench.pass_time()
    await bench.one.say("lo")
    await bench.one.end()
    assert (await bench.result, bench.told.text, bench.two.begun) == ("one", "Hello", False)


async def test_a_call_that_fails_in_time_is_alone(bench: Bench) -> None:
    """The race raises its failure, and decides nothing about further calls."""
    await bench.one.fail()
    with pytest.raises(ProviderError, match="one"):
        await bench.result
    assert not bench.two.begun


@pytest.mark.parametrize("winner", ["one", "two"])
async def test_the_first_content_decides(bench: Bench, winner: str) -> None:
    """The other call is cancelled at once, and sends nothing but its end."""
    await bench.pass_time()
    won, lost = (bench.one, bench.two) if winner == "one" else (bench.two, bench.one)
    assert lost.begun
    await won.say("Hel")
    assert lost.cancelled
    await won.say("lo")
    await won.end()
    assert (await bench.result, bench.told.text) == (winner, "Hello")
    attempts = [told.attempt for told in bench.told.all if told.attempt is not None]
    assert [(attempt.provider, attempt.error) for attempt in attempts] == [(lost.name, "cancelled"), (winner, "")]


async def test_content_in_the_same_turn_is_of_one_call_only(bench: Bench) -> None:
    """The second call's content is dropped."""
    await bench.pass_time()
    hello = Progress(events=(Delta(text="Hello"),))
    for call in (bench.one, bench.two):
        call._steps.put_nowait(hello)
        call._steps.put_nowait(None)
    assert (await bench.result, bench.told.text, bench.two.cancelled) == ("one", "Hello", True)


async def test_a_good_answer_without_content_wins_too(bench: Bench) -> None:
    """The race does not wait for content."""
    await bench.pass_time()
    await bench.two.end()
    assert (await bench.result, bench.one.cancelled) == ("two", True)


@pytest.mark.parametrize("failed", ["one", "two"])
async def test_a_failure_leaves_the_other_one_alone(bench: Bench, failed: str) -> None:
    """The other call goes on."""
    await bench.pass_time()
    lost, other = (bench.one, bench.two) if failed == "one" else (bench.two, bench.one)
    await lost.fail()
    assert not other.cancelled
    await other.say("Hello")
    await other.end()
    assert (await bench.result, bench.told.text) == (other.name, "Hello")


async def test_when_both_fail_the_last_failure_counts(bench: Bench) -> None:
    """As without a second call."""
    await bench.pass_time()
    await bench.two.fail()
    await bench.one.fail()
    with pytest.raises(ProviderError, match="one"):
        await bench.result


async def test_a_winner_that_breaks_off_is_the_end(bench: Bench) -> None:
    """The other call has been cancelled by then."""
    await bench.pass_time()
    await bench.two.say("Hel")
    await bench.two.fail()
    with pytest.raises(ProviderError, match="two"):
        await bench.result
    assert bench.one.cancelled


async def test_where_there_is_nobody_else_the_first_goes_on() -> None:
    """Being slow is no failure."""
    bench = Bench(second=lambda: None)
    await bench.pass_time()
    await bench.one.say("Hello")
    await bench.one.end()
    assert await bench.result == "one"


async def test_who_is_cancelled_cancels_both(bench: Bench) -> None:
    """And no task is left."""
    await bench.pass_time()
    before = asyncio.all_tasks() - {asyncio.current_task()}
    bench.result.cancel()
    await asyncio.wait((bench.result,))
    assert (bench.result.cancelled(), bench.one.cancelled, bench.two.cancelled) == (True, True, True)
    assert len(before) == 3
    assert all(task.done() for task in before)


async def test_what_is_no_failure_of_a_call_is_not_hidden(bench: Bench) -> None:
    """An error of our own code ends the race, whichever call would have won."""
    await bench.pass_time()
    bench.two._steps.put_nowait("nonsense")  # type: ignore[arg-type]
    with pytest.raises(ExceptionGroup) as caught:
        await bench.result
    assert [type(error) for error in caught.value.exceptions] == [AttributeError]
    assert bench.one.cancelled
