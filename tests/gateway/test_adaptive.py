"""Calls that a target's rate limit has no room for, through the whole gateway; and one provider beside another."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from actors.runtime import Ref
from actors.runtime.testing import TestSystem
from actors.testing import Cut, Fault, Reply, ScriptedUpstream, Stall, refuse, say
from protocol.errors import Overloaded
from protocol.gateway import Complete, Completion, GetProviders, TargetStatus
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
    """Begin to ask for an answer."""

    def start(
        model: str, *, timeout: float = 300, tenant: str = "", question: str = "hi"
    ) -> "asyncio.Task[Completion]":
        request = ChatRequest(model=model, messages=(ChatMessage(role="user", content=question),))
        return asyncio.ensure_future(gateway.ask(Complete(request=request, tenant=tenant), timeout=timeout))

    return start


def last(reply: Reply) -> Reply:
    """The same, as the last for which there is room."""
    return Reply(steps=reply.steps, status=reply.status, headers={**reply.headers, **EMPTY})


@pytest.mark.parametrize("said", [last(say("Hello")), last(refuse(429))])
async def test_calls_wait_for_room(
    ask: Ask, system: TestSystem, gateway: Ref[Any], upstream: ScriptedUpstream, said: Reply
) -> None:
    """A good answer and a refusal are both heard; the state can be seen, and other models are not concerned."""
    upstream.script(said)
    first = ask("openai/a")
    await upstream.called()
    await system.settle()
    waiting = ask("openai/a", tenant="other")
    await system.advance(19.9)
    assert upstream.calls == 1
    (status,) = [status for status in await gateway.ask(GetProviders(), timeout=5) if status.name == "openai"]
    assert [target.model for target in status.targets] == ["a"]
    assert status.targets[0].limited == pytest.approx(0.1)
    assert status.queued >= 1
    assert (await ask("openai/b")).text == "Hello world"
    await system.advance(0.1)
    assert (await first).provider == (await waiting).provider == "openai"


async def test_another_target_is_asked_first(ask: Ask, upstream: ScriptedUpstream, second: ScriptedUpstream) -> None:
    """Nobody waits while there is somebody else."""
    upstream.script(last(say("Hello")))
    assert (await ask("both")).provider == "openai"
    assert (await ask("both")).provider == "second"
    assert (upstream.calls, second.calls) == (1, 1)


async def test_of_two_without_room_the_one_that_has_it_soonest_is_waited_for(
    ask: Ask, system: TestSystem, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """Whatever the dialect in which it says so."""
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
    """Where tokens remain, but fewer than this request has, another target is asked first, too."""
    headers = {"x-ratelimit-remaining-tokens": "2", "x-ratelimit-reset-tokens": "20s"}
    upstream.script(Reply(steps=say("Hello").steps, headers=headers))
    await ask("openai/a")
    assert (await ask("both", question="x" * 100)).provider == "second"
    assert (await ask("both")).provider == "openai"


async def test_a_request_that_would_wait_in_vain_fails_at_once(ask: Ask, upstream: ScriptedUpstream) -> None:
    """It is told when there is room again."""
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
    """Neither a place nor a task."""
    upstream.script(last(say("Hello")))
    before = len(system._core.tasks)
    await ask("openai/a")
    waiting = ask("openai/a")
    await system.settle()
    waiting.cancel()
    await system.settle()
    (status,) = [status for status in await gateway.ask(GetProviders(), timeout=5) if status.name == "openai"]
    assert (status.in_flight, status.queued) == (0, 0)
    assert status.targets == (TargetStatus(model="a", limited=20.0),)
    assert len(system._core.tasks) <= before


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
    """With its places and its queue full of calls that hang, wait or are repeated, others are answered in no time."""
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
    """The same where nobody listens."""
    await upstream.stop_listening()
    flood = [ask("openai/a") for _ in range(4)]
    await system.settle()
    answers = await asyncio.gather(*(ask("second/b") for _ in range(4)))
    assert {answer.provider for answer in answers} == {"second"}
    for waiting in flood:
        waiting.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
