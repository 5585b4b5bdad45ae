"""The in-memory rate limiter, and the limits of callers that it counts."""

import asyncio
import logging
import math
from collections.abc import Sequence
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.rate_limiter import MAX_TOKENS, MemoryRateLimiter
from actors.rate_limits import LOG_INTERVAL, LOGGER, RateLimits, ViolationLog
from actors.tenant_table import TenantTable
from protocol.errors import InvalidRequest, RateLimited, TryAgainLater
from protocol.identity import Principal
from protocol.limits import (
    LEASE,
    PLANS,
    UNLIMITED,
    CallerPlan,
    Limit,
    LimitDecision,
    Owner,
    Plan,
    Quota,
    RateLimiter,
    caller_plan,
)

MIDNIGHT = 1_795_996_800.0  # the start of a window of every length
ANN = ("acme", "ann")


class Time:
    """A clock that the test moves."""

    def __init__(self, now: float = MIDNIGHT) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def quotas(*limits: Limit) -> tuple[Quota, ...]:
    """Return the quotas of a call to ``chat``."""
    return CallerPlan(Plan(limits=limits)).quotas("chat")


def caller(*limits: Limit, shadow: bool = False, name: str = "ann") -> Principal:
    """Return a caller with these limits."""
    return Principal(tenant="acme", subject=name, plan=caller_plan(Plan(limits=limits, shadow=shadow)))


def left(decision: LimitDecision) -> list[int]:
    """Return what is left of each quota."""
    return [standing.remaining for standing in decision.standings]


async def admitted(limiter: MemoryRateLimiter, of: Sequence[Quota], times: int, **cost: int) -> int:
    """Return how many of so many calls at once are admitted."""
    decisions = await asyncio.gather(*(limiter.take(ANN, of, **cost) for _ in range(times)))
    return sum(decision.refused is None for decision in decisions)


@pytest.mark.parametrize(
    ("limit", "tokens"),
    [
        (Limit(endpoint="chat", requests=50), 0),
        (Limit(endpoint="chat", tokens=500), 10),
        (Limit(endpoint="chat", calls=50), 0),
    ],
)
async def test_two_hundred_at_once(limit: Limit, tokens: int) -> None:
    """Exactly as many are admitted as may; the others take nothing, also from limits that have room."""
    limiter = MemoryRateLimiter(Time())
    roomy = Limit(endpoint="*", requests=1000, tokens=100_000, calls=1000, per="hour")
    of = quotas(limit, roomy)
    assert await admitted(limiter, of, 200, tokens=tokens) == 50
    decision = await limiter.take(ANN, of, requests=0)
    assert left(decision) == [0, 950, 100_000 - 50 * tokens, 950]


async def test_a_window_slides() -> None:
    """What was counted in the window before weighs as much as it overlaps with the last window's length."""
    time = Time()
    limiter, of = MemoryRateLimiter(time), quotas(Limit(endpoint="chat", requests=10))
    assert await admitted(limiter, of, 20) == 10
    refused = await limiter.take(ANN, of)
    assert (refused.refused, refused.hold, refused.retry_after) == (of[0], None, 66.0)
    assert refused.standings[0].reset == 120.0
    time.now += 60
    assert await admitted(limiter, of, 20) == 0
    time.now += 30
    assert await admitted(limiter, of, 20) == 5
    time.now += 90
    assert left(await limiter.take(ANN, of, requests=0)) == [10]


async def test_whoever_waits_as_long_as_told_is_admitted() -> None:
    """Also for tokens, and where the wait ends in the next window."""
    for start in range(0, 60, 7):
        time = Time(MIDNIGHT + start)
        limiter, of = MemoryRateLimiter(time), quotas(Limit(endpoint="chat", tokens=100), Limit(calls=10))
        for tokens in (60, 35, 90, 5, 100):
            decision = await limiter.take(ANN, of, tokens=tokens)
            if decision.refused is not None:
                time.now += decision.retry_after
                decision = await limiter.take(ANN, of, tokens=tokens)
            assert decision.hold is not None
            decision.hold.release()


async def test_tokens_are_settled_by_the_difference() -> None:
    """The last count holds; a count after the windows have passed changes nothing; no claim counts below 0."""
    time = Time()
    limiter, of = MemoryRateLimiter(time), quotas(Limit(endpoint="chat", tokens=100))
    hold = (await limiter.take(ANN, of, tokens=80)).hold
    assert hold is not None
    assert (await limiter.take(ANN, of, tokens=30)).refused == of[0]
    for tokens, rest in ((10, 90), (-5, 100), (30, 70), (10**30, 0), (40, 60)):
        hold.count(tokens)
        assert left(await limiter.take(ANN, of, requests=0)) == [rest]
    time.now += 60
    hold.count(0)
    assert left(await limiter.take(ANN, of, requests=0)) == [100]
    hold.count(MAX_TOKENS)
    time.now += 60
    hold.count(5)
    assert left(await limiter.take(ANN, of, requests=0)) == [100]


