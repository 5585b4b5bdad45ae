import logging

import pytest

from actors.runtime.testing import ManualClock
from actors.upstream.breaker import IN_A_ROW, OPEN_SECONDS, WINDOW, Breaker


def calls(breaker: Breaker, *outcomes: bool | None) -> None:
    """Make a call for each outcome, one after the other."""
    for good in outcomes:
        generation = breaker.enter()
        assert generation is not None
        breaker.leave(generation, good=good)


@pytest.fixture
def clock() -> ManualClock:
    """A clock that the test moves."""
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> Breaker:
    """A breaker that is closed."""
    return Breaker("p/m", clock)


def test_it_opens_on_failures_in_a_row(breaker: Breaker) -> None:
    """One success restarts the count; an open breaker lets no call through for a while."""
    calls(breaker, *[False] * (IN_A_ROW - 1), True, *[False] * (IN_A_ROW - 1))
    assert breaker.wait == 0
    calls(breaker, False)
    assert breaker.wait == OPEN_SECONDS
    assert breaker.enter() is None


def test_it_opens_on_a_share_of_failures(breaker: Breaker) -> None:
    """A target that rarely answers is not worth calling either."""
    nine_of_ten = [*[False] * (IN_A_ROW - 1), True]
    calls(breaker, *(nine_of_ten * (WINDOW // IN_A_ROW))[: WINDOW - 2], False)
    assert breaker.wait == 0
    calls(breaker, False)
    assert breaker.wait == OPEN_SECONDS


def test_what_says_nothing_does_not_count(breaker: Breaker) -> None:
    """A cancelled call, or a rejected request, is neither good nor bad."""
    calls(breaker, *[False] * (IN_A_ROW - 1), *[None] * WINDOW)
    assert breaker.wait == 0
    calls(breaker, False)
    assert breaker.wait == OPEN_SECONDS


def opened(breaker: Breaker, clock: ManualClock) -> int:
    """Open it, wait, and return the generation of the probe."""
    calls(breaker, *[False] * IN_A_ROW)
    clock.step(clock.time() + OPEN_SECONDS)
    assert breaker.wait == 0
    probe = breaker.enter()
    assert probe is not None
    return probe


def test_one_probe_decides(breaker: Breaker, clock: ManualClock) -> None:
    """While it is under way no other call is let through; a good one closes the breaker."""
    probe = opened(breaker, clock)
    assert breaker.wait is None
    assert breaker.enter() is None
    breaker.leave(probe, good=True)
    calls(breaker, *[False] * (IN_A_ROW - 1))
    assert breaker.wait == 0


def test_its_state_can_be_seen(breaker: Breaker, clock: ManualClock) -> None:
    """Open until a probe may be made, half-open until that has ended."""
    seen = [breaker.state]
    calls(breaker, *[False] * IN_A_ROW)
    seen.append(breaker.state)
    clock.step(OPEN_SECONDS)
    seen.append(breaker.state)
    probe = breaker.enter()
    seen.append(breaker.state)
    breaker.leave(probe or 0, good=True)
    assert [*seen, breaker.state] == ["closed", "open", "half-open", "half-open", "closed"]


def test_a_bad_probe_opens_again(breaker: Breaker, clock: ManualClock) -> None:
    """The next one has to wait as long."""
    breaker.leave(opened(breaker, clock), good=False)
    assert breaker.wait == OPEN_SECONDS


def test_a_cancelled_probe_leaves_its_place(breaker: Breaker, clock: ManualClock) -> None:
    """It says nothing, so the next call is the probe."""
    breaker.leave(opened(breaker, clock), good=None)
    assert breaker.wait == 0
    assert breaker.enter() is not None
    assert breaker.enter() is None


def test_calls_from_before_decide_nothing(breaker: Breaker, clock: ManualClock) -> None:
    """Only the probe's outcome counts while there is one."""
    old = breaker.enter()
    assert old is not None
    probe = opened(breaker, clock)
    breaker.leave(old, good=True)
    assert breaker.enter() is None
    breaker.leave(probe, good=True)
    breaker.leave(old, good=False)
    assert breaker.wait == 0


def test_only_transitions_are_logged(breaker: Breaker, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """An outage is two lines, however long it is."""
    caplog.set_level(logging.INFO, "tidegate.gateway")
    for _ in range(5):
        breaker.leave(opened(breaker, clock) if not caplog.records else _probe(breaker, clock), good=False)
    breaker.leave(_probe(breaker, clock), good=True)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert all(record.getMessage().startswith("p/m ") for record in caplog.records)


def _probe(breaker: Breaker, clock: ManualClock) -> int:
    clock.step(clock.time() + OPEN_SECONDS)
    probe = breaker.enter()
    assert probe is not None
    return probe
