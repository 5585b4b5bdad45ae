"""Hedged routes, through the whole gateway."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from actors.llm_gateway import GatewayConfig, GatewayLimits, ProviderDeadlines, RetryPolicy, build_gateway
from actors.runtime import Ref, System
from actors.runtime.testing import TestSystem
from actors.testing import Cut, End, Reply, Say, ScriptedUpstream, Stall, Wait, refuse, say
from actors.upstream.breaker import IN_A_ROW
from protocol.errors import ProviderError, TidegateError
from protocol.events import AttemptFailed, Delta
from protocol.gateway import Complete, Completion, GetProviders, Progress
from protocol.llm import ChatMessage, ChatRequest
from protocol.routes import ProviderSpec, Route, Routes

AFTER = 2.0
SILENT = Reply(steps=(Stall(),))
Ask = Callable[..., "asyncio.Task[Completion]"]


@pytest.fixture
def gateway(spawn: Callable[..., Ref[Any]], second: ScriptedUpstream) -> Ref[Any]:
    """A gateway with hedged routes over both upstreams, and over the first alone."""
    providers = {"second": ProviderSpec(kind="anthropic", base_url=second.anthropic_url)}
    routes = {
        "both": Route(targets=("openai/a", "second/b"), hedge_after=AFTER),
        "alone": Route(targets=("openai/a",), hedge_after=AFTER),
    }
    return spawn(routes=Routes(providers=providers, routes=routes), concurrency=2, queue=1)


@pytest.fixture
def ask(gateway: Ref[Any]) -> Ask:
    """Send a request."""

    def start(model: str = "both", *, sink: Ref[Progress] | None = None, **fields: Any) -> "asyncio.Task[Completion]":  # noqa: ANN401
        request = ChatRequest(model=model, messages=(ChatMessage(role="user", content="hi"),))
        return asyncio.ensure_future(gateway.ask(Complete(request=request, sink=sink, **fields), timeout=300))

    return start


async def in_flight(gateway: Ref[Any]) -> dict[str, int]:
    """Return the number of calls under way, by provider."""
    return {status.name: status.in_flight for status in await gateway.ask(GetProviders(), timeout=5)}


async def test_the_next_target_is_asked_beside_one_that_is_slow(
    ask: Ask, gateway: Ref[Any], system: TestSystem, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """Its answer counts; the slow call's socket is closed at once, and both are among the attempts."""
    probe = system.probe(Progress)
    upstream.default = SILENT
    waiting = ask(sink=probe.ref)
    await upstream.called()
    await system.advance(AFTER - 0.1)
    assert second.calls == 0
    await system.advance(0.1)
    answer = await waiting
    assert (answer.text, answer.provider, upstream.calls, second.calls) == ("from the second", "second", 1, 1)
    await upstream.abandoned()
    await system.settle()
    attempts = {told.attempt.provider: told.attempt.error for told in probe.received if told.attempt is not None}
    assert attempts == {"second": "", "openai": "cancelled"}
    events = [event for told in probe.received for event in told.events]
    assert events == [Delta(text="from the second")]
    assert await in_flight(gateway) == {"local": 0, "openai": 0, "anthropic": 0, "second": 0}