async def test_a_lease_ends_once_and_by_itself() -> None:
    """A second release frees nobody else's place."""
    time = Time()
    limiter, of = MemoryRateLimiter(time), quotas(Limit(calls=2))
    first, second = [(await limiter.take(ANN, of, lease=10.0 + more)).hold for more in range(2)]
    assert first is not None
    assert second is not None
    assert (await limiter.take(ANN, of)).refused == of[0]
    first.release()
    first.release()
    assert await admitted(limiter, of, 5) == 1
    time.now += 11.0
    assert await admitted(limiter, of, 5) == 1
    time.now += LEASE
    assert await admitted(limiter, of, 5) == 2


async def test_an_undone_call_has_taken_nothing() -> None:
    """Requests, tokens and the lease are there again; undoing twice gives nothing."""
    limiter = MemoryRateLimiter(Time())
    of = quotas(Limit(endpoint="chat", requests=2, tokens=100, calls=2))
    kept, undone = (await limiter.take(ANN, of, tokens=10)).hold, (await limiter.take(ANN, of, tokens=20)).hold
    assert kept is not None
    assert undone is not None
    for _ in range(2):
        undone.undo()
        assert left(await limiter.take(ANN, of, requests=0)) == [1, 90, 1]
    undone.count(7)  # a run that goes on all the same
    assert left(await limiter.take(ANN, of, requests=0)) == [1, 83, 1]


async def test_a_call_that_counts_nothing_is_never_refused() -> None:
    """And takes no lease."""
    limiter, of = MemoryRateLimiter(Time()), quotas(Limit(endpoint="chat", requests=1, calls=1))
    assert await admitted(limiter, of, 3) == 1
    decision = await limiter.take(ANN, of, requests=0)
    assert (decision.refused, decision.hold, left(decision)) == (None, None, [0, 0])


async def test_a_clock_that_is_put_back_forgets_nothing() -> None:
    """And admits nobody a second time."""
    time = Time()
    limiter, of = MemoryRateLimiter(time), quotas(Limit(endpoint="chat", requests=3))
    assert await admitted(limiter, of, 5) == 3
    time.now -= 3600
    assert await admitted(limiter, of, 5) == 0
    time.now += 3600 + 120
    assert await admitted(limiter, of, 5) == 3


ARRIVALS = st.lists(
    st.tuples(st.floats(0, 45, allow_nan=False), st.integers(1, 6), st.integers(0, 12)), min_size=1, max_size=60
)


@given(arrivals=ARRIVALS, limit=st.integers(1, 20), start=st.floats(0, 59))
def test_no_window_has_more_than_it_may(arrivals: list[tuple[float, int, int]], limit: int, start: float) -> None:
    """An aligned window has at most the limit; any other one also what the window before weighs too little.

    With ``previous`` counted in the aligned window before, of which the share ``passed`` has gone out of reach, that is
    ``limit + previous * passed``: below twice the limit.
    """
    asyncio.run(_no_window_has_more(arrivals, limit, start))


