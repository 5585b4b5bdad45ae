"""Rate limits of targets, through the whole gateway, and the independence of providers."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from actors.runtime import Ref
from actors.runtime.testing import TestSystem
from actors.testing import Cut, Fault, Reply, ScriptedUpstream, Stall, Wait, refuse, say
from actors.upstream.rate_limit import PACE, PROBED
from protocol.errors import Overloaded, ProviderError
from protocol.gateway import Complete, Completion, GetProviders, ProviderStatus, TargetStatus
from protocol.llm import ChatMessage, ChatRequest
from protocol.routes import ProviderSpec, Route, Routes

Ask = Callable[..., "asyncio.Task[Completion]"]
EMPTY = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "20s"}


@pytest.fixture
def gateway(spawn: Callable[..., Ref[Any]], second: ScriptedUpstream) -> Ref[Any]:
    """A gateway with a route over both: the first in OpenAI's dialect, the second in Anthropic's."""
    providers = {"second": ProviderSpec(kind="anthropic", base_url=second.anthropic_url)}
    routes = {"both": Route(targets=("openai/a", "second/b"))}
    return spawn(routes=Routes(default="both", providers=providers, routes=routes), concurrency=2, queue=2)


@pytest.fixture
def ask(gateway: Ref[Any]) -> Ask:
    """Send a request."""

    def start(
        model: str, *, timeout: float = 300, tenant: str = "", question: str = "hi"
    ) -> "asyncio.Task[Completion]":
        request = ChatRequest(model=model, messages=(ChatMessage(role="user", content=question),))
        return asyncio.ensure_future(gateway.ask(Complete(request=request, tenant=tenant), timeout=timeout))

    return start


def last(reply: Reply) -> Reply:
    """Return the same reply, with headers that say that no further call has room."""
    return Reply(steps=reply.steps, status=reply.status, headers={**reply.headers, **EMPTY})


async def openai(gateway: Ref[Any]) -> ProviderStatus:
    """Return the provider's status."""
    (status,) = [status for status in await gateway.ask(GetProviders(), timeout=5) if status.name == "openai"]
    return status


async def answered(system: TestSystem, gateway: Ref[Any]) -> None:
    """Wait until the provider has answered all its calls."""
    while (await openai(gateway)).in_flight:
        await system.settle()


async def held(
    ask: Ask, system: TestSystem, upstream: ScriptedUpstream, count: int
) -> "list[asyncio.Task[Completion]]":
    """Let so many calls wait for a rate limit that the target has closed for 20 s."""
    upstream.script(last(refuse(429, retry_after="20")))
    first = ask("openai/a", timeout=10)
    await upstream.called()
    with pytest.raises(ProviderError):
        await first
    tasks = [ask("openai/a", tenant=str(number), timeout=100) for number in range(count)]
    await system.settle()
    return tasks


@pytest.mark.parametrize("said", [last(say("Hello")), last(refuse(429))])
async def test_calls_wait_for_room(
    ask: Ask, system: TestSystem, gateway: Ref[Any], upstream: ScriptedUpstream, said: Reply
) -> None:
    """After a good answer and after a refusal; the status shows it, and other models are not affected."""
    upstream.script(said)
    first = ask("openai/a")
    await upstream.called()
    await system.settle()
    waiting = ask("openai/a", tenant="other")
    await system.advance(19.9)
    assert upstream.calls == 1
    status = await openai(gateway)
    assert [target.model for target in status.targets] == ["a"]
    assert status.targets[0].limited == pytest.approx(0.1)
    assert status.queued >= 1
    assert (await ask("openai/b")).text == "Hello world"
    await system.advance(0.1)
    await upstream.called(3)
    await system.settle()
    await system.advance(PACE)
    assert (await first).provider == (await waiting).provider == "openai"


async def test_another_target_is_asked_first(ask: Ask, upstream: ScriptedUpstream, second: ScriptedUpstream) -> None:
    """No call waits while another target has room."""
    upstream.script(last(say("Hello")))
    assert (await ask("both")).provider == "openai"
    assert (await ask("both")).provider == "second"
    assert (upstream.calls, second.calls) == (1, 1)


