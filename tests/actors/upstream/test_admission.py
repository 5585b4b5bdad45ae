import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from actors.ledger import MemoryLedger
from actors.runtime.testing import ManualClock
from actors.upstream.admission import Admission, AdmissionTerms
from actors.upstream.breaker import IN_A_ROW, Breaker
from actors.upstream.budget import BudgetGuard
from actors.upstream.candidates import Candidate
from actors.upstream.concurrency import ConcurrencyLimiter
from actors.upstream.endpoint import Endpoint
from actors.upstream.health import Health
from actors.upstream.pricing import Prices
from actors.upstream.rate_limit import Permit, RateLimitGate
from protocol.budgets import Account, Budget
from protocol.errors import (
    BudgetExceeded,
    DeadlineExceeded,
    Overloaded,
    ProviderError,
    SchemaMismatch,
    TidegateError,
)
from protocol.ledger import Reservation, Spend
from protocol.upstream import Allowance, Refusal

DEADLINE = 30.0
NO_CALLS = (Allowance("calls", 0, 10, 10.0),)


class Released(msgspec.Struct):
    """What has been given back: how often each part, and what the breaker was told."""

    places: int = 0
    permits: int = 0
    consents: list[bool | None] = []
    settled: int = 0


class CountedLimiter(ConcurrencyLimiter):
    """A limiter that counts the places that are given back."""

    def __init__(self, released: Released, *, queue: int) -> None:
        super().__init__("p", concurrency=1, queue=queue)
        self.given_back = released

    def release(self) -> None:
        self.given_back.places += 1
        super().release()


class CountedGate(RateLimitGate):
    """A gate that counts the permits that are given back."""

    def __init__(self, released: Released, clock: ManualClock) -> None:
        super().__init__("p/m", clock, queue=4)
        self.given_back = released

    def release(self, permit: Permit) -> None:
        self.given_back.permits += 1
        super().release(permit)


class CountedBreaker(Breaker):
    """A breaker that keeps what it is told."""

    def __init__(self, released: Released, clock: ManualClock) -> None:
        super().__init__("p/m", clock)
        self.given_back = released

    def leave(self, generation: int, *, good: bool | None) -> None:
        self.given_back.consents.append(good)
        super().leave(generation, good=good)


class CountedLedger(MemoryLedger):
    """A ledger that counts settlements, and can keep reservations waiting."""

    def __init__(self, released: Released) -> None:
        super().__init__()
        self.given_back = released
        self.ready = asyncio.Event()
        self.ready.set()

    async def reserve(self, account: Account, worst: Spend) -> Reservation:
        await self.ready.wait()
        return await super().reserve(account, worst)

    async def settle(self, reservation: Reservation, actual: Spend) -> None:
        self.given_back.settled += 1
        await super().settle(reservation, actual)


class Priced:
    """A target without a price."""

    price_id = ""
    model = "m"


class Rig:
    """A target with counted parts, and the admission of one call to it."""

    def __init__(self, *, queue: int = 1) -> None:
        self.clock = ManualClock()
        self.released = Released()
        self.limiter = CountedLimiter(self.released, queue=queue)
        self.gate = CountedGate(self.released, self.clock)
        self.breaker = CountedBreaker(self.released, self.clock)
        self.ledger = CountedLedger(self.released)
        self.account = Account("team", (Budget(per="day", tokens=10),))
        endpoint = Endpoint("p", self.limiter)
        self.candidate = Candidate(Priced(), endpoint, Health(self.breaker, self.gate), lambda: 1)

    def admission(self, *, tokens: int = 10, learns_limits: bool = True) -> Admission:
        """Return the admission of a call that may cost so many tokens."""
        hold = BudgetGuard(Prices(), self.ledger).hold(self.account, (Priced(),), lambda: (tokens, 0))
        terms = AdmissionTerms(self.clock, DEADLINE, "tenant", learns_limits)
        return self.candidate.endpoint.admit(self.candidate, terms, hold)

    async def call(self, failure: BaseException | None = None) -> bool:
        """Make a call that ends in this way; return whether it was admitted."""
        async with self.admission() as admitted:
            if failure is not None:
                raise failure
            return admitted is not None

    async def waiting(self) -> "asyncio.Task[bool]":
        """Begin a call, and let it wait."""
        task = asyncio.create_task(self.call())
        await turn()
        return task

    async def busy(self) -> None:
        """Take the only place, outside of any admission."""
        await self.limiter.acquire("other")

    def refuse(self) -> None:
        """Let the target refuse the last call that was sent, for ten seconds."""
        self.gate.learn(self.gate._sent, NO_CALLS, refused=True)


