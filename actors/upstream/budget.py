"""Budgets of accounts: room is held before a call, and what the call really cost is counted after it."""

from collections.abc import Callable, Sequence
from typing import Protocol

from actors.upstream.pricing import Prices
from protocol.budgets import Account
from protocol.ledger import NO_SPEND, Ledger, Reservation, Spend
from protocol.llm import Cost, Usage

Estimate = Callable[[], tuple[int, int]]
"""Returns the most tokens of input and of output that are expected; called only where the account has budgets."""


class Priced(Protocol):
    """A target, as far as prices need to know it."""

    @property
    def price_id(self) -> str:
        """The name under which prices are looked up; empty for none."""

    @property
    def model(self) -> str:
        """The provider's own name of the model."""


class BudgetHold:
    """Room in the budgets of one account.

    ::

        new ──reserve──► held ──settle──► settled

    Args:
        guard: makes the estimate, and has the ledger.
        account: pays.
        targets: the targets that may be called; the most expensive one counts.
        estimate: returns the expected tokens.
    """

    __slots__ = ("_account", "_estimate", "_guard", "_reservation", "_targets")

    def __init__(self, guard: "BudgetGuard", account: Account, targets: Sequence[Priced], estimate: Estimate) -> None:
        self._guard = guard
        self._account = account
        self._targets = targets
        self._estimate = estimate
        self._reservation: Reservation | None = None

    async def reserve(self) -> None:
        """Hold room for the most that the call may cost.

        Raises:
            BudgetExceeded: the account has no room for it.
            Overloaded: the ledger can keep no further account.
        """
        account = self._account
        worst = await self._guard.worst_case(account, self._targets, self._estimate) if account.budgets else NO_SPEND
        self._reservation = await self._guard.ledger.reserve(account, worst)

    async def settle(self, actual: Spend = NO_SPEND) -> None:
        """Count ``actual`` and hold no more room. Does nothing where none is held, so also the second time."""
        if self._reservation is not None:
            await self._guard.ledger.settle(self._reservation, actual)
            self._reservation = None


class BudgetGuard:
    """Holds room in budgets, and prices what calls have used.

    Args:
        prices: prices of tokens.
        ledger: counts what accounts spend.
    """

    __slots__ = ("_prices", "ledger")

    def __init__(self, prices: Prices, ledger: Ledger) -> None:
        self._prices = prices
        self.ledger = ledger

    def hold(self, account: Account, targets: Sequence[Priced], estimate: Estimate) -> BudgetHold:
        """Return a hold that is yet to be reserved."""
        return BudgetHold(self, account, targets, estimate)

    async def window(self, target: Priced) -> int | None:
        """Return the tokens of the context of the target's model; None where they are unknown."""
        return await self._prices.window(target.price_id, target.model)

    async def charge(
        self, hold: BudgetHold | None, target: Priced, usage: Usage | None, *, answered: str = ""
    ) -> Cost | None:
        """Settle ``hold`` with what a call has used, and return its cost; None where the price is unknown.

        Args:
            hold: of the call; None where nobody pays.
            target: was called.
            usage: None for nothing.
            answered: the model's name in the answer; empty where it does not say.
        """
        usd = None
        if usage is not None:
            usd = await self._prices.cost(target.price_id, target.model, usage, answered=answered)
        if hold is not None:
            await hold.settle(NO_SPEND if usage is None else Spend(usage.input_tokens + usage.output_tokens, usd))
        return None if usd is None else Cost(usd=usd)

    async def worst_case(self, account: Account, targets: Sequence[Priced], estimate: Estimate) -> Spend:
        """Return the most that a call may cost; without US dollars where no budget or no price has any."""
        input_tokens, output_tokens = estimate()
        usd = None
        if any(budget.usd is not None for budget in account.budgets):
            rates = [await self._prices.rates(target.price_id, target.model) for target in targets]
            usd = max((rate.most(input_tokens, output_tokens) for rate in rates if rate is not None), default=None)
        return Spend(input_tokens + output_tokens, usd)