async def test_of_two_without_room_the_one_that_has_it_soonest_is_waited_for(
    ask: Ask, system: TestSystem, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """In either dialect."""
    upstream.script(last(say("Hello")))
    second.script(
        Reply(
            steps=say("Hello").steps,
            headers={
                "anthropic-ratelimit-tokens-limit": "10",
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "2099-01-01T00:00:00Z",
            },
        )
    )
    await ask("openai/a")
    await ask("second/b")
    waiting = ask("both")
    await system.advance(20)
    assert (await waiting).provider == "openai"


async def test_a_target_without_room_for_all_of_the_request_is_no_better(
    ask: Ask, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """Where fewer tokens remain than the request has, another target is called first, too."""
    headers = {"x-ratelimit-remaining-tokens": "2", "x-ratelimit-reset-tokens": "20s"}
    upstream.script(Reply(steps=say("Hello").steps, headers=headers))
    await ask("openai/a")
    assert (await ask("both", question="x" * 100)).provider == "second"
    assert (await ask("both")).provider == "openai"


async def test_a_request_that_would_wait_in_vain_fails_at_once(ask: Ask, upstream: ScriptedUpstream) -> None:
    """The failure has the seconds until there is room."""
    upstream.script(last(say("Hello")))
    await ask("openai/a")
    with pytest.raises(Overloaded) as caught:
        await ask("openai/a", timeout=15)
    assert caught.value.code == "provider_overloaded"
    assert caught.value.retry_after == pytest.approx(20)
    assert upstream.calls == 1


async def test_who_leaves_the_line_leaves_nothing_behind(
    ask: Ask, system: TestSystem, gateway: Ref[Any], upstream: ScriptedUpstream
) -> None:
    """A cancelled call leaves neither a place nor a task."""
    upstream.script(last(say("Hello")))
    before = len(system._core.tasks)
    await ask("openai/a")
    waiting = ask("openai/a")
    await system.settle()
    waiting.cancel()
    await system.settle()
    status = await openai(gateway)
    assert (status.in_flight, status.queued) == (0, 0)
    assert status.targets == (TargetStatus(model="a", limited=20.0),)
    assert len(system._core.tasks) <= before


async def test_after_the_reset_one_call_finds_out_for_all(
    ask: Ask, system: TestSystem, gateway: Ref[Any], upstream: ScriptedUpstream
) -> None:
    """While the target refuses, it gets one call after each reset; the waiting calls count it as one of theirs."""
    waiting = await held(ask, system, upstream, 2)
    for number, seconds in ((2, 20.0), (3, 20.5), (4, 21.0)):
        gate = asyncio.Event()
        upstream.script(Reply(before=(Wait(gate),), status=429, headers={**EMPTY, "retry-after": "20"}))
        await system.advance(seconds)
        await upstream.called(number)
        gate.set()
        await answered(system, gateway)
        assert upstream.calls == number
    for task in waiting:
        with pytest.raises(ProviderError) as caught:
            await task
        assert caught.value.code == "provider_rate_limited"


async def test_a_limit_that_is_over_lets_all_go(ask: Ask, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """One after the other, as soon as the first is answered."""
    waiting = await held(ask, system, upstream, 2)
    await system.advance(20)
    await upstream.called(2)
    await waiting[0]
    assert not waiting[1].done()
    await system.advance(PACE)
    assert (await waiting[1]).provider == "openai"


async def test_a_probe_that_is_given_up_keeps_nobody_waiting(
    ask: Ask, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """Whether its request is cancelled or it hangs."""
    waiting = await held(ask, system, upstream, 2)
    stall = Reply(before=(Stall(),))
    upstream.script(stall, stall)
    await system.advance(20)
    await upstream.called(2)
    waiting[0].cancel()
    await system.settle()
    await system.advance(PACE)
    await upstream.called(3)
    third = ask("openai/a")
    await system.advance(PROBED)
    assert (await third).provider == "openai"
    waiting[1].cancel()


async def test_who_has_waited_for_a_place_does_not_go_into_a_refusal(
    ask: Ask, system: TestSystem, gateway: Ref[Any], upstream: ScriptedUpstream
) -> None:
    """A queued call is not sent to a target that has refused meanwhile, until its limit has room again."""
    gate = asyncio.Event()
    refused = Reply(before=(Wait(gate),), status=429, headers=EMPTY)
    upstream.script(refused, refused)
    first = [ask("openai/a", timeout=10) for _ in range(2)]
    await upstream.called(2)
    then = [ask("openai/a") for _ in range(2)]
    await system.settle()
    gate.set()
    await answered(system, gateway)
    assert (upstream.calls, (await openai(gateway)).queued) == (2, 2)
    await system.advance(20)
    await then[0]
    await system.advance(PACE)
    await then[1]
    assert upstream.calls == 4
    assert all(isinstance(end, Overloaded) for end in await asyncio.gather(*first, return_exceptions=True))


@pytest.mark.parametrize(
    "trouble",
    [
        Reply(before=(Stall(),)),
        Reply(steps=(Stall(),)),
        refuse(429, retry_after="20"),
        last(refuse(429)),
        refuse(503),
        Reply(before=(Cut(),)),
        Reply(steps=(Fault(),)),
    ],
)
async def test_the_trouble_of_one_provider_holds_up_no_other(
    ask: Ask, system: TestSystem, upstream: ScriptedUpstream, second: ScriptedUpstream, trouble: Reply
) -> None:
    """With its places and its queue full of calls that hang, wait or are repeated, other providers answer at once."""
    upstream.default = trouble
    flood = [ask("openai/a", tenant=str(number)) for number in range(8)]
    await upstream.called(2)
    await system.settle()
    before = system.manual.time()
    for _ in range(5):
        answers = await asyncio.gather(*(ask("second/b") for _ in range(4)))
        assert {answer.provider for answer in answers} == {"second"}
    assert (system.manual.time(), second.calls) == (before, 20)
    for waiting in flood:
        waiting.cancel()
    await asyncio.gather(*flood, return_exceptions=True)


async def test_a_provider_that_refuses_connections_holds_up_no_other(
    ask: Ask, system: TestSystem, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """The same for refused connections."""
    await upstream.stop_listening()
    flood = [ask("openai/a") for _ in range(4)]
    await system.settle()
    answers = await asyncio.gather(*(ask("second/b") for _ in range(4)))
    assert {answer.provider for answer in answers} == {"second"}
    for waiting in flood:
        waiting.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