async def turn() -> None:
    """Let everybody else run."""
    for _ in range(5):
        await asyncio.sleep(0)


def move(clock: ManualClock, until: float) -> None:
    """Move the time on."""
    while clock.step(until):
        pass


async def succeeds(rig: Rig) -> None:
    """The call ends well."""
    assert await rig.call()


def fails(make: Callable[[], Exception]) -> "Callable[[Rig], Awaitable[None]]":
    """The call ends with this failure."""

    async def case(rig: Rig) -> None:
        error = make()
        with pytest.raises(type(error)):
            await rig.call(error)

    return case


async def is_cancelled(rig: Rig) -> None:
    """The call is cancelled while it is under way."""
    with pytest.raises(asyncio.CancelledError):
        await rig.call(asyncio.CancelledError())


async def hands_its_hold_over(rig: Rig) -> None:
    """The call takes the budget hold over, and settles it after its end."""
    async with rig.admission() as admitted:
        assert admitted is not None
        hold = admitted.take_hold()
        assert hold is not None
        assert admitted.take_hold() is None
    assert rig.released.settled == 0
    await hold.settle(Spend(3, None))
    await hold.settle(Spend(3, None))


async def has_no_budget(rig: Rig) -> None:
    """The account has no room for the call."""
    with pytest.raises(BudgetExceeded):
        async with rig.admission(tokens=11):
            pytest.fail("not admitted")


async def is_cancelled_at_the_ledger(rig: Rig) -> None:
    """The call is cancelled while the ledger is asked."""
    rig.ledger.ready.clear()
    await cancel(await rig.waiting())


async def finds_the_breaker_open(rig: Rig) -> None:
    """The breaker has opened before the call."""
    for _ in range(IN_A_ROW):
        Breaker.leave(rig.breaker, rig.breaker.enter() or 0, good=False)
    assert not await rig.call()


async def finds_the_queue_full(rig: Rig) -> None:
    """Another call waits in the only place of the queue."""
    await rig.busy()
    other = asyncio.create_task(rig.limiter.acquire("tenant"))
    await turn()
    with pytest.raises(Overloaded):
        await rig.call()
    await cancel(other)


async def waits_for_a_place(rig: Rig) -> None:
    """A place becomes free, and the call ends well."""
    await rig.busy()
    task = await rig.waiting()
    ConcurrencyLimiter.release(rig.limiter)
    assert await task


async def is_cancelled_before_a_place(rig: Rig) -> None:
    """The call is cancelled while it waits for a place."""
    await rig.busy()
    await cancel(await rig.waiting())


async def is_out_of_time_before_a_place(rig: Rig) -> None:
    """The deadline comes while the call waits for a place."""
    await rig.busy()
    task = await rig.waiting()
    move(rig.clock, DEADLINE)
    with pytest.raises(DeadlineExceeded):
        await task


async def holds_a_stale_permit(rig: Rig) -> None:
    """The target refuses another call while this one waits for a place."""
    await rig.busy()
    task = await rig.waiting()
    rig.refuse()
    ConcurrencyLimiter.release(rig.limiter)
    assert not await task


async def finds_no_room_in_time(rig: Rig) -> None:
    """The rate limit has room only after the deadline."""
    rig.gate.learn(rig.gate.acquire_nowait(), (Allowance("calls", 0, 1, 100.0),))
    with pytest.raises(Overloaded):
        await rig.call()


async def is_cancelled_before_the_rate_limit(rig: Rig) -> None:
    """The call is cancelled while it waits for the rate limit."""
    rig.gate.learn(rig.gate.acquire_nowait(), NO_CALLS)
    await cancel(await rig.waiting())


