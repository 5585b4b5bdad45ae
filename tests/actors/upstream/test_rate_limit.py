import asyncio
import weakref

import pytest

from actors.runtime.testing import ManualClock
from actors.upstream.rate_limit import PACE, PROBED, Permit, RateLimitGate
from actors.upstream.reported_limit import LONGEST
from protocol.errors import Overloaded, ProviderError
from protocol.upstream import Allowance

LATE = 1000.0


@pytest.fixture
def clock() -> ManualClock:
    """A clock that the test moves."""
    return ManualClock()


@pytest.fixture
def gate(clock: ManualClock) -> RateLimitGate:
    """The gate of a target without known limits."""
    return RateLimitGate("p/m", clock, queue=4)


async def turn() -> None:
    """Let other tasks run."""
    for _ in range(3):
        await asyncio.sleep(0)


async def enter(gate: RateLimitGate, tenant: str = "", *, tokens: int = 0, deadline: float = LATE) -> Permit:
    """Send a call."""
    return await gate.acquire(tenant, lambda: tokens, deadline)


def calls(remaining: int, *, limit: int = 0, reset: float = 10.0) -> Allowance:
    """Return a report on calls."""
    return Allowance("calls", remaining, limit, reset)


async def passing(clock: ManualClock, until: float) -> None:
    """Let the time pass."""
    while clock.step(until):
        await turn()


async def begun(gate: RateLimitGate, tenants: str) -> tuple[list[str], list["asyncio.Task[Permit]"]]:
    """Let a call of each of these tenants come, in this order; the list fills with those that are sent."""
    sent: list[str] = []

    async def send(tenant: str) -> Permit:
        permit = await enter(gate, tenant)
        sent.append(tenant)
        return permit

    tasks = []
    for tenant in tenants:
        tasks.append(asyncio.create_task(send(tenant)))
        await turn()
    return sent, tasks


async def test_nothing_is_kept_back_where_nothing_is_said(gate: RateLimitGate) -> None:
    """The tokens of a call are not estimated, either."""

    def asked() -> int:
        raise AssertionError

    for number in range(1, 100):
        assert (await gate.acquire("", asked, 0.0)).calls == number
    gate.learn(Permit(1), ())
    assert (gate.wait, gate.queued) == (0, 0)


async def test_calls_since_the_answered_one_count_against_what_remains(gate: RateLimitGate, clock: ManualClock) -> None:
    """A report holds as of when its call was sent."""
    first = await enter(gate)
    await enter(gate)
    gate.learn(first, [calls(3)])
    sent, tasks = await begun(gate, "abc")
    assert (sent, gate.queued) == (["a", "b"], 1)
    assert gate.wait == 10
    await passing(clock, 9.9)
    assert sent == ["a", "b"]
    await passing(clock, 10)
    await asyncio.gather(*tasks)
    assert (sent, gate.queued, gate.wait) == (["a", "b", "c"], 0, 0)


async def test_an_answer_to_an_earlier_call_is_too_old(gate: RateLimitGate) -> None:
    """Answers come in any order."""
    first, second = await enter(gate), await enter(gate)
    gate.learn(second, [calls(0)])
    gate.learn(first, [calls(100)])
    assert gate.wait == 10


async def test_a_limit_fills_up_steadily(gate: RateLimitGate, clock: ManualClock) -> None:
    """There is room for a call after its share of the time until the limit is full."""
    gate.learn(await enter(gate), [calls(0, limit=10)])
    sent, tasks = await begun(gate, "abc")
    for second, count in ((0.9, 0), (1.0, 1), (1.9, 1), (2.0, 2), (3.0, 3)):
        await passing(clock, second)
        assert len(sent) == count
    await asyncio.gather(*tasks)


async def test_a_refusal_closes_until_it_said(gate: RateLimitGate, clock: ManualClock) -> None:
    """The computed limit was wrong: closed until ``retry-after``, or where there is none until the reset."""
    gate.learn(await enter(gate), [calls(0, limit=10)], refused=True, retry_after=4.0)
    assert gate.wait == 4
    clock.step(4.0)
    assert gate.wait == 0
    gate.learn(await enter(gate), [calls(0, limit=10)], refused=True)
    assert gate.wait == 10


async def test_tokens_are_counted_as_calls_are(gate: RateLimitGate, clock: ManualClock) -> None:
    """A large call waits longer than a small one; one larger than the limit, until the limit is full."""
    gate.learn(await enter(gate), [Allowance("tokens", 100, 1000, 90.0)])
    await enter(gate, tokens=60)
    assert gate.wait == 0
    large = asyncio.create_task(enter(gate, tokens=140))
    await turn()
    await passing(clock, 9.9)
    assert not large.done()
    await passing(clock, 10)
    await large
    huge = asyncio.create_task(enter(gate, tokens=5000))
    await turn()
    await passing(clock, LONGEST)
    await huge


