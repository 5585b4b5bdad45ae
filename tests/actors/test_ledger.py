"""The in-memory ledger."""

import asyncio
import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.ledger import MemoryLedger
from protocol.budgets import Account, Budget
from protocol.errors import BudgetExceeded, Overloaded
from protocol.ledger import NO_SPEND, ZERO_USD, Reservation, Spend, Standing, window

FREE = Account("team")
LAST_SECOND = dt.datetime(2026, 12, 31, 23, 59, 59, tzinfo=dt.UTC)


class Time:
    """A clock that the test moves."""

    def __init__(self, moment: dt.datetime = LAST_SECOND) -> None:
        self.moment = moment

    def __call__(self) -> float:
        return self.moment.timestamp()


def limited(*budgets: Budget) -> Account:
    """Return the account, with these budgets."""
    return Account("team", budgets)


async def spend(ledger: MemoryLedger, account: Account, actual: Spend, worst: Spend = NO_SPEND) -> None:
    """Reserve and settle."""
    await ledger.settle(await ledger.reserve(account, worst), actual)


async def test_what_is_settled_is_counted_by_day_and_month() -> None:
    """Also for an account without a budget; a settled reservation holds nothing."""
    ledger = MemoryLedger(Time())
    reservation = await ledger.reserve(FREE, Spend(100, Decimal(1)))
    day, _ = await ledger.spent(FREE)
    assert (day.tokens, day.usd, day.reserved_tokens, day.reserved_usd) == (0, ZERO_USD, 100, Decimal(1))
    await ledger.settle(reservation, Spend(7, Decimal("0.25")))
    for standing in await ledger.spent(FREE):
        assert (standing.tokens, standing.usd) == (7, Decimal("0.25"))
        assert (standing.reserved_tokens, standing.reserved_usd, standing.unpriced_tokens) == (0, ZERO_USD, 0)
    assert await ledger.spent(Account("other")) != await ledger.spent(FREE)


async def test_a_second_settlement_changes_nothing() -> None:
    """Settling is idempotent."""
    ledger = MemoryLedger(Time())
    reservation = await ledger.reserve(FREE, NO_SPEND)
    for _ in range(2):
        await ledger.settle(reservation, Spend(7, Decimal(1)))
    assert [standing.tokens for standing in await ledger.spent(FREE)] == [7, 7]


async def test_two_hundred_at_once_on_a_budget_for_fifty() -> None:
    """Exactly fifty are admitted, in any order."""
    ledger, account = MemoryLedger(Time()), limited(Budget(per="day", tokens=500))
    outcomes = await asyncio.gather(*(ledger.reserve(account, Spend(10)) for _ in range(200)), return_exceptions=True)
    assert sum(isinstance(outcome, Reservation) for outcome in outcomes) == 50
    assert sum(isinstance(outcome, BudgetExceeded) for outcome in outcomes) == 150


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(per="day", tokens=10), "10 tokens a day"),
        (Budget(per="month", usd=Decimal("0.5")), "0.5 USD a month"),
        (Budget(per="day", usd=Decimal("0.5"), tokens=50), "0.5 USD and 50 tokens a day"),
    ],
)
async def test_all_budgets_have_to_have_room(budget: Budget, said: str) -> None:
    """Where one has none, nothing is held in the others; the error names that budget, and until when."""
    ledger = MemoryLedger(Time())
    account = limited(Budget(per="month", tokens=10_000), budget, Budget(per="day", usd=Decimal(100)))
    with pytest.raises(BudgetExceeded) as caught:
        await ledger.reserve(account, Spend(11, Decimal("0.6")))
    assert said in caught.value.detail
    assert "until 2027-01-01T00:00:00Z" in caught.value.detail
    assert not caught.value.problem.temporary
    standings = await ledger.spent(account)
    assert all((one.tokens, one.reserved_tokens, one.reserved_usd) == (0, 0, ZERO_USD) for one in standings)
    await ledger.reserve(account, Spend(10, Decimal("0.5")))


async def test_an_unknown_price_counts_tokens_only() -> None:
    """The standing has the number of unpriced tokens."""
    ledger, account = MemoryLedger(Time()), limited(Budget(per="day", usd=Decimal(0), tokens=10))
    await spend(ledger, account, Spend(7, None), Spend(9, None))
    day, _ = await ledger.spent(account)
    assert (day.tokens, day.usd, day.unpriced_tokens, day.max_tokens) == (7, ZERO_USD, 7, 10)
    with pytest.raises(BudgetExceeded):
        await ledger.reserve(account, Spend(4, None))


