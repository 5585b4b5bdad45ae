"""Who pays for vectors: room is held in the account's budgets before they are asked for, and their price kept after."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal

from actors.embeddings.sources import Leg
from actors.upstream.pricing import Prices
from protocol.budgets import Account
from protocol.embeddings import Embedded, Input, byte_size
from protocol.ledger import NO_SPEND, Ledger, Spend
from protocol.tokens import CHARS_PER_TOKEN


class Pending:
    """The reply to a request that is paid for: whoever waits for it settles the bill."""

    __slots__ = ("_reply",)

    def __init__(self) -> None:
        self._reply: asyncio.Future[Embedded] = asyncio.get_running_loop().create_future()
        self._reply.add_done_callback(_heed)

    def resolve(self, value: Embedded) -> None:
        """Give the reply; after the first time nothing happens."""
        if not self._reply.done():
            self._reply.set_result(value)

    def reject(self, error: Exception) -> None:
        """Give a failure in its place."""
        if not self._reply.done():
            self._reply.set_exception(error)

    async def reply(self) -> Embedded:
        """Wait for it."""
        return await self._reply


class Till:
    """Holds room, and keeps what was spent.

    Args:
        prices: what tokens cost.
        ledger: where what is spent is kept.
    """

    def __init__(self, prices: Prices, ledger: Ledger) -> None:
        self._prices = prices
        self._ledger = ledger

    @asynccontextmanager
    async def bill(
        self, account: Account, legs: Sequence[Leg], inputs: Iterable[Input], spent: Callable[[], Spend]
    ) -> AsyncIterator[None]:
        """Hold room for what ``inputs`` may cost; at the end keep what was ``spent``, whatever the end is.

        Raises:
            BudgetExceeded: the account has no room for it.
            Overloaded: the ledger can keep no further account.
        """
        worst = await self._worst(account, legs, inputs) if account.budgets else NO_SPEND
        reservation = await self._ledger.reserve(account, worst)
        try:
            yield
        finally:
            await self._ledger.settle(reservation, spent())

    async def _worst(self, account: Account, legs: Sequence[Leg], inputs: Iterable[Input]) -> Spend:
        tokens = estimate(inputs)
        if not any(budget.usd is not None for budget in account.budgets):
            return Spend(tokens, None)
        rates = [await self._prices.rates(leg.source.embedder.price_id, leg.model) for leg in legs]
        known = [rate.most(tokens, 0) for rate in rates if rate is not None]
        return Spend(tokens, max(known, default=Decimal(0)))


def estimate(inputs: Iterable[Input]) -> int:
    """Return about how many tokens ``inputs`` have."""
    return sum(-(-byte_size(given) // CHARS_PER_TOKEN) for given in inputs)


def _heed(reply: asyncio.Future[Embedded]) -> None:
    """A failure that comes when its asker has left is nobody's."""
    if not reply.cancelled():
        reply.exception()