async def test_tokens_of_answers_are_not_known_before(gate: RateLimitGate) -> None:
    """As long as any remain, calls are sent."""
    gate.learn(await enter(gate), [Allowance("output", 1, 1000, 30.0)])
    assert gate.wait == 0
    gate.learn(await enter(gate), [Allowance("output", 0, 0, 30.0)])
    assert gate.wait == 30


async def test_who_would_wait_in_vain_is_told_at_once(gate: RateLimitGate) -> None:
    """The error says when to come back; waiting calls are included."""
    gate.learn(await enter(gate), [calls(0, limit=10)])
    with pytest.raises(Overloaded) as caught:
        await enter(gate, deadline=0.5)
    assert (caught.value.code, caught.value.retry_after) == ("provider_overloaded", 1.0)
    _, tasks = await begun(gate, "aa")
    with pytest.raises(Overloaded) as caught:
        await enter(gate, deadline=2.5)
    assert caught.value.retry_after == pytest.approx(3.0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert (gate.queued, gate._timer) == (0, None)


async def test_no_header_blocks_for_ever(gate: RateLimitGate, clock: ManualClock) -> None:
    """A reset in a year holds for a minute."""
    gate.learn(await enter(gate), [calls(0, limit=1, reset=3e7)], refused=True, retry_after=3e7)
    sent, tasks = await begun(gate, "ab")
    await passing(clock, LONGEST)
    assert sent == ["a"]
    await passing(clock, LONGEST + PROBED)
    await asyncio.gather(*tasks)
    assert sent == ["a", "b"]


async def test_tenants_take_turns_and_the_line_is_bounded(gate: RateLimitGate, clock: ManualClock) -> None:
    """As in the queue for places: a flood of one tenant costs another one turn."""
    gate.learn(await enter(gate), [calls(0, limit=10)])
    sent, tasks = await begun(gate, "aaaab")
    assert isinstance(tasks[3].exception(), Overloaded)
    await passing(clock, 10)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sent == ["a", "b", "a", "a"]


async def test_an_answer_opens_it_before_its_time(gate: RateLimitGate, clock: ManualClock) -> None:
    """A later report of more room lets waiting calls go."""
    gate.learn(await enter(gate), [calls(1)])
    last = await enter(gate)
    sent, tasks = await begun(gate, "ab")
    gate.learn(last, [calls(1)])
    await turn()
    assert sent == ["a"]
    gate.learn(last, [calls(9)])
    await passing(clock, PACE)
    await asyncio.gather(*tasks)
    assert gate._timer is None


async def test_who_is_cancelled_in_the_moment_of_its_turn_leaves_the_next_ones_alone(
    gate: RateLimitGate, clock: ManualClock
) -> None:
    """It counts as sent, until the next report."""
    gate.learn(await enter(gate), [calls(0, limit=10)])
    sent, tasks = await begun(gate, "ab")
    clock.step(1.0)
    tasks[0].cancel()
    await passing(clock, 2.0)
    await tasks[1]
    assert (sent, tasks[0].cancelled()) == (["b"], True)


def refuse(gate: RateLimitGate, permit: Permit) -> None:
    """Let the target refuse this call, with a ``retry-after`` of a second."""
    gate.learn(permit, [calls(0, reset=1.0)], refused=True, retry_after=1.0)


async def test_after_a_refusal_one_finds_out_for_all(gate: RateLimitGate, clock: ManualClock) -> None:
    """The others wait for its answer, as do later calls, and then follow one by one, in turn."""
    refuse(gate, await enter(gate))
    sent, tasks = await begun(gate, "aab")
    await passing(clock, 1.0)
    assert sent == ["a"]
    late, more = await begun(gate, "c")
    assert (late, gate.queued) == ([], 3)
    gate.learn(await tasks[0], ())
    assert gate.unlimited
    await passing(clock, 1.0 + PACE)
    assert sent == ["a", "b"]
    await passing(clock, 1.0 + 2 * PACE)
    assert (sent, late) == (["a", "b", "a"], [])
    await passing(clock, 1.0 + 3 * PACE)
    await asyncio.gather(*tasks, *more)


async def test_what_its_answer_says_holds_for_the_others(gate: RateLimitGate, clock: ManualClock) -> None:
    """Where the limit fills up slowly, they follow slowly."""
    refuse(gate, await enter(gate))
    sent, tasks = await begun(gate, "aab")
    await passing(clock, 1.0)
    gate.learn(await tasks[0], [calls(0, limit=10)])
    await passing(clock, 1.9)
    assert sent == ["a"]
    await passing(clock, 2.0)
    assert sent == ["a", "b"]
    await passing(clock, 3.0)
    await asyncio.gather(*tasks)


async def test_of_many_that_come_after_the_reset_one_goes(gate: RateLimitGate, clock: ManualClock) -> None:
    """Also where no call has waited for the reset; calls after the probe's answer do not wait."""
    refuse(gate, await enter(gate))
    await passing(clock, 500.0)
    sent, tasks = await begun(gate, "abc")
    assert sent == ["a"]
    gate.learn(await tasks[0], [calls(100)])
    await enter(gate)
    await passing(clock, 500.0 + PACE)
    await asyncio.gather(*tasks)


async def test_where_it_is_refused_all_that_wait_are(gate: RateLimitGate, clock: ManualClock) -> None:
    """They fail one by one, with the seconds to wait; later calls wait for the next probe."""
    refuse(gate, await enter(gate))
    sent, tasks = await begun(gate, "aab")
    await passing(clock, 1.0)
    refuse(gate, await tasks[0])
    late, more = await begun(gate, "c")
    assert [task.done() for task in tasks] == [True, False, True]
    assert gate.queued == 2
    await passing(clock, 1.0 + PACE)
    for task in (tasks[2], tasks[1]):
        error = task.exception()
        assert isinstance(error, ProviderError)
        assert error.code == "provider_rate_limited"
        assert error.retry_after == pytest.approx(1.0, abs=PACE)
    await passing(clock, 2.0)
    await asyncio.gather(*more)
    assert (sent, late) == (["a"], ["c"])


async def test_those_on_their_way_out_are_as_few_as_may_wait(gate: RateLimitGate, clock: ManualClock) -> None:
    """While dismissed calls are failing, a further refused probe dismisses none: they wait for another probe."""
    refuse(gate, await enter(gate))
    _, first = await begun(gate, "abcd")
    await passing(clock, 1.0)
    gate.learn(await first[0], [], refused=True, retry_after=PACE / 2)
    _, second = await begun(gate, "xyz")
    await passing(clock, 1.0 + PACE)
    gate.learn(await second[0], [], refused=True, retry_after=PACE / 2)
    await turn()
    assert [task.done() for task in first + second] == [True, True, True, False, True, False, False]
    await passing(clock, 1.0 + 2 * PACE)
    assert isinstance(first[3].exception(), ProviderError)
    gate.learn(await second[1], [], refused=True, retry_after=PACE / 2)
    await turn()
    assert isinstance(second[2].exception(), ProviderError)
    assert gate.queued == 0
    await asyncio.gather(*first, *second, return_exceptions=True)


async def test_a_probe_that_hangs_is_waited_for_a_moment_only(gate: RateLimitGate, clock: ManualClock) -> None:
    """A refusal would have come by then."""
    refuse(gate, await enter(gate))
    sent, tasks = await begun(gate, "abc")
    await passing(clock, 1.0 + PROBED - 0.01)
    assert sent == ["a"]
    await passing(clock, 1.0 + PROBED + PACE)
    await asyncio.gather(*tasks)
    gate.learn(tasks[0].result(), ())
    gate.release(tasks[0].result())
    assert gate.unlimited


async def test_a_probe_without_an_answer_is_followed_by_the_next(gate: RateLimitGate, clock: ManualClock) -> None:
    """At once: whether it was cancelled, could not be sent, or was cancelled in the moment of its turn."""
    refuse(gate, await enter(gate))
    sent, tasks = await begun(gate, "abcd")
    clock.step(1.0)
    tasks[0].cancel()
    await turn()
    await passing(clock, 1.0 + PACE)
    assert sent == ["b"]
    gate.release(await tasks[1])
    await passing(clock, 1.0 + 2 * PACE)
    assert sent == ["b", "c"]
    await passing(clock, 1.9)
    assert sent == ["b", "c"]
    gate.learn(await tasks[2], ())
    gate.release(tasks[2].result())
    await turn()
    await tasks[3]


async def test_a_short_deadline_is_no_reason_to_despair_of_a_probe(gate: RateLimitGate, clock: ManualClock) -> None:
    """The probe's answer may come at any moment, so a call waits for it."""
    refuse(gate, await enter(gate))
    await passing(clock, 1.0)
    probe = await enter(gate)
    waiting = asyncio.create_task(enter(gate, deadline=1.5))
    await turn()
    gate.learn(probe, ())
    await waiting


async def test_what_was_let_in_before_a_refusal_is_stale_until_one_is_let_in(
    gate: RateLimitGate, clock: ManualClock
) -> None:
    """A call that has waited for a place meanwhile would be refused."""
    first, second = await enter(gate), await enter(gate)
    assert not gate.stale(second)
    refuse(gate, first)
    assert gate.stale(second)
    await passing(clock, 1.0)
    probe = await enter(gate)
    assert (gate.stale(second), gate.stale(probe)) == (True, False)
    gate.learn(probe, ())
    assert not gate.stale(second)


async def test_who_is_refused_leaves_nothing_to_the_collector(gate: RateLimitGate, clock: ManualClock) -> None:
    """Its error holds the frame in which it waited, and that frame does not hold the error."""
    refuse(gate, await enter(gate))
    _, tasks = await begun(gate, "ab")
    await passing(clock, 1.0)
    refuse(gate, await tasks[0])
    await asyncio.wait(tasks)
    error = tasks[1].exception()
    assert isinstance(error, ProviderError)
    gone = weakref.ref(error)
    del error, tasks
    assert gone() is None