async def test_a_new_window_begins_with_nothing() -> None:
    """A reservation counts in the windows in which it was made; windows that are over are forgotten."""
    time = Time()
    ledger, account = MemoryLedger(time), limited(Budget(per="day", tokens=10))
    await spend(ledger, account, Spend(1))
    under_way = await ledger.reserve(account, Spend(9))
    time.moment += dt.timedelta(seconds=1)
    day, month = await ledger.spent(account)
    assert (day.begins, month.ends) == (time.moment, dt.datetime(2027, 2, 1, tzinfo=dt.UTC))
    assert (day.tokens, day.reserved_tokens, month.tokens) == (0, 0, 0)
    await spend(ledger, account, Spend(2), Spend(10))
    await ledger.settle(under_way, Spend(500))
    assert [one.tokens for one in await ledger.spent(account)] == [2, 2]
    time.moment += dt.timedelta(days=1)
    day, month = await ledger.spent(account)
    assert (day.tokens, month.tokens) == (0, 2)
    assert [len(current.accounts) for current in ledger._current] == [0, 1]


async def test_accounts_are_bounded() -> None:
    """One too many is refused, until a window ends."""
    time = Time()
    ledger = MemoryLedger(time, max_accounts=2)
    for name in ("a", "b"):
        await spend(ledger, Account(name), Spend(1))
    with pytest.raises(Overloaded):
        await ledger.reserve(Account("c"), NO_SPEND)
    time.moment += dt.timedelta(seconds=1)
    await spend(ledger, Account("c"), Spend(1))


@pytest.mark.parametrize(
    ("moment", "begins", "ends"),
    [
        ("2026-02-28T12:00", "2026-02-01", "2026-03-01"),
        ("2028-02-29T23:59", "2028-02-01", "2028-03-01"),
        ("2026-12-01T00:00", "2026-12-01", "2027-01-01"),
    ],
)
def test_a_month_is_the_calendars(moment: str, begins: str, ends: str) -> None:
    """However many days it has."""
    found = window("month", dt.datetime.fromisoformat(f"{moment}+00:00"))
    assert (found.begins.date().isoformat(), found.ends.date().isoformat()) == (begins, ends)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 40), st.integers(0, 40)),
        st.tuples(st.just("settle"), st.integers(0, 10), st.integers(0, 100)),
    ),
    max_size=60,
)


@given(STEPS)
def test_it_adds_up_and_no_reservation_passes_the_budget(steps: list[tuple[str, int, int]]) -> None:
    """The spent total is the sum of the settlements, and the held total never exceeds the budget."""
    asyncio.run(_adds_up(steps))


async def _adds_up(steps: list[tuple[str, int, int]]) -> None:
    ledger = MemoryLedger(Time())
    account = limited(Budget(per="day", tokens=100, usd=Decimal(80)), Budget(per="month", tokens=120))
    held: list[Reservation] = []
    settled: list[Spend] = []
    for verb, one, other in steps:
        before = await ledger.spent(account)
        if verb == "reserve":
            try:
                held.append(await ledger.reserve(account, Spend(one, Decimal(other))))
            except BudgetExceeded:
                assert await ledger.spent(account) == before
            else:
                assert all(map(_within, await ledger.spent(account)))
        elif held:
            reservation = held.pop(one % len(held))
            share = Decimal(other) / 100
            actual = Spend(int(reservation.worst.tokens * share), (reservation.worst.usd or Decimal(0)) * share)
            settled.append(actual)
            await ledger.settle(reservation, actual)
        for standing in await ledger.spent(account):
            assert standing.tokens == sum(actual.tokens for actual in settled)
            assert standing.usd == sum(actual.usd or 0 for actual in settled)
            assert standing.reserved_tokens == sum(one.worst.tokens for one in held)
            assert standing.reserved_usd == sum(one.worst.usd or 0 for one in held)


def _within(standing: Standing) -> bool:
    tokens, usd = standing.tokens + standing.reserved_tokens, standing.usd + standing.reserved_usd
    return tokens <= (standing.max_tokens or 0) and (standing.max_usd is None or usd <= standing.max_usd)


@given(
    st.lists(st.tuples(st.integers(-(10**12), 10**12), st.none() | st.decimals(-(10**6), 10**6, places=9)), max_size=8)
)
async def test_a_spent_total_never_falls(amounts: list[tuple[int, Decimal | None]]) -> None:
    """Whatever is settled."""
    ledger = MemoryLedger(Time())
    before = [Decimal(0)] * 3
    for tokens, usd in amounts:
        await spend(ledger, FREE, Spend(tokens, usd), Spend(5, Decimal(1)))
        day, _ = await ledger.spent(FREE)
        now = [Decimal(day.tokens), day.usd, Decimal(day.unpriced_tokens)]
        assert all(later >= earlier for later, earlier in zip(now, before, strict=True))
        assert (day.reserved_tokens, day.reserved_usd) == (0, ZERO_USD)
        before = now