async def test_one_that_is_slow_may_still_be_the_first(
    ask: Ask, system: TestSystem, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """Then the other call is cancelled, and the sink gets only its end."""
    probe, gate = system.probe(Progress), asyncio.Event()
    upstream.default = Reply(steps=(Wait(gate), Say("Hello"), End()))
    second.default = SILENT
    waiting = ask(sink=probe.ref)
    await upstream.called()
    await system.advance(AFTER)
    await second.called()
    gate.set()
    assert (await waiting).provider == "openai"
    await second.abandoned()
    events = [event for told in probe.received for event in told.events]
    assert events == [Delta(text="Hello")]


async def test_one_that_has_begun_is_left_alone(
    ask: Ask, system: TestSystem, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """However long its answer then takes."""
    probe, gate = system.probe(Progress), asyncio.Event()
    upstream.default = Reply(steps=(Say("Hel"), Wait(gate), Say("lo"), End()))
    waiting = ask(sink=probe.ref)
    await probe.expect(Progress)
    await system.advance(2 * AFTER)
    gate.set()
    assert ((await waiting).text, second.calls) == ("Hello", 0)


async def test_being_slow_opens_no_breaker(
    ask: Ask, system: TestSystem, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """A cancelled call says nothing about its target."""
    upstream.default = SILENT
    for number in range(1, IN_A_ROW + 2):
        waiting = ask()
        await upstream.called(number)
        await system.advance(AFTER)
        assert (await waiting).provider == "second"
        await upstream.abandoned(number)
    upstream.default = say("well")
    assert (await ask()).text == "well"


async def test_where_there_is_one_target_it_is_asked_again(
    ask: Ask, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """That is a repeated call, for which the retry budget has to have room."""
    for number in range(20):
        upstream.script(SILENT, say("again"))
        waiting = ask("alone")
        calls = upstream.calls
        await upstream.called(calls + 1)
        await system.advance(AFTER)
        if upstream.calls == calls + 1 and number >= 10:
            waiting.cancel()
            return
        assert (await waiting).text == "again"
        await upstream.abandoned(number + 1)
    raise AssertionError("the budget has no end")


async def test_both_are_among_the_calls_of_the_request(
    ask: Ask, system: TestSystem, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """When both fail, only the calls that are left may follow."""
    gates = [asyncio.Event(), asyncio.Event()]
    upstream.script(Reply(before=(Wait(gates[0]), Cut())))
    second.script(Reply(before=(Wait(gates[1]), Cut())))
    upstream.default = second.default = refuse(503)
    waiting = ask()
    await upstream.called()
    await system.advance(AFTER)
    await second.called()
    for gate in gates:
        gate.set()
    while not waiting.done():
        await system.advance(1)
    with pytest.raises(ProviderError):
        await waiting
    assert upstream.calls + second.calls == 3


async def test_the_winner_may_break_off_and_begin_anew(
    ask: Ask, system: TestSystem, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """As without a race: the boundary, and then the answer from its beginning."""
    probe = system.probe(Progress)
    upstream.script(SILENT)
    upstream.default = say("Hello")
    second.script(Reply(steps=(Say("Hel"), Cut())))
    second.default = refuse(400)
    waiting = ask(sink=probe.ref, restart=True)
    await upstream.called()
    await system.advance(AFTER)
    while not waiting.done():
        await system.advance(1)
    assert (await waiting).text == "Hello"
    events = [event for told in probe.received for event in told.events]
    assert events == [
        Delta(text="Hel"),
        AttemptFailed(provider="second", model="b", code="provider_stream_broken", restart=True),
        Delta(text="Hello"),
    ]


async def test_a_target_without_a_free_place_is_not_asked_beside(
    ask: Ask, system: TestSystem, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """A second call is for speed, and one in a queue brings none."""
    gate = asyncio.Event()
    upstream.default = SILENT
    second.default = Reply(steps=(Wait(gate), Say("Hi"), End()))
    waiting = [ask() for _ in range(2)]
    await upstream.called(2)
    await system.advance(AFTER)
    await second.called(2)
    gate.set()
    await asyncio.gather(*waiting)
    assert (upstream.calls, second.calls) == (2, 2)


async def test_who_leaves_closes_both_sockets(
    ask: Ask, gateway: Ref[Any], system: TestSystem, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """Cancelling the request cancels both calls, and leaves no task."""
    upstream.default = second.default = SILENT
    before = len(system._core.tasks)
    waiting = ask()
    await upstream.called()
    await system.advance(AFTER)
    await second.called()
    waiting.cancel()
    await upstream.abandoned()
    await second.abandoned()
    await system.settle()
    assert set((await in_flight(gateway)).values()) == {0}
    assert len(system._core.tasks) <= before


async def test_whatever_happens_nothing_is_left_behind(second: ScriptedUpstream, upstream: ScriptedUpstream) -> None:
    """Faults, slow calls, cancellations: each request ends, no text is doubled, no place, task or socket is left."""
    chance = random.Random(5)
    faults = (SILENT, refuse(503), refuse(429, retry_after="0"), Reply(before=(Cut(),)), Reply(before=(Stall(),)))
    for side in (upstream, second):
        side.default = say("Hel", "lo")
        side.script(*(chance.choice(faults) if chance.random() < 0.3 else side.default for _ in range(150)))
    providers = {"second": ProviderSpec(kind="anthropic", base_url=second.anthropic_url)}
    routes = {"both": Route(targets=("openai/a", "second/b"), order="weighted", hedge_after=0.02)}
    config = GatewayConfig(
        openai_base_url=upstream.openai_url,
        llm_provider="openai",
        deadlines=ProviderDeadlines(first_token=1.0),
        retry=RetryPolicy(jitter=lambda: 0.0),
        routes=Routes(providers=providers, routes=routes),
        limits=GatewayLimits(concurrency=8),
    )
    async with System() as system:
        gateway: Ref[Any] = system.spawn(build_gateway(config), name="llm-gateway")

        async def ask() -> str:
            request = ChatRequest(model="both", messages=(ChatMessage(role="user", content="hi"),))
            waiting = asyncio.ensure_future(gateway.ask(Complete(request=request), timeout=30))
            if chance.random() < 0.1:
                await asyncio.sleep(0)
                waiting.cancel()
            try:
                answer: Completion = await waiting
            except (TidegateError, asyncio.CancelledError) as error:
                return type(error).__name__
            return answer.text

        async def one_after_the_other() -> list[str]:
            return [await ask() for _ in range(15)]

        told = await asyncio.gather(*(one_after_the_other() for _ in range(10)))
        ended = Counter(text for texts in told for text in texts)
        assert ended.keys() <= {"Hello", "ProviderError", "Refusal", "CancelledError"}
        assert ended["Hello"] > 75
        await system.drain(gateway, deadline=system.clock.time() + 5)
        assert len(system._core.tasks) == 0
        async with asyncio.timeout(5):
            while upstream.busy or second.busy:  # noqa: ASYNC110 - the upstream has no event for it
                await asyncio.sleep(0)