async def waits_for_a_refused_probe(rig: Rig) -> None:
    """A probe is refused while the call waits for its end: the call counts, and is not sent."""
    rig.refuse()
    move(rig.clock, 11.0)
    await rig.gate.acquire("other", lambda: 1, DEADLINE)
    task = await rig.waiting()
    rig.refuse()
    with pytest.raises(ProviderError):
        await task
    assert rig.candidate.calls == 1


async def cancel(task: "asyncio.Task[bool] | asyncio.Task[None]") -> None:
    """Cancel it, and wait for its end."""
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()


@pytest.mark.parametrize(
    ("case", "released"),
    [
        (succeeds, Released(1, 1, [True], 1)),
        (fails(lambda: ProviderError(code="provider_error")), Released(1, 1, [False], 1)),
        (fails(lambda: ProviderError(code="provider_rejected")), Released(1, 1, [None], 1)),
        (fails(lambda: Refusal(code="provider_rate_limited", limits=NO_CALLS)), Released(1, 1, [None], 1)),
        (fails(lambda: SchemaMismatch(raw="{")), Released(1, 1, [True], 1)),
        (fails(DeadlineExceeded), Released(1, 1, [None], 1)),
        (fails(lambda: ValueError("a fault of our own")), Released(1, 1, [None], 1)),
        (is_cancelled, Released(1, 1, [None], 1)),
        (hands_its_hold_over, Released(1, 1, [True], 1)),
        (has_no_budget, Released(1, 1)),
        (is_cancelled_at_the_ledger, Released(1, 1)),
        (finds_the_breaker_open, Released(1, 1, [], 1)),
        (finds_the_queue_full, Released(0, 1)),
        (waits_for_a_place, Released(1, 1, [True], 1)),
        (is_cancelled_before_a_place, Released(0, 1)),
        (is_out_of_time_before_a_place, Released(0, 1)),
        (holds_a_stale_permit, Released(1, 1)),
        (finds_no_room_in_time, Released()),
        (is_cancelled_before_the_rate_limit, Released()),
        (waits_for_a_refused_probe, Released()),
    ],
)
async def test_every_way_out_releases_each_part_once(
    case: Callable[[Rig], Awaitable[None]], released: Released
) -> None:
    """Whatever was acquired is given back once, and what was not acquired is not."""
    rig = Rig()
    await case(rig)
    assert rig.released == released
    assert rig.limiter.queued == 0
    (today, _) = await rig.ledger.spent(rig.account)
    assert today.reserved_tokens == 0
    assert not rig.ledger._open


async def test_a_free_endpoint_costs_no_timer() -> None:
    """Where nothing has to be waited for, the clock gets no call."""
    rig = Rig()
    async with rig.admission() as admitted:
        assert admitted is not None
        assert rig.limiter.in_flight == 1
        assert not rig.clock._calls
    assert rig.limiter.in_flight == 0


@pytest.mark.parametrize("learns_limits", [True, False])
async def test_a_refusal_closes_the_rate_limit_where_the_terms_say_so(learns_limits: bool) -> None:
    """Chat learns from it, embeddings do not; the cool-down begins in both cases."""
    rig = Rig()
    with pytest.raises(Refusal):
        async with rig.admission(learns_limits=learns_limits):
            raise Refusal(code="provider_rate_limited", limits=NO_CALLS)
    assert rig.gate.unlimited is not learns_limits
    assert rig.candidate.health.cools_until > 0


async def test_what_a_good_answer_reports_is_learnt() -> None:
    """The limits in the head of an answer hold for the next call."""
    rig = Rig()
    async with rig.admission() as admitted:
        assert admitted is not None
        admitted.learn(NO_CALLS)
    assert rig.gate.wait > 0


async def test_a_call_that_is_not_admitted_does_not_count() -> None:
    """A request has as many calls left as before."""
    rig = Rig()
    await finds_the_breaker_open(rig)
    with pytest.raises(TidegateError):
        async with rig.admission(tokens=11):
            pass
    assert rig.candidate.calls == 0
    assert await Rig().call()
