"""Who pays for a call: room is held in the account's budgets before it, and what it really cost is kept after it."""

from typing import Final

from actors.llm_gateway.routing import Leg
from actors.targets.pricing import Prices
from protocol.budgets import Account
from protocol.ledger import NOTHING, Ledger, Reservation, Spend
from protocol.llm import ChatRequest, Cost, Usage
from protocol.tokens import estimate_tokens

OUTPUT_CEILING: Final = 4096  # tokens of output for which room is held where neither request nor target bounds them


class Till:
    """Opens a bill for each call.

    Args:
        prices: what tokens cost.
        ledger: where what is spent is kept.
    """

    __slots__ = ("_ledger", "_prices")

    def __init__(self, prices: Prices, ledger: Ledger) -> None:
        self._prices = prices
        self._ledger = ledger

    def unpaid(self, leg: Leg) -> "Bill":
        """Return the bill for a call that nobody pays for."""
        return Bill(self._prices, self._ledger, leg, None)

    async def open(self, account: Account, leg: Leg, request: ChatRequest) -> "Bill":
        """Return the bill for a call, with room held for the worst that it may come to.

        Raises:
            BudgetExceeded: the account has no room for it.
            Overloaded: the ledger can keep no further account.
        """
        worst = await self._worst(account, leg, request) if account.budgets else NOTHING
        reservation = await self._ledger.reserve(account, worst)
        return Bill(self._prices, self._ledger, leg, reservation)

    async def _worst(self, account: Account, leg: Leg, request: ChatRequest) -> Spend:
        input_tokens, output_tokens = estimate_tokens(request), request.max_tokens or OUTPUT_CEILING
        rates = None
        if any(budget.usd is not None for budget in account.budgets):
            rates = await self._prices.rates(leg.upstream.provider.price_id, leg.model)
        usd = None if rates is None else rates.most(input_tokens, output_tokens)
        return Spend(input_tokens + output_tokens, usd)


class Bill:
    """What one call comes to.

    Args:
        prices: what tokens cost.
        ledger: where what is spent is kept.
        leg: who is asked.
        reservation: what is held for it; None where nobody pays.
    """

    __slots__ = ("_ledger", "_leg", "_prices", "_reservation")

    def __init__(self, prices: Prices, ledger: Ledger, leg: Leg, reservation: Reservation | None) -> None:
        self._prices = prices
        self._ledger = ledger
        self._leg = leg
        self._reservation = reservation

    async def settle(self, usage: Usage | None, answered: str = "") -> Cost | None:
        """Keep what the call has used, and let go of the room that was held; return the cost.

        Args:
            usage: None for nothing.
            answered: what the answer calls its model; empty where it does not say.
        """
        usd = None
        if usage is not None:
            leg = self._leg
            usd = await self._prices.cost(leg.upstream.provider.price_id, leg.model, usage, answered=answered)
        if self._reservation is not None:
            actual = NOTHING if usage is None else Spend(usage.input_tokens + usage.output_tokens, usd)
            await self._ledger.settle(self._reservation, actual)
        return None if usd is None else Cost(usd=usd)
