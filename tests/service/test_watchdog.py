"""The watchdog of the event loop."""

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs

from actors.runtime import Actor, System, handles
from protocol import spans
from protocol.message import Message
from service import watchdog
from service.watchdog import MAX_NAME, MAX_STACK, RECENT, LoopWatchdog, sample_of


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock."""
    return Clock()


def lag(dog: LoopWatchdog, clock: Clock, seconds: float) -> None:
    """Let a beat be late."""
    clock.now += 0.025 + seconds
    sampler = threading.Thread(target=dog.sample)
    sampler.start()
    sampler.join()
    dog.beat()


async def test_a_loop_that_turns_costs_no_line(clock: Clock) -> None:
    """A beat that is late by less than the threshold is none."""
    dog = LoopWatchdog(0.1, clock=clock)
    dog.start()
    with capture_logs() as lines:
        lag(dog, clock, 0.0)
        lag(dog, clock, 0.09)
    assert (lines, dog.lags, dog.recent()) == ([], 0, (0, None))


async def test_a_lag_says_what_ran(clock: Clock) -> None:
    """The line has the task, the handler and a bounded stack; the next ones are counted, and written later."""
    dog = LoopWatchdog(0.1, clock=clock)
    dog.start()
    with capture_logs() as lines:
        for _ in range(5):
            lag(dog, clock, 0.4)
        clock.now += 10
        dog.beat()
    first, second = lines
    assert (first["event"], first["log_level"], first["ms"], first["omitted"]) == ("loop_lagged", "warning", 400.0, 0)
    task = asyncio.current_task()
    assert task is not None
    assert first["task"] == task.get_name()
    assert "test_watchdog" in " ".join(first["stack"])
    assert len(first["stack"]) <= MAX_STACK
    assert second["omitted"] == 4


async def test_a_lag_is_recent_for_a_minute(clock: Clock) -> None:
    """Health has the number and the longest."""
    dog = LoopWatchdog(0.1, clock=clock)
    dog.start()
    for seconds in (0.2, 0.5, 0.3):
        lag(dog, clock, seconds)
    count, longest = dog.recent()
    assert count == 3
    assert longest is not None
    assert longest.seconds == pytest.approx(0.5)
    clock.now += RECENT + 1
    assert dog.recent() == (0, None)


async def test_a_sample_of_an_earlier_lag_is_not_taken(clock: Clock) -> None:
    """Where the lag ended before anybody looked, the line has no stack."""
    dog = LoopWatchdog(0.1, clock=clock)
    dog.start()
    with capture_logs() as lines:
        lag(dog, clock, 0.4)
        clock.now += 20
        dog.beat()
    assert lines[1]["stack"] == ()


async def test_a_lag_has_a_span(clock: Clock) -> None:
    """It begins when the lag began."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    dog = LoopWatchdog(0.1, tracer=provider.get_tracer("test"), clock=clock)
    dog.start()
    lag(dog, clock, 0.4)
    (span,) = exporter.get_finished_spans()
    assert span.name == spans.LOOP_LAG
    assert (span.end_time or 0) - (span.start_time or 0) == pytest.approx(0.4e9)
    assert span.attributes is not None
    assert span.attributes[spans.LOOP_TASK]


class Spin(Message[None], frozen=True):
    """Keep the loop until something is true."""

    until: Callable[[], bool]


class Spinner(Actor[Spin]):
    """An actor that keeps the loop."""

    @handles(Spin)
    async def spin(self, message: Spin) -> None:
        while not message.until():
            pass


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Any], None]]:
    """Run a coroutine in a loop of each kind."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner.run


def test_an_actor_that_keeps_the_loop_is_named(run: Callable[[Any], None]) -> None:
    """On both loops: its task is named after it, and the handler is the function."""

    async def keep() -> None:
        dog = LoopWatchdog(0.02)
        async with System() as system:
            spinner = system.spawn(Spinner, name="spinner")
            with dog.watching():
                await spinner.ask(Spin(lambda: dog._sampled is not None), timeout=30)
                dog.beat()
        _, longest = dog.recent()
        assert longest is not None
        assert longest.sample.task == "spinner"
        assert longest.sample.handler.endswith("Spinner.spin")

    with capture_logs():
        run(keep())


def test_nothing_is_left_behind(run: Callable[[Any], None]) -> None:
    """The thread has ended, and the collector calls nobody."""

    async def watch() -> None:
        with LoopWatchdog().watching():
            assert [thread.name for thread in threading.enumerate()].count("loop-watchdog") == 1

    before = list(gc.callbacks)
    run(watch())
    assert gc.callbacks == before
    assert "loop-watchdog" not in [thread.name for thread in threading.enumerate()]


def test_the_collector_s_part_is_told(clock: Clock) -> None:
    """A lag within which the garbage collector ran says for how long."""

    async def collect() -> None:
        dog = LoopWatchdog(0.1, clock=clock)
        dog.start()
        dog._on_collection("start", {})
        clock.now += 0.3
        dog._on_collection("stop", {})
        dog.beat()

    with capture_logs() as lines:
        asyncio.run(collect())
    assert lines[0]["collector_ms"] == 300.0


def test_a_sample_is_bounded() -> None:
    """However deep the stack and long the names."""
    found: list[watchdog.Sample] = []

    def deep(depth: int) -> None:
        if depth:
            deep(depth - 1)
        else:
            found.append(sample_of(next(iter(_frames())), None))

    deep(300)
    (sample,) = found
    assert len(sample.stack) == MAX_STACK
    assert all(len(line) <= MAX_NAME for line in sample.stack)
    assert sample.task == ""


def _frames() -> Iterator[Any]:
    import sys  # noqa: PLC0415 - only here

    yield sys._getframe(1)


def test_a_threshold_is_positive() -> None:
    """Otherwise every turn would be a lag."""
    with pytest.raises(ValueError, match="positive"):
        LoopWatchdog(0.0)