async def _no_window_has_more(arrivals: list[tuple[float, int, int]], limit: int, start: float) -> None:
    time = Time(MIDNIGHT + start)
    limiter, of = MemoryRateLimiter(time), quotas(Limit(endpoint="chat", tokens=limit))
    taken: list[tuple[float, int]] = []
    for pause, cost, _ in arrivals:
        time.now += pause
        index, passed = divmod(time.now / 60, 1.0)
        present = sum(amount for at, amount in taken if at // 60 == index)
        previous = sum(amount for at, amount in taken if at // 60 == index - 1)
        decision = await limiter.take(ANN, of, tokens=cost)
        fits = present + previous * (1 - passed) + cost
        if not math.isclose(fits, limit, rel_tol=1e-6):
            assert (decision.refused is None) == (fits < limit)
        if decision.refused is None:
            taken.append((time.now, cost))
            present += cost
            assert present <= limit
            sliding = sum(amount for at, amount in taken if at > time.now - 60)
            assert sliding <= limit + previous * passed + 1e-3
            assert sliding < 2 * limit or previous == 0


async def test_the_table_of_owners_is_bounded_by_tenants() -> None:
    """A tenant with many users drops counters of its own, first those in which nothing counts."""
    time = Time()
    limiter, of = MemoryRateLimiter(time, max_owners=4), quotas(Limit(endpoint="chat", requests=1))
    await limiter.take(("small", "one"), of)
    for number in range(100):
        await limiter.take(("large", str(number)), of)
        assert len(limiter) <= 4
    assert left(await limiter.take(("small", "one"), of, requests=0)) == [0]
    assert left(await limiter.take(("large", "99"), of, requests=0)) == [0]


def test_an_idle_row_makes_room_before_others() -> None:
    """Else the one that was not used for the longest time."""
    table: TenantTable[int] = TenantTable(3)
    for name, row in (("a", 1), ("b", 0), ("c", 1)):
        table.add("t", name, row, lambda row: not row)
    table.add("t", "d", 1, lambda row: not row)
    assert table.get("t", "b") is None
    assert table.get("t", "a") == 1
    table.add("t", "e", 1, lambda row: not row)
    assert table.get("t", "c") is None
    assert list(table.latest("t")) == [1, 1, 1]
    assert (table.remove("t", "a"), table.remove("t", "a"), len(table)) == (True, False, 2)


def test_which_limits_a_call_has() -> None:
    """Names, patterns, paths; ``general`` is what no other limit names; a key's own limits narrow and never widen."""
    chat, general = Limit(endpoint="chat", requests=10), Limit(requests=100)
    every, path = Limit(endpoint="*", calls=5), Limit(endpoint="/v1/*", requests=7, per="second")
    plan = CallerPlan(Plan(limits=(chat, general, every, path)), (Limit(endpoint="embeddings", requests=1000),))
    named = {
        (endpoint, where): [quota.key for quota in plan.quotas(endpoint, where)]
        for endpoint, where in (("chat", "/ws"), ("general", "/api/usage"), ("embeddings", "/v1/embeddings"))
    }
    assert named == {
        ("chat", "/ws"): ["chat requests/minute", "* calls"],
        ("general", "/api/usage"): ["* calls", "general requests/minute"],
        ("embeddings", "/v1/embeddings"): ["* calls", "/v1/* requests/second", "embeddings requests/minute"],
    }
    narrowed = CallerPlan(PLANS["basic"], (Limit(endpoint="chat", requests=3), Limit(requests=10_000)))
    assert [quota.limit for quota in narrowed.quotas("chat")] == [3]
    assert [quota.limit for quota in narrowed.quotas("general")] == [100]


def test_the_shipped_plans() -> None:
    """Chat and all else a minute, uploads and quizzes an hour; the largest has no limits."""
    assert caller_plan(PLANS["enterprise"]) is None
    found = {
        (name, endpoint): [(quota.limit, quota.per) for quota in CallerPlan(PLANS[name]).quotas(endpoint)]
        for name in ("basic", "pro")
        for endpoint in ("chat", "video.upload", "quiz", "general", "embeddings")
    }
    assert found == {
        ("basic", "chat"): [(10, "minute")],
        ("basic", "video.upload"): [(5, "hour")],
        ("basic", "quiz"): [(3, "hour")],
        ("basic", "general"): [(100, "minute")],
        ("basic", "embeddings"): [(100, "minute")],
        ("pro", "chat"): [(50, "minute")],
        ("pro", "video.upload"): [(20, "hour")],
        ("pro", "quiz"): [(15, "hour")],
        ("pro", "general"): [(500, "minute")],
        ("pro", "embeddings"): [(500, "minute")],
    }


def test_a_limit_limits_something() -> None:
    """Otherwise it can't be made."""
    with pytest.raises(ValueError, match="needs `requests`, `tokens` or `calls`"):
        Limit(endpoint="chat")


async def test_a_program_checks_and_enforces() -> None:
    """``check`` takes nothing; ``enforce`` raises with the limit and the wait."""
    limits = RateLimits(MemoryRateLimiter(Time()))
    ann = Principal(tenant="acme", subject="ann", plan=caller_plan(PLANS["basic"]))
    assert await limits.enforce(Principal(), "chat") is None
    for _ in range(10):
        assert (await limits.check(ann, "chat")).refused is None
        assert await limits.enforce(ann, "chat") is not None
    standing = await limits.check(ann, "chat")
    assert (left(standing), str(standing.refused)) == ([0], "10 requests a minute to `chat`")
    with pytest.raises(RateLimited) as caught:
        await limits.enforce(ann, "chat")
    assert (caught.value.code, caught.value.retry_after) == ("rate_limited", 66.0)
    assert caught.value.detail == "The limit of 10 requests a minute to `chat` is reached"
    assert await limits.enforce(ann, "quiz") is not None
    assert await limits.reset("acme", "ann")
    assert not await limits.reset("acme", "bob")
    assert await limits.enforce(ann, "chat") is not None


async def test_what_can_never_pass_is_an_invalid_request() -> None:
    """It consumes nothing, and no retry is suggested."""
    limits = RateLimits(MemoryRateLimiter(Time()))
    ann = caller(Limit(endpoint="chat", tokens=1000, requests=5))
    with pytest.raises(InvalidRequest, match=r"1,001 tokens .* 1,000 tokens a minute to `chat`: it can never pass"):
        await limits.enforce(ann, "chat", tokens=1001)
    assert left(await limits.check(ann, "chat")) == [5, 1000]
    assert await limits.enforce(ann, "chat", tokens=1000) is not None


async def test_a_shadow_plan_counts_and_refuses_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Its refusals are recorded; what it would refuse takes nothing, as if it had been refused."""
    caplog.set_level(logging.INFO, LOGGER)
    limits = RateLimits(MemoryRateLimiter(Time()))
    ann = caller(Limit(endpoint="chat", requests=2, tokens=100), shadow=True)
    decisions = [await limits.decide(ann, "chat", estimate=partial(int, tokens)) for tokens in (1, 1, 1, 101)]
    assert [decision.standings for decision in decisions] == [()] * 4
    assert all(decision.refused is None for decision in decisions)
    assert limits.known(ann, "chat") is UNLIMITED
    rows = [(row.unit, row.shadow, row.count) for row in limits.violations.of("acme")]
    assert rows == [("tokens", True, 1), ("requests", True, 1)]
    assert [record.__dict__["fields"]["shadow"] for record in caplog.records] == [True, True]


async def test_refusals_are_recorded_and_logged_a_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """A line has the number of refusals since the one before; rows and lines hold no more than names and numbers."""
    caplog.set_level(logging.INFO, LOGGER)
    time = Time()
    log = ViolationLog(time)
    limits = RateLimits(MemoryRateLimiter(time), violations=log)
    ann = caller(Limit(endpoint="chat", requests=1, per="day"))
    for _ in range(100):
        await limits.decide(ann, "chat")
    time.now += LOG_INTERVAL
    await limits.decide(ann, "chat")
    assert [record.__dict__["fields"]["count"] for record in caplog.records] == [1, 99]
    (row,) = log.of("acme")
    assert (row.user, row.endpoint, row.per, row.count, row.last - row.first) == ("ann", "chat", "day", 100, 60.0)
    assert list(log.of("other")) == []


async def test_the_rows_of_refusals_are_bounded() -> None:
    """A tenant with many users drops its own."""
    log = ViolationLog(Time(), most=10)
    (quota,) = quotas(Limit(endpoint="chat", requests=1))
    log.add(("small", "one"), quota, shadow=False)
    for number in range(100):
        log.add(("large", str(number)), quota, shadow=False)
    assert len(log) == 10
    assert [row.user for row in log.of("small")] == ["one"]
    assert next(row.user for row in log.of("large")) == "99"


class FailingLimiter(RateLimiter):
    """An engine that can't be reached."""

    async def take(
        self, owner: Owner, quotas: Sequence[Quota], *, requests: int = 1, tokens: int = 0, lease: float = LEASE
    ) -> LimitDecision:
        raise ConnectionError("no route to the engine")

    def known(self, owner: Owner, quotas: Sequence[Quota]) -> LimitDecision:
        return UNLIMITED

    async def reset(self, owner: Owner) -> bool:
        raise ConnectionError("no route to the engine")


async def test_a_failing_engine_lets_calls_go_on(caplog: pytest.LogCaptureFixture) -> None:
    """With a line a minute."""
    limits, ann = RateLimits(FailingLimiter()), caller(Limit(endpoint="chat", requests=1))
    for _ in range(5):
        assert await limits.enforce(ann, "chat") is None
    assert (await limits.check(ann, "chat")) is UNLIMITED
    assert [record.message for record in caplog.records] == ["limits_unavailable"]


async def test_a_failing_engine_refuses_where_the_operator_says_so() -> None:
    """As an outage of the service, not of the caller."""
    limits = RateLimits(FailingLimiter(), open_on_failure=False)
    ann = caller(Limit(endpoint="chat", requests=1))
    with pytest.raises(TryAgainLater) as caught:
        await limits.enforce(ann, "chat")
    assert (caught.value.code, caught.value.problem.status) == ("limits_unavailable", 503)
    with pytest.raises(TryAgainLater, match="can't be found out"):
        await limits.reset("acme", "ann")
    assert await limits.enforce(Principal(), "chat") is None
