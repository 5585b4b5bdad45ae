"""Usage, attempts and budgets as JSON."""

from decimal import Decimal

import msgspec
import pytest
from openai.types import CompletionUsage

from protocol.anthropic.answer import message_body
from protocol.budgets import Budget
from protocol.events import Completed
from protocol.llm import Attempt, Cost, Usage
from protocol.openai.answer import completion_body

WRITTEN = Usage(input_tokens=10, output_tokens=4, cached_input_tokens=2, cache_write_input_tokens=3)


def test_usage_always_has_its_four_classes() -> None:
    """The first four classes are in the JSON also when 0; cache writes only when there are any."""
    plain = {"inputTokens": 0, "outputTokens": 0, "cachedInputTokens": 0, "reasoningTokens": 0}
    assert msgspec.json.decode(msgspec.json.encode(Usage())) == plain
    assert msgspec.json.decode(msgspec.json.encode(WRITTEN))["cacheWriteInputTokens"] == 3
    assert msgspec.json.decode(msgspec.json.encode(WRITTEN), type=Usage) == WRITTEN
    assert msgspec.json.decode(b"{}", type=Usage) == Usage()


def test_usage_adds_up_by_class() -> None:
    """Usage is added class by class, and zero usage changes nothing."""
    total = WRITTEN + Usage(reasoning_tokens=5) + WRITTEN
    assert total == Usage(
        input_tokens=20, output_tokens=8, cached_input_tokens=4, reasoning_tokens=5, cache_write_input_tokens=6
    )


def test_an_attempt_without_usage() -> None:
    """An attempt without usage has no usage and no cost in its JSON."""
    refused = Attempt(provider="p", model="m", error="provider_rejected")
    assert msgspec.to_builtins(refused) == {"provider": "p", "model": "m", "error": "provider_rejected"}
    broken = Attempt(provider="p", model="m", usage=WRITTEN, cost=Cost(Decimal("0.1")), estimated=True)
    decoded = msgspec.json.decode(msgspec.json.encode(broken))
    assert (decoded["usage"]["inputTokens"], decoded["cost"], decoded["estimated"]) == (10, {"usd": "0.1"}, True)


def test_anthropics_clients_see_each_class_of_input_apart() -> None:
    """Anthropic's usage has uncached, cache-written and cache-read input tokens apart."""
    body = message_body("r", "m", Completed(usage=WRITTEN))
    usage = msgspec.json.decode(body)["usage"]
    found = usage["input_tokens"], usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"]
    assert found == (5, 3, 2)


def test_openais_clients_see_each_class_of_input() -> None:
    """OpenAI's usage has all input tokens, and of these the cache-read and cache-written ones."""
    body = completion_body("r", 0, "m", Completed(usage=WRITTEN))
    usage = CompletionUsage.model_validate(msgspec.json.decode(body)["usage"])
    details = usage.prompt_tokens_details
    assert details is not None
    assert (usage.prompt_tokens, details.cached_tokens, details.cache_write_tokens) == (10, 2, 3)


@pytest.mark.parametrize("usd", ['"-1"', '"NaN"', '"Infinity"', "-0.01"])
def test_a_budget_is_a_number_of_0_or_more(usd: str) -> None:
    """A budget that is negative or not a number is refused."""
    with pytest.raises(msgspec.ValidationError, match="usd"):
        msgspec.json.decode(f'{{"per": "day", "usd": {usd}}}', type=Budget)
    assert msgspec.json.decode(b'{"per": "month", "usd": 0.1}', type=Budget).usd == Decimal("0.1")
