"""Callers, tokens and files at their worst, against the rate limits."""

import asyncio
import logging
import tomllib
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.rate_limiter import MAX_OWNERS, MAX_TOKENS, MemoryRateLimiter
from actors.rate_limits import LOGGER, MAX_REFUSED, MAX_VIOLATIONS, RateLimits
from protocol.errors import ConfigurationError, InvalidRequest, RateLimited
from protocol.identity import Principal
from protocol.limits import MAX_AMOUNT, PLANS, CallerPlan, Limit, Plan, Quota, QuotaStanding, caller_plan
from service.auth.keys import KeyRing, KeySpec
from service.auth.token_config import TokenLimits, token_plans
from service.config.routes_file import parse
from service.middleware.limit_headers import limit_lines

NOON = 1_796_040_000.0
MINUTE = Limit(endpoint="chat", requests=5, tokens=1000, calls=3)


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def caller(name: str = "ann", tenant: str = "acme", *limits: Limit) -> Principal:
    """Return a limited caller."""
    return Principal(tenant=tenant, subject=name, plan=caller_plan(Plan(limits=limits or (MINUTE,))))


ROGUE = st.integers(-(10**40), 10**40)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), ROGUE),
        st.tuples(st.just("count"), ROGUE),
        st.tuples(st.sampled_from(["release", "undo", "reset", "wait"]), st.integers(0, 200)),
    ),
    max_size=80,
)


@given(STEPS)
def test_whatever_is_claimed_the_counters_stay_sane(steps: list[tuple[str, int]]) -> None:
    """Never below 0 and never above the limit in what they admit, in any order of any numbers, and no exception."""
    asyncio.run(_stay_sane(steps))


async def _stay_sane(steps: list[tuple[str, int]]) -> None:
    time = Time()
    limiter = MemoryRateLimiter(time)
    limits = RateLimits(limiter)
    ann = caller()
    holds: list[Any] = []
    waits: list[float] = []
    for verb, number in steps:
        if verb == "take":
            try:
                holds.append(await limits.enforce(ann, "chat", tokens=number))
            except (RateLimited, InvalidRequest) as error:
                waits.append(error.retry_after or 0.0)
        elif verb == "reset":
            await limits.reset("acme", "ann")
        elif verb == "wait":
            time.now += number
        elif holds:
            hold = holds[number % len(holds)]
            if verb == "count":
                hold.count(number)
            else:
                getattr(hold, verb)()
        decision = await limits.decide(ann, "chat", requests=0)
        for standing in decision.standings:
            assert 0 <= standing.remaining <= standing.quota.limit
            assert 0 <= standing.reset <= 2 * standing.quota.window
    assert all(0 <= wait <= 120 for wait in waits)


async def test_a_flood_of_refused_calls_keeps_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """10,000 refusals: one log line, one row, one owner, and what was taken stays what may be."""
    caplog.set_level(logging.INFO, LOGGER)
    limiter = MemoryRateLimiter(Time())
    limits, ann = RateLimits(limiter), caller()
    for _ in range(10_000):
        await limits.decide(ann, "chat", estimate=lambda: 10)
    assert len(caplog.records) == 1
    assert (len(limits.violations), len(limiter)) == (1, 1)
    assert [row.count for row in limits.violations.of("acme")] == [9997]
    assert [one.remaining for one in (await limits.decide(ann, "chat", requests=0)).standings] == [2, 970, 0]


async def test_a_tenant_with_any_number_of_users_forgets_its_own() -> None:
    """Counters and rows are bounded, and those of another tenant stay."""
    limiter = MemoryRateLimiter(Time(), max_owners=100)
    limits = RateLimits(limiter)
    one = Limit(endpoint="chat", requests=1)
    for _ in range(2):
        await limits.decide(caller("bob", "small", one), "chat")
    for number in range(3000):
        for _ in range(2):
            await limits.decide(caller(str(number), "large", one), "chat")
        assert len(limiter) <= 100
    assert len(limits.violations) == MAX_VIOLATIONS
    assert len(limits._refused) <= MAX_REFUSED
    assert (await limits.decide(caller("bob", "small", one), "chat")).refused is not None
    assert [row.user for row in limits.violations.of("small")] == ["bob"]
    assert MAX_OWNERS == 100_000


async def test_a_refused_caller_is_refused_before_its_call_is_read() -> None:
    """From the second refusal on, until there is room."""
    time = Time()
    limits, ann = RateLimits(MemoryRateLimiter(time)), caller("ann", "acme", Limit(endpoint="chat", requests=1))
    assert limits.known(ann, "chat").refused is None
    await limits.decide(ann, "chat")
    assert limits.known(ann, "chat").refused is None
    await limits.decide(ann, "chat")
    assert str(limits.known(ann, "chat").refused) == "1 requests a minute to `chat`"
    time.now += 120
    assert limits.known(ann, "chat").refused is None


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


