"""Usage of each call, whatever its end, and the accounts that pay for it, through the whole gateway."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from actors.ledger import MemoryLedger
from actors.llm_gateway import GatewayConfig, build_gateway
from actors.llm_gateway.config import GatewayLimits
from actors.llm_gateway.drain import STREAMS, DeferredClose, Drain
from actors.llm_gateway.usage import OUTPUT_CEILING
from actors.resilience.retry import RetryPolicy
from actors.runtime import Ref
from actors.runtime.testing import TestSystem
from actors.testing import Cut, End, Reply, Say, ScriptedUpstream, Send, Stall, Step, Wait, refuse, say
from actors.upstream.pricing import Prices
from protocol.budgets import Account, Budget
from protocol.errors import BudgetExceeded, TidegateError
from protocol.gateway import Complete, Completion, Progress
from protocol.ledger import ZERO_USD, Standing
from protocol.llm import Attempt, ChatMessage, ChatRequest, Cost, Usage
from protocol.routes import ProviderSpec, Route, Routes

Spawn = Callable[..., Ref[Any]]

MESSAGES = (ChatMessage(role="user", content="a question of 28 characters."),)
ASKED = 7  # tokens of it, by our estimate
BEGUN = "Hello"
SAID = 2  # tokens of that
COUNTED = Usage(input_tokens=1000, output_tokens=100)
PRICE = Cost(usd=Decimal("0.00021"))  # of that, for gpt-4o-mini
ANTHROPIC = "anthropic/claude-haiku-4-5"
TEAM = Account("team")
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}


def complete(sink: Any = None, *, account: Account | None = None, repair: bool = False, **fields: Any) -> Complete:  # noqa: ANN401
    """Return the message of this question."""
    request = ChatRequest(**{"model": "default", "messages": MESSAGES, **fields})
    return Complete(request=request, sink=sink, account=account, repair=repair)


def start(gateway: Ref[Any], message: Complete, patience: float = 60) -> "asyncio.Task[Completion]":
    """Begin to send a request."""
    return asyncio.ensure_future(gateway.ask(message, timeout=patience))


async def failed(waiting: "asyncio.Task[Completion]") -> str:
    """Return the code of a request's failure."""
    with pytest.raises(TidegateError) as caught:
        await waiting
    return caught.value.code


async def told(probe: Any) -> tuple[Attempt, int]:  # noqa: ANN401
    """Return the next attempt that the sink receives, and its number."""
    while True:
        progress = await probe.expect(Progress)
        if progress.attempt is not None:
            return progress.attempt, progress.number


