"""Prices of tokens, from the price list in the package ``genai-prices``."""

import asyncio
import logging
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from protocol.llm import Usage

MAX_CACHED: Final = 1024  # models whose rates are kept, and those whose missing price has been logged
MILLION: Final = Decimal(1_000_000)

_log = logging.getLogger("tidegate.gateway")


class Rates:
    """Prices of one model, in US dollars a token, by class of token.

    Costs are added up as integers of a unit of which each rate is a multiple: decimals would take several times as
    long, with the same result.

    Args:
        input: the rate of input that is in no cache.
        cached_input: of input that is read from the provider's cache.
        cache_write: of input that is written to it.
        output: of output.
        window: the tokens of the model's context; None where the list does not say.

    Attributes:
        window: as given.
    """

    __slots__ = ("_cache_write", "_cached_input", "_input", "_output", "_unit", "window")

    def __init__(
        self,
        *,
        input: Decimal,  # noqa: A002 - the name of the class of tokens
        cached_input: Decimal,
        cache_write: Decimal,
        output: Decimal,
        window: int | None = None,
    ) -> None:
        self.window = window
        rates = (input, cached_input, cache_write, output)
        places = min(0, *(int(rate.as_tuple().exponent) for rate in rates))
        self._unit = Decimal(1).scaleb(places)
        self._input, self._cached_input, self._cache_write, self._output = (int(rate / self._unit) for rate in rates)

    def cost(self, usage: Usage) -> Decimal:
        """Return the price of ``usage`` in US dollars."""
        fresh = max(0, usage.input_tokens - usage.cached_input_tokens - usage.cache_write_input_tokens)
        return self._unit * (
            fresh * self._input
            + usage.cached_input_tokens * self._cached_input
            + usage.cache_write_input_tokens * self._cache_write
            + usage.output_tokens * self._output
        )

    def most(self, input_tokens: int, output_tokens: int) -> Decimal:
        """Return the most that so many tokens may cost in US dollars, whatever their class."""
        dearest = max(self._input, self._cached_input, self._cache_write)
        return self._unit * (input_tokens * dearest + output_tokens * self._output)


class Prices:
    """Looks up each model's rates once. A model without a price, or without a plain rate, is logged once."""

    def __init__(self) -> None:
        self._rates: dict[tuple[str, str], Rates | None] = {}
        self._logged: set[tuple[str, str]] = set()

    async def load(self) -> None:
        """Read the price list in a thread: it takes half a second, for which the first answer then need not wait."""
        await asyncio.to_thread(_look_up, "openai", "")

    async def rates(self, price_id: str, model: str) -> Rates | None:
        """Return the rates of ``model``; None where they are unknown."""
        if not price_id:
            return None
        key = (price_id, model)
        if key not in self._rates:
            if len(self._rates) >= MAX_CACHED:
                self._rates.clear()
            self._rates[key] = await asyncio.to_thread(_look_up, price_id, model)
        return self._rates[key]

    async def window(self, price_id: str, model: str) -> int | None:
        """Return the tokens of the context of ``model``; None where they are unknown."""
        rates = self._rates.get((price_id, model)) or await self.rates(price_id, model)
        return None if rates is None else rates.window

    async def cost(self, price_id: str, model: str, usage: Usage, *, answered: str = "") -> Decimal | None:
        """Return the price of ``usage`` in US dollars; None where it is unknown.

        Args:
            price_id: the provider's name in the price list; empty for none.
            model: the model that was called.
            usage: the tokens.
            answered: the model's name in the answer, for a deployment's own name, which has no price.
        """
        rates = self._rates.get((price_id, model)) or await self.rates(price_id, model)
        if rates is None and answered and answered != model:
            rates = await self.rates(price_id, answered)
        if rates is not None:
            return rates.cost(usage)
        if price_id and (price_id, model) not in self._logged:
            if len(self._logged) >= MAX_CACHED:
                self._logged.clear()
            self._logged.add((price_id, model))
            _log.warning(
                "the price of %s/%s is unknown: it has no cost, and counts no dollars",
                price_id,
                model,
                extra={"event": "price_unknown", "fields": {"provider": price_id, "model": model}},
            )
        return None


def _look_up(price_id: str, model: str) -> Rates | None:
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 - half a second, and not needed to start

    try:
        _, found = get_snapshot().find_provider_model(model, None, price_id, None)
    except LookupError:
        return None
    prices = found.get_prices(datetime.now(UTC))
    fresh = _rate(prices, "input_mtok")
    output = Decimal(0) if prices.output_mtok is None else _rate(prices, "output_mtok")  # None: it has no output
    if fresh is None or output is None:
        return None
    return Rates(
        input=fresh,
        cached_input=_rate(prices, "cache_read_mtok") or fresh,
        cache_write=_rate(prices, "cache_write_mtok") or fresh,
        output=output,
        window=found.context_window,
    )


def _rate(prices: Any, name: str) -> Decimal | None:  # noqa: ANN401 - its fields are dynamic
    """Return a rate a token; where it rises with the length of the prompt, the rate of a short one."""
    rate = getattr(prices, name, None)
    rate = getattr(rate, "base", rate)
    return rate / MILLION if isinstance(rate, Decimal) else None