@given(JSON)
def test_any_claim_of_a_token_is_the_default_plan_or_a_named_one(claim: object) -> None:
    """A claim can't lift a limit that the file has not made a plan for."""
    plans = token_plans(TokenLimits("basic"), PLANS)
    found = plans.of(claim)
    named = isinstance(claim, str) and claim in PLANS
    assert found == (caller_plan(PLANS[claim]) if named and isinstance(claim, str) else caller_plan(PLANS["basic"]))


WORDS = st.sampled_from(
    ["endpoint", "per", "requests", "tokens", "calls", "plan", "limits", "shadow", "x", "__class__"]
)
VALUES = st.recursive(
    LEAVES | st.sampled_from(["chat", "minute", "basic", '"', "a\r\nSet-Cookie: x"]) | ROGUE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
)


@given(st.dictionaries(st.sampled_from(["plans", "keys", "jwt"]), VALUES, max_size=3))
def test_any_file_is_a_plan_or_a_list_of_faults(table: dict[str, Any]) -> None:
    """Never another exception; what is read without faults can be counted and told."""
    _, keys, faults = parse(table)
    for spec in keys.values():
        if not faults:
            plan = caller_plan(None, spec.limits)
            for quota in () if plan is None else plan.quotas("chat"):
                assert 1 <= quota.limit <= MAX_AMOUNT


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[keys.a]\nplan = 'bascic'", "keys.a.plan: there is no such plan; did you mean 'basic'?"),
        ("[keys.a]\nplan = 'x'", "keys.a.plan: there is no such plan; there are: basic, enterprise, pro"),
        ("[plans.a]\nlimit = []", "plans.a.limit: there is no such key; did you mean 'limits'?"),
        (
            "[plans.a]\nlimits = [{ per = 'minut', requests = 1 }]",
            "'hour' or 'day'; did you mean 'minute'?",
        ),
        ("[plans.a]\nlimits = [{ endpoint = 'chat' }]", "it needs `requests`, `tokens` or `calls`"),
        ("[plans.a]\nlimits = [{ requests = 0 }]", "plans.a.limits[0].requests: should be a whole number >= 1"),
        ("[plans.a]\nlimits = [{ requests = 1, endpoint = 'a b' }]", "1 to 128 characters without blanks"),
        ("[jwt]\nplan = 'bsic'", "jwt.plan: there is no such plan; did you mean 'basic'?"),
        ("[jwt]\npln = 'basic'", "jwt.pln: there is no such key; did you mean 'plan'?"),
    ],
)
def test_a_mistake_is_named(text: str, said: str) -> None:
    """With its place and the nearest name."""
    table = tomllib.loads(text)
    _, keys, faults = parse(table)
    if not faults:
        for check in (
            partial(KeyRing().replace, {name: KeySpec(hash="0" * 64, plan=spec.plan) for name, spec in keys.items()}),
            partial(token_plans, TokenLimits(table["jwt"]["plan"]) if "jwt" in table else None, PLANS),
        ):
            try:
                check()
            except ConfigurationError as error:
                faults += error.faults
    said_all = [f"{fault.path}: {fault.message}" for fault in faults]
    assert any(said in one for one in said_all), said_all


@given(
    st.lists(
        st.tuples(st.from_regex(r"\A[!#-\[\]-~]{1,128}\Z"), st.integers(1, MAX_AMOUNT), st.floats(0, 172_800)),
        min_size=1,
        max_size=16,
    )
)
def test_no_name_breaks_the_headers(limits: list[tuple[str, int, float]]) -> None:
    """Each line is one printable header, whatever endpoint the operator names."""
    found: dict[str, Quota] = {}
    for name, amount, _ in limits:
        for quota in CallerPlan(Plan(limits=(Limit(endpoint=name, requests=amount, tokens=amount),))).quotas(
            name, name
        ):
            found[quota.key] = quota
    standings = [QuotaStanding(quota, quota.limit, limits[0][2]) for quota in found.values()]
    if standings:
        lines = limit_lines(standings, NOON).split("\r\n")
        assert lines[-1] == ""
        assert all(line.isprintable() and line.isascii() and ": " in line for line in lines[:-1])
        assert len(lines) == 1 + 5 + 12


async def test_an_estimate_of_any_size_is_clamped() -> None:
    """One that no call can use is refused without a number that overflows."""
    limits = RateLimits(MemoryRateLimiter(Time()))
    ann = caller("ann", "acme", Limit(endpoint="chat", tokens=MAX_AMOUNT))
    assert await limits.enforce(ann, "chat", tokens=10 * MAX_TOKENS) is not None
    assert [one.remaining for one in (await limits.check(ann, "chat")).standings] == [MAX_AMOUNT - MAX_TOKENS]
    with pytest.raises(InvalidRequest):
        await limits.enforce(ann, "chat", tokens=10**30)
