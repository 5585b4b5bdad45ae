import logging
from decimal import Decimal

import msgspec
import pytest

from actors.upstream.pricing import Prices, Rates
from protocol.llm import Usage

USAGE = Usage(input_tokens=1000, output_tokens=100, cached_input_tokens=400)


def test_each_class_of_tokens_has_its_rate() -> None:
    """Tokens read from and written to the cache are part of the input, each at their own rate."""
    rates = Rates(input=Decimal(3), cached_input=Decimal(1), cache_write=Decimal(4), output=Decimal(5))
    assert rates.cost(USAGE) == 600 * 3 + 400 * 1 + 100 * 5
    written = msgspec.structs.replace(USAGE, cache_write_input_tokens=250)
    assert rates.cost(written) == 350 * 3 + 400 * 1 + 250 * 4 + 100 * 5
    assert rates.most(1000, 100) == 1000 * 4 + 100 * 5


async def test_what_goes_into_the_cache_has_its_price() -> None:
    """Anthropic's is a quarter more than that of fresh input."""
    prices = Prices()
    fresh = await prices.cost("anthropic", "claude-haiku-4-5", Usage(input_tokens=1000))
    written = await prices.cost(
        "anthropic", "claude-haiku-4-5", Usage(input_tokens=1000, cache_write_input_tokens=1000)
    )
    assert (fresh, written) == (Decimal("0.001"), Decimal("0.00125"))


async def test_a_known_model_has_a_cost() -> None:
    """The price list has the well-known models, also by a dated name."""
    cost = await Prices().cost("openai", "gpt-4o-mini-2024-07-18", USAGE)
    assert cost == Decimal("0.00018")


async def test_an_unknown_price_is_none_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Never zero, and not a line in the log for every request."""
    prices = Prices()
    with caplog.at_level(logging.WARNING):
        assert [await prices.cost("openai", "no-such-model", USAGE) for _ in range(2)] == [None, None]
    assert len(caplog.records) == 1


async def test_the_name_in_the_answer_prices_a_name_of_ones_own(caplog: pytest.LogCaptureFixture) -> None:
    """A deployment's name has no price, the model behind it has; the requested name goes first."""
    prices = Prices()
    with caplog.at_level(logging.WARNING):
        assert await prices.cost("openai", "our-own", USAGE, answered="gpt-4o-mini-2024-07-18") == Decimal("0.00018")
        dear = await prices.cost("openai", "gpt-4o", USAGE, answered="gpt-4o-mini")
    assert dear == await prices.cost("openai", "gpt-4o", USAGE)
    assert not caplog.records


async def test_what_has_no_price_is_not_looked_up(caplog: pytest.LogCaptureFixture) -> None:
    """The local model has no price, and logs nothing."""
    assert await Prices().cost("", "smollm2", USAGE) is None
    assert not caplog.records