async def test_a_cancelled_call_is_read_on_to_its_usage(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """The report has the provider's count, and the connection is used again."""
    probe, gate = system.probe(Progress), asyncio.Event()
    upstream.script(Reply(steps=(Say(BEGUN), Wait(gate), Say(" world"), End(usage=COUNTED))))
    gateway = spawn()
    waiting = start(gateway, complete(probe.ref))
    await probe.expect(Progress)
    waiting.cancel()
    gate.set()
    attempt, number = await told(probe)
    assert (attempt.error, attempt.usage, attempt.cost, attempt.estimated) == ("cancelled", COUNTED, PRICE, False)
    assert (number, upstream.left) == (1, 0)
    await start(gateway, complete())
    assert upstream.connections == 1


@pytest.mark.parametrize("model", ["default", ANTHROPIC])
async def test_what_is_not_counted_in_time_is_estimated(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream, model: str
) -> None:
    """A quarter of the characters, marked as an estimate; the socket is closed when the drain's time is over."""
    probe = system.probe(Progress)
    upstream.script(Reply(steps=(Say(BEGUN), Stall())))
    waiting = start(spawn(), complete(probe.ref, model=model))
    await probe.expect(Progress)
    waiting.cancel()
    await system.settle()
    assert upstream.left == 0
    await system.advance(GatewayLimits().drain)
    await upstream.abandoned()
    attempt, _ = await told(probe)
    assert (attempt.usage, attempt.estimated) == (Usage(input_tokens=ASKED, output_tokens=SAID), True)
    assert attempt.cost == Cost(usd=_price(model, SAID))


async def test_what_only_the_drain_reads_counts_too(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """The provider has written it, though no request wanted it any more."""
    probe, gate = system.probe(Progress), asyncio.Event()
    upstream.script(Reply(steps=(Say(BEGUN), Wait(gate), Say(" word"), End(usage=None))))
    waiting = start(spawn(), complete(probe.ref))
    await probe.expect(Progress)
    waiting.cancel()
    gate.set()
    attempt, _ = await told(probe)
    assert (attempt.usage, attempt.estimated) == (Usage(input_tokens=ASKED, output_tokens=SAID + 1), True)


def _price(model: str, output: int) -> Decimal:
    """Return the price of the question and so many tokens of answer."""
    fresh, out = (Decimal(1), Decimal(5)) if model == ANTHROPIC else (Decimal("0.15"), Decimal("0.6"))
    return (ASKED * fresh + output * out) / 1_000_000


async def test_without_a_drain_the_socket_is_closed_at_once(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """The usage is then an estimate."""
    probe = system.probe(Progress)
    upstream.script(Reply(steps=(Say(BEGUN), Stall())))
    waiting = start(spawn(drain=0), complete(probe.ref))
    await probe.expect(Progress)
    waiting.cancel()
    await upstream.abandoned()
    attempt, _ = await told(probe)
    assert (attempt.usage, attempt.estimated) == (Usage(input_tokens=ASKED, output_tokens=SAID), True)


async def test_a_call_out_of_time_is_told_again_with_its_usage(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """At once without, so that the sender does not wait; then under the same number."""
    probe, gate = system.probe(Progress), asyncio.Event()
    upstream.script(Reply(steps=(Say(BEGUN), Wait(gate), End(usage=COUNTED))))
    waiting = start(spawn(), complete(probe.ref), patience=5)
    await probe.expect(Progress)
    await system.advance(5)
    assert await failed(waiting) == "deadline_exceeded"
    first, number = await told(probe)
    assert (first.error, first.usage, number) == ("deadline_exceeded", None, 1)
    gate.set()
    again, number = await told(probe)
    assert (again.error, again.usage, again.cost, number) == ("deadline_exceeded", COUNTED, PRICE, 1)
    assert again.duration_ms == first.duration_ms


STARTED = Send(
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","model":"claude-haiku-4-5",'
    b'"usage":{"input_tokens":50,"cache_creation_input_tokens":30,"cache_read_input_tokens":20,"output_tokens":1}}}\n\n'
)


SPOKEN = Send(
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"Hello"}}\n\n'
)


@pytest.mark.parametrize(
    ("steps", "usage", "estimated"),
    [
        ((Say(BEGUN), Cut()), Usage(input_tokens=ASKED, output_tokens=SAID), True),
        (
            (STARTED, SPOKEN, Cut()),
            Usage(input_tokens=100, output_tokens=SAID, cached_input_tokens=20, cache_write_input_tokens=30),
            True,
        ),
        ((STARTED, Cut()), None, False),
        ((Send(b": ping\n\n"), Cut()), None, False),
    ],
)
async def test_a_stream_that_broke_off_has_used_what_is_known(
    spawn: Spawn,
    system: TestSystem,
    upstream: ScriptedUpstream,
    steps: tuple[Step, ...],
    usage: Usage | None,
    estimated: bool,
) -> None:
    """The provider's report stays, and content is estimated; a call that brought nothing has used nothing."""
    probe = system.probe(Progress)
    upstream.script(Reply(steps=steps))
    waiting = start(spawn(retry=RetryPolicy(attempts=1)), complete(probe.ref, model=ANTHROPIC))
    assert await failed(waiting) == "provider_stream_broken"
    attempt, _ = await told(probe)
    assert (attempt.usage, attempt.estimated) == (usage, estimated)
    assert (attempt.cost is None) == (usage is None)


@pytest.mark.parametrize("reply", [refuse(400), refuse(429), Reply(before=(Cut(),))])
async def test_what_was_refused_has_used_nothing(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream, reply: Reply
) -> None:
    """No tokens and no cost, rather than zero of them."""
    probe = system.probe(Progress)
    upstream.script(reply)
    await failed(start(spawn(retry=RetryPolicy(attempts=1)), complete(probe.ref)))
    attempt, _ = await told(probe)
    assert (attempt.usage, attempt.cost, attempt.estimated) == (None, None, False)


async def test_a_call_that_is_cancelled_before_content_has_used_nothing(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """Its socket is closed at once, and the sink still gets its report."""
    probe = system.probe(Progress)
    upstream.script(Reply(steps=(Stall(),)))
    waiting = start(spawn(), complete(probe.ref))
    await upstream.called()
    waiting.cancel()
    await upstream.abandoned()
    attempt, _ = await told(probe)
    assert (attempt.error, attempt.usage) == ("cancelled", None)


async def test_a_wrong_answer_counts_beside_its_repair(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """Each has its own usage, and the answer has both."""
    probe = system.probe(Progress)
    upstream.script(say("no JSON", usage=COUNTED), say('{"ok": true}', usage=COUNTED))
    answer = await start(spawn(), complete(probe.ref, repair=True, schema=SCHEMA))
    attempts = [await told(probe) for _ in range(2)]
    assert [(attempt.error, attempt.usage, attempt.cost, number) for attempt, number in attempts] == [
        ("schema_mismatch", COUNTED, PRICE, 1),
        ("", COUNTED, PRICE, 2),
    ]
    assert (answer.usage, answer.cost) == (COUNTED + COUNTED, PRICE.usd * 2)


async def test_an_answer_without_a_count_is_estimated(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """A server that never reports usage is not free."""
    probe = system.probe(Progress)
    upstream.script(say(BEGUN, usage=None))
    answer = await start(spawn(), complete(probe.ref))
    attempt, _ = await told(probe)
    assert attempt.estimated
    assert answer.usage == attempt.usage == Usage(input_tokens=ASKED, output_tokens=SAID)


async def test_each_class_of_tokens_is_paid_at_its_rate(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """Also the input that the provider writes to its cache, which costs more than fresh input."""
    probe = system.probe(Progress)
    usage = Usage(input_tokens=1000, output_tokens=100, cached_input_tokens=200, cache_write_input_tokens=300)
    upstream.script(say("Hi", usage=usage))
    answer = await start(spawn(), complete(probe.ref, model=ANTHROPIC))
    attempt, _ = await told(probe)
    assert answer.usage == attempt.usage == usage
    expected = (500 + 200 * Decimal("0.1") + 300 * Decimal("1.25") + 100 * 5) / 1_000_000
    assert attempt.cost == Cost(usd=expected)
    assert answer.cost == expected


async def test_many_that_are_given_up_at_once_are_read_on_as_far_as_there_is_room(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """The sockets of the others are closed, and their usage is an estimate; all are reported."""
    probe, gate, beyond = system.probe(Progress), asyncio.Event(), 8
    upstream.default = Reply(steps=(Say(BEGUN), Wait(gate), End(usage=COUNTED)))
    gateway = spawn(concurrency=STREAMS + beyond)
    asking = [start(gateway, complete(probe.ref)) for _ in range(STREAMS + beyond)]
    for _ in asking:
        await probe.expect(Progress)
    for waiting in asking:
        waiting.cancel()
    await upstream.abandoned(beyond)
    gate.set()
    attempts = [(await told(probe))[0] for _ in asking]
    assert sum(attempt.estimated for attempt in attempts) == upstream.left == beyond
    assert [attempt.usage for attempt in attempts].count(COUNTED) == STREAMS


async def test_a_bounded_number_of_streams_is_read_on(system: TestSystem, upstream: ScriptedUpstream) -> None:
    """One place, until it is given back."""
    drain = Drain(system, seconds=1.0, streams=1)
    assert (drain.take(), drain.take()) == (True, False)
    deferred = DeferredClose(_Nothing(), lambda _: True)
    assert await drain.read(deferred, 0.0) == 0
    assert drain.take()
    assert not Drain(system, seconds=0.0).take()
    assert upstream.calls == 0


class _Nothing:
    """The context of an empty stream."""

    async def __aenter__(self) -> Any:  # noqa: ANN401
        return None

    async def __aexit__(self, *_: object) -> None:
        return None


async def test_the_end_of_the_system_ends_the_drain(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both what is read on then and what is given up by that: sockets are closed, and the room is let go of.

    Also where the price has to be looked up first, while everything is being cancelled.
    """

    async def slowly(*_: object) -> None:
        for _turn in range(50):
            await asyncio.sleep(0)

    monkeypatch.setattr(Prices, "rates", slowly)
    ledger = MemoryLedger()
    config = GatewayConfig(llm_provider="openai", default_model="gpt-4o-mini", openai_base_url=upstream.openai_url)
    upstream.default = Reply(steps=(Say(BEGUN), Stall()))
    async with TestSystem(allow_dead_letters=True) as system:
        gateway = system.spawn(build_gateway(config, ledger=ledger), name="llm-gateway")
        probe = system.probe(Progress)
        waiting = [start(gateway, complete(probe.ref, account=TEAM)) for _ in range(2)]
        for _ in range(2):
            await probe.expect(Progress)
        waiting[0].cancel()
        await system.settle()
        assert upstream.left == 0
    await asyncio.wait(waiting)
    await upstream.abandoned(2)
    for standing in await ledger.spent(TEAM):
        assert (standing.tokens, standing.reserved_tokens) == (2 * (ASKED + SAID), 0)


# ---------------------------------------------------------------------------------------------------------- who pays


def limited(*budgets: Budget) -> Account:
    """Return the account, with these budgets."""
    return Account("team", budgets)


async def day(ledger: MemoryLedger) -> Standing:
    """Return the account's standing of today."""
    return (await ledger.spent(TEAM))[0]


@pytest.fixture
def ledger() -> MemoryLedger:
    """An empty ledger."""
    return MemoryLedger()


@pytest.fixture
def gateway(system: TestSystem, upstream: ScriptedUpstream, ledger: MemoryLedger) -> Ref[Any]:
    """A gateway with this ledger, whose route has a second target."""
    config = GatewayConfig(
        llm_provider="openai",
        default_model="gpt-4o-mini",
        openai_base_url=upstream.openai_url,
        routes=Routes(
            providers={"other": ProviderSpec(kind="anthropic", base_url=upstream.anthropic_url)},
            routes={"both": Route(targets=("openai/gpt-4o-mini", "other/no-such-model"))},
        ),
        retry=RetryPolicy(jitter=lambda: 0.0),
    )
    return system.spawn(build_gateway(config, ledger=ledger), name="llm-gateway")


async def test_what_was_used_is_kept(gateway: Ref[Any], ledger: MemoryLedger, upstream: ScriptedUpstream) -> None:
    """Tokens and dollars of every call, by the account; without an account nothing is counted."""
    upstream.default = say("Hi", usage=COUNTED)
    await start(gateway, complete())
    await start(gateway, complete(account=TEAM))
    standing = await day(ledger)
    assert (standing.tokens, standing.usd) == (1100, PRICE.usd)


async def test_room_is_held_for_the_worst(gateway: Ref[Any], ledger: MemoryLedger, upstream: ScriptedUpstream) -> None:
    """The input's estimate and the most output, at the target's rates; a ceiling where nothing bounds it."""
    gate = asyncio.Event()
    upstream.default = Reply(steps=(Say(BEGUN), Wait(gate), End(usage=COUNTED)))
    account = limited(Budget(per="day", usd=Decimal(1)))
    for number, bound in enumerate((100, None), 1):
        gate.clear()
        waiting = start(gateway, complete(account=account, max_tokens=bound))
        await upstream.called(number)
        standing = await day(ledger)
        assert standing.reserved_tokens == ASKED + (bound or OUTPUT_CEILING)
        assert standing.reserved_usd == _price("default", bound or OUTPUT_CEILING)
        gate.set()
        await waiting
    standing = await day(ledger)
    assert (standing.tokens, standing.reserved_tokens, standing.reserved_usd) == (2200, 0, ZERO_USD)


async def test_without_room_nobody_is_asked(
    gateway: Ref[Any], ledger: MemoryLedger, upstream: ScriptedUpstream
) -> None:
    """Neither this target nor the next, and no breaker counts it."""
    poor = limited(Budget(per="day", tokens=ASKED + 9))
    for _ in range(20):
        with pytest.raises(BudgetExceeded):
            await start(gateway, complete(account=poor, model="both", max_tokens=10))
    assert (upstream.calls, (await day(ledger)).tokens) == (0, 0)
    answer = await start(gateway, complete(account=poor, model="both", max_tokens=9))
    assert answer.provider == "openai"


async def test_a_call_that_is_repeated_needs_room_again(
    gateway: Ref[Any], ledger: MemoryLedger, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """The usage of the first is counted; the second is not made."""
    probe = system.probe(Progress)
    upstream.script(say("no JSON", usage=COUNTED))
    account = limited(Budget(per="month", tokens=1100))
    waiting = start(gateway, complete(probe.ref, account=account, repair=True, schema=SCHEMA, max_tokens=100))
    assert await failed(waiting) == "budget_exceeded"
    attempt, _ = await told(probe)
    assert (attempt.error, upstream.calls, (await day(ledger)).tokens) == ("schema_mismatch", 1, 1100)


async def test_a_call_that_used_nothing_gives_its_room_back(
    gateway: Ref[Any], ledger: MemoryLedger, upstream: ScriptedUpstream
) -> None:
    """Refused, or cancelled before anything came."""
    account = limited(Budget(per="day", tokens=ASKED + 10))
    upstream.script(refuse(400), Reply(steps=(Stall(),)))
    assert await failed(start(gateway, complete(account=account, max_tokens=10))) == "provider_rejected"
    waiting = start(gateway, complete(account=account, max_tokens=10))
    await upstream.called(2)
    waiting.cancel()
    await upstream.abandoned()
    standing = await day(ledger)
    assert (standing.tokens, standing.reserved_tokens) == (0, 0)
    assert (await start(gateway, complete(account=account, max_tokens=10))).text == "Hello world"


async def test_an_unknown_price_counts_no_dollars(
    gateway: Ref[Any], ledger: MemoryLedger, upstream: ScriptedUpstream
) -> None:
    """A budget in dollars lets it through, and its standing has the unpriced tokens."""
    upstream.default = say("Hi", usage=COUNTED)
    account = limited(Budget(per="day", usd=ZERO_USD))
    with pytest.raises(BudgetExceeded):
        await start(gateway, complete(account=account))
    answer = await start(gateway, complete(account=account, model="other/no-such-model"))
    standing = await day(ledger)
    assert (answer.cost, standing.usd, standing.unpriced_tokens) == (None, ZERO_USD, 1100)
