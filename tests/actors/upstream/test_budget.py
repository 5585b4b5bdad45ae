from decimal import Decimal

import pytest

from actors.ledger import MemoryLedger
from actors.upstream.budget import BudgetGuard
from actors.upstream.pricing import Prices
from protocol.budgets import Account, Budget
from protocol.errors import BudgetExceeded
from protocol.ledger import Spend, Standing
from protocol.llm import Usage

USD = Account("team", (Budget(per="day", usd=Decimal(1)),))
TOKENS = Account("team", (Budget(per="day", tokens=100),))


class Target:
    """A target with a price."""

    price_id = "openai"

    def __init__(self, model: str) -> None:
        self.model = model


CHEAP, DEAR, FREE = Target("gpt-4o-mini"), Target("gpt-4o"), Target("no-such-model")


@pytest.fixture
def ledger() -> MemoryLedger:
    """An empty ledger."""
    return MemoryLedger()


@pytest.fixture
def guard(ledger: MemoryLedger) -> BudgetGuard:
    """A guard of that ledger."""
    return BudgetGuard(Prices(), ledger)


async def today(ledger: MemoryLedger, account: Account) -> Standing:
    """How the account stands today."""
    return (await ledger.spent(account))[0]


async def test_the_most_expensive_target_counts(guard: BudgetGuard, ledger: MemoryLedger) -> None:
    """Any of them may be called; one without a price counts no dollars."""
    held = []
    for targets in ((CHEAP,), (CHEAP, DEAR), (DEAR, FREE), (FREE,)):
        hold = guard.hold(USD, targets, lambda: (1000, 100))
        await hold.reserve()
        held.append((await today(ledger, USD)).reserved_usd)
        await hold.settle()
    assert held == [Decimal("0.00021"), Decimal("0.0035"), Decimal("0.0035"), Decimal(0)]


async def test_without_budgets_the_tokens_are_not_estimated(guard: BudgetGuard, ledger: MemoryLedger) -> None:
    """An account without budgets is counted, and nothing is held for it."""
    hold = guard.hold(Account("team"), (CHEAP,), lambda: pytest.fail("estimated"))
    await hold.reserve()
    await hold.settle(Spend(5, None))
    assert (await today(ledger, USD)).tokens == 5


async def test_a_hold_is_settled_once(guard: BudgetGuard, ledger: MemoryLedger) -> None:
    """Before it is reserved, and after it is settled, nothing happens."""
    hold = guard.hold(TOKENS, (CHEAP,), lambda: (60, 40))
    await hold.settle(Spend(50, None))
    await hold.reserve()
    with pytest.raises(BudgetExceeded):
        await guard.hold(TOKENS, (CHEAP,), lambda: (1, 0)).reserve()
    await hold.settle(Spend(7, None))
    await hold.settle(Spend(7, None))
    standing = await today(ledger, TOKENS)
    assert (standing.tokens, standing.reserved_tokens) == (7, 0)


async def test_a_charge_settles_and_has_a_cost(guard: BudgetGuard, ledger: MemoryLedger) -> None:
    """In US dollars where the model, or the one in the answer, has a price."""
    usage = Usage(input_tokens=1000, output_tokens=100)
    hold = guard.hold(USD, (CHEAP,), lambda: (1000, 100))
    await hold.reserve()
    cost = await guard.charge(hold, CHEAP, usage)
    assert cost is not None
    assert cost.usd == Decimal("0.00021") == (await today(ledger, USD)).usd
    assert await guard.charge(None, FREE, usage, answered="gpt-4o-mini") == cost
    assert await guard.charge(None, FREE, usage) is None
    assert await guard.charge(None, CHEAP, None) is None
