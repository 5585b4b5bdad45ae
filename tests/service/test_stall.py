"""Connections whose clients take nothing of what was sent."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from service.stall import GROUP, LEAST_RATE, LONGEST_WAIT, ROUND, STALL_LIMIT, Progress, StallSweep, look_at


class Written:
    """What was written to a connection and what was taken, as a test says."""

    def __init__(self, waiting: int = 0, taken: int | None = 0) -> None:
        self.waiting = waiting
        self.taken = taken

    def take(self, size: int) -> None:
        """Let the client take some bytes."""
        self.waiting -= size
        if self.taken is not None:
            self.taken += size


class Line:
    """A connection that notes when it was ended."""

    def __init__(self, outgoing: Written | None) -> None:
        self.outgoing = outgoing
        self.progress: Progress | None = None
        self.ended: list[float] = []

    def stalled(self, seconds: float) -> None:
        self.ended.append(seconds)


def look(line: Line, seconds: float, *, since: float = 0.0) -> None:
    """Look at a connection once in each round of so many seconds."""
    now = since
    while now <= since + seconds:
        look_at(line, now)
        now += ROUND


@pytest.mark.parametrize("taken", [7, None])
def test_a_client_that_takes_nothing_is_ended(taken: int | None) -> None:
    """At the limit and not before, also where the system does not say what was taken."""
    line = Line(Written(1000, taken))
    look(line, STALL_LIMIT - ROUND)
    assert line.ended == []
    look_at(line, STALL_LIMIT)
    assert line.ended == [STALL_LIMIT]


@pytest.mark.parametrize("taken", [0, None])
def test_a_client_that_takes_a_byte_in_time_is_not(taken: int | None) -> None:
    """However slow it is, the time begins anew with each byte."""
    written = Written(1000, taken)
    line = Line(written)
    for step in range(20):
        look(line, STALL_LIMIT - ROUND, since=step * STALL_LIMIT)
        written.take(1)
    assert line.ended == []


def test_a_slow_client_takes_in_large_pieces() -> None:
    """What it took after a wait lasts for its time; what its system took at once, into its buffer, does not."""
    written = Written(1_000_000, 0)
    line = Line(written)
    look_at(line, 0.0)
    written.take(95_000)
    look_at(line, ROUND)
    written.take(66_000)
    look(line, 24.0, since=2 * ROUND)
    assert line.progress is not None
    assert line.progress.allowed == STALL_LIMIT
    written.take(95_000)
    look(line, 90.0, since=36.0)
    assert line.ended == []
    look(line, LEAST_RATE, since=129.0)
    assert line.ended[0] < LONGEST_WAIT


def test_what_is_written_meanwhile_is_no_progress() -> None:
    """The pings of a stream do not keep a client that takes none of them."""
    written = Written(10, 0)
    line = Line(written)
    for step in range(11):
        look_at(line, step * ROUND)
        written.waiting += 1000
    assert line.ended == [STALL_LIMIT]


def test_a_client_that_takes_as_much_as_is_written_is_in_time() -> None:
    """A full window that moves is no stall."""
    written = Written(1000, 0)
    line = Line(written)
    for step in range(40):
        look_at(line, step * ROUND)
        written.taken = (written.taken or 0) + 1
    assert line.ended == []


def test_a_client_with_nothing_to_take_may_be_idle_for_ever() -> None:
    """The time begins with the first byte that waits."""
    written = Written()
    line = Line(written)
    look(line, STALL_LIMIT * 10)
    written.waiting = 1
    look(line, STALL_LIMIT - ROUND, since=STALL_LIMIT * 11)
    assert line.ended == []
    look(Line(None), STALL_LIMIT * 2)


class Timers:
    """Timers that a test fires."""

    def __init__(self) -> None:
        self.set: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Set one."""
        self.set.append((seconds, call))
        return cast("asyncio.TimerHandle", None)

    def fire(self) -> float:
        """Fire the only one, and return its seconds."""
        ((seconds, call),) = self.set
        self.set.clear()
        call()
        return seconds


def test_a_sweep_looks_at_a_bounded_number_at_once() -> None:
    """However many connections there are, one iteration looks at a group, and a round at each of them once."""
    lines = [Line(Written(1)) for _ in range(3 * GROUP + 1)]
    timers = Timers()
    sweep = StallSweep(lambda: [*lines], timers.later, lambda: 0.0)
    sweep.start()
    assert timers.fire() == ROUND
    seen: list[int] = []
    for _ in range(4):
        seen.append(sum(line.progress is not None for line in lines))
        timers.fire()
    assert seen == [GROUP, 2 * GROUP, 3 * GROUP, len(lines)]


def test_a_sweep_without_connections_goes_on() -> None:
    """One timer a round, and no more."""
    timers = Timers()
    sweep = StallSweep(list, timers.later, lambda: 0.0)
    sweep.start()
    assert [timers.fire() for _ in range(3)] == [ROUND] * 3
