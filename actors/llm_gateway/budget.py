"""Who pays for a call: room is held in the account's budgets before it, and what it really cost is kept after it."""

from typing import Final

from actors.llm_gateway.routing import Leg
from actors.upstream.pricing import Prices
from protocol.budgets import Account
from protocol.ledger import NO_SPEND, Ledger, Reservation, Spend
from protocol.llm import ChatRequest, Cost, Usage
from protocol.tokens import estimate_tokens

OUTPUT_CEILING: Final = 4096  # tokens of output for which room is held where neither request nor target bounds them


class Till:
    """Holds room for calls, and says what they have cost.

    Args:
        prices: what tokens cost.
        ledger: where what is spent is kept.
    """

    __slots__ = ("_ledger", "_prices")

    def __init__(self, prices: Prices, ledger: Ledger) -> None:
        self._prices = prices
        self._ledger = ledger

    async def open(self, account: Account, leg: Leg, request: ChatRequest) -> Reservation:
        """Hold room for the worst that a call may come to.

        Raises:
            BudgetExceeded: the account has no room for it.
            Overloaded: the ledger can keep no further account.
        """
        worst = await self._worst(account, leg, request) if account.budgets else NO_SPEND
        return await self._ledger.reserve(account, worst)

    async def settle(
        self, leg: Leg, usage: Usage | None, answered: str = "", reservation: Reservation | None = None
    ) -> Cost | None:
        """Keep what a call has used, and let go of the room that was held; return the cost.

        Args:
            leg: who was asked.
            usage: None for nothing.
            answered: what the answer calls its model; empty where it does not say.
            reservation: what is held for the call; None where nobody pays.
        """
        usd = None
        if usage is not None:
            usd = await self._prices.cost(leg.upstream.provider.price_id, leg.model, usage, answered=answered)
        if reservation is not None:
            actual = NO_SPEND if usage is None else Spend(usage.input_tokens + usage.output_tokens, usd)
            await self._ledger.settle(reservation, actual)
        return None if usd is None else Cost(usd=usd)

    async def _worst(self, account: Account, leg: Leg, request: ChatRequest) -> Spend:
        input_tokens, output_tokens = estimate_tokens(request), request.max_tokens or OUTPUT_CEILING
        rates = None
        if any(budget.usd is not None for budget in account.budgets):
            rates = await self._prices.rates(leg.upstream.provider.price_id, leg.model)
        usd = None if rates is None else rates.most(input_tokens, output_tokens)
        return Spend(input_tokens + output_tokens, usd)
