import logging
from decimal import Decimal

import pytest

from actors.llm_gateway.pricing import Prices, Rates
from protocol.llm import Usage

USAGE = Usage(input_tokens=1000, output_tokens=100, cached_input_tokens=400)


def test_each_class_of_tokens_has_its_rate() -> None:
    """Cached tokens are part of the input, at their own rate."""
    rates = Rates(input=Decimal(3), cached_input=Decimal(1), output=Decimal(5))
    assert rates.cost(USAGE) == 600 * 3 + 400 * 1 + 100 * 5


async def test_a_known_model_has_a_cost() -> None:
    """The price list has the well-known models, also by a dated name."""
    cost = await Prices().cost("openai", "gpt-4o-mini-2024-07-18", USAGE)
    assert cost == Decimal("0.00018")


async def test_an_unknown_price_is_none_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Never zero, and never a line for every request."""
    prices = Prices()
    with caplog.at_level(logging.WARNING):
        assert [await prices.cost("openai", "no-such-model", USAGE) for _ in range(2)] == [None, None]
    assert len(caplog.records) == 1


async def test_what_has_no_price_is_not_looked_up(caplog: pytest.LogCaptureFixture) -> None:
    """The local model costs nothing that we know of, and says nothing."""
    assert await Prices().cost("", "smollm2", USAGE) is None
    assert not caplog.records
