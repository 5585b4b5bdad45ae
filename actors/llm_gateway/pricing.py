"""What an answer cost, from the price list that comes with ``genai-prices``."""

import asyncio
import logging
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from protocol.llm import Usage

KEPT: Final = 1024  # models whose rates are kept
MILLION: Final = Decimal(1_000_000)

_log = logging.getLogger("tidegate.gateway")


class Rates(msgspec.Struct, frozen=True):
    """US dollars a token, by class."""

    input: Decimal
    cached_input: Decimal
    output: Decimal

    def cost(self, usage: Usage) -> Decimal:
        """Return the price of ``usage`` in US dollars."""
        fresh = usage.input_tokens - usage.cached_input_tokens
        return fresh * self.input + usage.cached_input_tokens * self.cached_input + usage.output_tokens * self.output


class Prices:
    """Looks up each model's rates once. A model whose price is unknown, or no plain rate, is said once and has none."""

    def __init__(self) -> None:
        self._rates: dict[tuple[str, str], Rates | None] = {}

    async def load(self) -> None:
        """Read the price list, in a thread: it takes half a second, which the first answer then need not wait for."""
        await asyncio.to_thread(_look_up, "openai", "")

    async def cost(self, price_id: str, model: str, usage: Usage) -> Decimal | None:
        """Return the price of ``usage`` in US dollars, or None where it is unknown."""
        if not price_id:
            return None
        key = (price_id, model)
        if key not in self._rates:
            if len(self._rates) >= KEPT:
                self._rates.clear()
            rates = self._rates[key] = await asyncio.to_thread(_look_up, price_id, model)
            if rates is None:
                _log.warning("the price of %s/%s is unknown: its answers have no cost", price_id, model)
        rates = self._rates[key]
        return None if rates is None else rates.cost(usage)


def _look_up(price_id: str, model: str) -> Rates | None:
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 - half a second, and not needed to start

    try:
        _, found = get_snapshot().find_provider_model(model, None, price_id, None)
    except LookupError:
        return None
    prices = found.get_prices(datetime.now(UTC))
    fresh, output = _rate(prices, "input_mtok"), _rate(prices, "output_mtok")
    if fresh is None or output is None:
        return None
    return Rates(input=fresh, cached_input=_rate(prices, "cache_read_mtok") or fresh, output=output)


def _rate(prices: Any, name: str) -> Decimal | None:  # noqa: ANN401 - its fields are dynamic
    """Return a rate a token; where it rises with the length of the prompt, that of a short one."""
    rate = getattr(prices, name, None)
    rate = getattr(rate, "base", rate)
    return rate / MILLION if isinstance(rate, Decimal) else None
