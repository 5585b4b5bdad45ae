"""Budgets of accounts for embeddings, through the whole actor."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from actors.embeddings import EmbeddingBounds, EmbeddingsConfig, build_embeddings
from actors.ledger import MemoryLedger
from actors.llm_gateway import RetryPolicy
from actors.runtime import Ref
from actors.runtime.testing import TestSystem
from actors.testing import Reply, ScriptedUpstream, Stall, refuse
from protocol.budgets import Account, Budget
from protocol.embeddings import Embed, Embedded
from protocol.errors import BudgetExceeded, ProviderError
from protocol.ledger import Standing

WINDOW = EmbeddingBounds().window
PRICED = "openai/text-embedding-3-small"
Ask = Callable[..., "asyncio.Task[Embedded]"]


@pytest.fixture
def ledger() -> MemoryLedger:
    """An empty ledger."""
    return MemoryLedger()


@pytest.fixture
def embeddings(system: TestSystem, upstream: ScriptedUpstream, ledger: MemoryLedger) -> Ref[Any]:
    """The actor, without retries."""
    config = EmbeddingsConfig(openai_base_url=upstream.openai_url, retry=RetryPolicy(attempts=1))
    return system.spawn(build_embeddings(config, ledger=ledger), name="embeddings")


@pytest.fixture
def ask(embeddings: Ref[Any]) -> Ask:
    """Send a request on an account."""

    def begin(account: Account, *inputs: str, model: str = "m", tenant: str = "") -> "asyncio.Task[Embedded]":
        message = Embed(model=model, inputs=inputs, account=account, tenant=tenant)
        return asyncio.ensure_future(embeddings.ask(message, timeout=60))

    return begin


async def standing(ledger: MemoryLedger, account: Account) -> Standing:
    """Return the account's standing of today."""
    return (await ledger.spent(account))[0]


async def test_a_burst_does_not_pass_a_budget(system: TestSystem, ledger: MemoryLedger, ask: Ask) -> None:
    """Two hundred requests at once, on a budget for fifty: fifty are answered, and no room stays held."""
    account = Account("team", (Budget(per="day", tokens=50),))
    asking = [ask(account, f"t{number}") for number in range(200)]
    await system.settle()
    await system.advance(WINDOW)
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert sum(isinstance(outcome, Embedded) for outcome in outcomes) == 50
    assert {type(outcome) for outcome in outcomes} == {Embedded, BudgetExceeded}
    found = await standing(ledger, account)
    assert (found.tokens, found.reserved_tokens, found.unpriced_tokens) == (50, 0, 50)


async def test_who_asks_first_pays(system: TestSystem, ledger: MemoryLedger, ask: Ask) -> None:
    """In dollars where there is a price; a text that is on its way or in the cache costs the next request nothing."""
    first, second = (Account(name, (Budget(per="day", usd=Decimal(1)),)) for name in ("first", "second"))
    one = ask(first, "two words", model=PRICED)
    await system.settle()
    other = ask(second, "two words", model=PRICED)
    await system.settle()
    await system.advance(WINDOW)
    assert ((await one).tokens, (await other).tokens) == (2, 0)
    assert (await ask(second, "two words", model=PRICED)).cached == 1
    found = await standing(ledger, first)
    assert (found.tokens, found.usd, found.reserved_usd) == (2, Decimal("0.00000004"), Decimal(0))
    assert (await standing(ledger, second)).tokens == 0


async def test_a_batch_is_shared_out(system: TestSystem, ledger: MemoryLedger, ask: Ask) -> None:
    """Each account pays for its own texts in a shared call; the sum is what the upstream reports."""
    accounts = [Account(name) for name in ("a", "b")]
    asking = [ask(account, f"{account.name} word") for account in accounts]
    await system.settle()
    await system.advance(WINDOW)
    await asyncio.gather(*asking)
    assert [(await standing(ledger, account)).tokens for account in accounts] == [2, 2]


async def test_what_fails_costs_nothing(
    system: TestSystem, upstream: ScriptedUpstream, ledger: MemoryLedger, ask: Ask
) -> None:
    """And no room stays held; the same for a request that is cancelled before the call and in it."""
    account = Account("team", (Budget(per="day", tokens=1),))
    upstream.script(refuse(503), Reply(before=(Stall(),)))
    failing = ask(account, "a")
    await system.settle()
    await system.advance(WINDOW)
    with pytest.raises(ProviderError):
        await failing
    early = ask(account, "a")
    await system.settle()
    early.cancel()
    await system.settle()
    late = ask(account, "a")
    await system.settle()
    await system.advance(WINDOW)
    await upstream.called(2)
    late.cancel()
    await upstream.abandoned()
    await system.settle()
    found = await standing(ledger, account)
    assert (found.tokens, found.reserved_tokens) == (0, 0)
    last = ask(account, "a")
    await system.settle()
    await system.advance(WINDOW)
    assert (await last).tokens == 1
    with pytest.raises(BudgetExceeded):
        await ask(account, "b")
    assert upstream.calls == 3
