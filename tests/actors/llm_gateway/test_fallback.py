"""Fallback after failures of targets, through the whole gateway."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from actors.runtime import Ref
from actors.runtime.testing import TestSystem
from actors.testing import Cut, End, Fault, Reply, Say, ScriptedUpstream, Stall, Wait, refuse, say
from actors.upstream.breaker import IN_A_ROW, OPEN_SECONDS
from actors.upstream.health import COOL_DOWN
from actors.upstream.retry_budget import BURST
from protocol.errors import NotFound, ProviderError, TidegateError
from protocol.events import AttemptFailed, Delta
from protocol.gateway import Complete, Completion, ListModels, Progress, ResolveModel
from protocol.llm import ChatMessage, ChatRequest, Usage
from protocol.routes import ProviderSpec, Route, Routes, Target

Ask = Callable[..., "asyncio.Task[Completion]"]
MESSAGES = (ChatMessage(role="user", content="hi"),)


@pytest.fixture
def gateway(spawn: Callable[..., Ref[Any]], second: ScriptedUpstream) -> Ref[Any]:
    """A gateway with a route over both: the first in OpenAI's dialect, the second in Anthropic's."""
    providers = {"second": ProviderSpec(kind="anthropic", base_url=second.anthropic_url)}
    routes = {
        "both": Route(targets=("openai/a", "second/b")),
        "set": Route(targets=(Target(model="second/b", temperature=0.2, max_tokens=9),)),
    }
    return spawn(routes=Routes(default="both", providers=providers, routes=routes), concurrency=2, queue=0)


@pytest.fixture
def ask(gateway: Ref[Any]) -> Ask:
    """Send a request."""

    def start(model: str = "both", *, sink: Ref[Progress] | None = None, **fields: Any) -> "asyncio.Task[Completion]":  # noqa: ANN401
        request = ChatRequest(model=model, messages=MESSAGES, **fields)
        return asyncio.ensure_future(gateway.ask(Complete(request=request, sink=sink), timeout=300))

    return start


async def code(waiting: "asyncio.Task[Completion]") -> str:
    """Return the code of a request's failure."""
    with pytest.raises(TidegateError) as caught:
        await waiting
    return caught.value.code


@pytest.mark.parametrize(
    "failed",
    [
        *(refuse(status) for status in (400, 401, 404, 408, 409, 429, 500, 503, 529)),
        refuse(503, retry_after="60"),
        Reply(before=(Cut(),)),
        Reply(steps=()),
        Reply(steps=(Fault(),)),
        Reply(content_type="text/html"),
    ],
)
async def test_a_failure_before_content_goes_to_the_next_target(
    ask: Ask, system: TestSystem, upstream: ScriptedUpstream, second: ScriptedUpstream, failed: Reply
) -> None:
    """At once and in the other dialect: the sender gets one answer, and both attempts."""
    probe = system.probe(Progress)
    upstream.script(failed)
    answer = await ask(sink=probe.ref)
    assert (answer.text, answer.provider, answer.model) == ("from the second", "second", "b")
    assert (upstream.calls, second.calls) == (1, 1)
    assert second.received[0].path == "/v1/messages"
    told = [await probe.expect(Progress) for _ in range(2)]
    assert [(told.attempt.provider, bool(told.attempt.error)) for told in told if told.attempt is not None] == [
        ("openai", True),
        ("second", False),
    ]
    assert not any(isinstance(event, AttemptFailed) for progress in told for event in progress.events)


@pytest.mark.parametrize("stalled", [Reply(before=(Stall(),)), Reply(steps=(Stall(),))])
async def test_a_stall_before_content_goes_to_the_next_target(
    ask: Ask, system: TestSystem, upstream: ScriptedUpstream, stalled: Reply
) -> None:
    """When the first token's time is over; the stalled call's socket is closed."""
    upstream.script(stalled)
    waiting = ask()
    await upstream.called()
    await system.advance(20)
    assert (await waiting).provider == "second"
    await upstream.abandoned()


async def test_after_content_nobody_else_is_asked(
    ask: Ask, system: TestSystem, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """Content is not sent twice: the sink gets the boundary, and the request fails."""
    probe, gate = system.probe(Progress), asyncio.Event()
    upstream.script(Reply(steps=(Say("Hel"), Wait(gate), Cut())))
    waiting = ask(sink=probe.ref)
    assert (await probe.expect(Progress)).events == (Delta(text="Hel"),)
    gate.set()
    assert await code(waiting) == "provider_stream_broken"
    assert isinstance((await probe.expect(Progress)).events[0], AttemptFailed)
    assert second.calls == 0


async def test_a_request_may_begin_anew(
    gateway: Ref[Any], system: TestSystem, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """The boundary voids the content before it, and the answer is the second one alone."""
    probe, gate = system.probe(Progress), asyncio.Event()
    upstream.script(Reply(steps=(Say("Hel"), Wait(gate), Cut())))
    complete = Complete(request=ChatRequest(model="both", messages=MESSAGES), sink=probe.ref, restart=True)
    waiting = asyncio.ensure_future(gateway.ask(complete, timeout=300))
    await probe.expect(Progress)
    gate.set()
    assert (await waiting).text == "from the second"
    boundary = (await probe.expect(Progress)).events[0]
    assert boundary == AttemptFailed(provider="openai", model="a", code="provider_stream_broken", restart=True)


async def test_an_answer_begins_anew_only_as_long_as_there_are_calls_left(
    gateway: Ref[Any], system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """The last boundary voids nothing: the request fails with the content before it."""
    probe = system.probe(Progress)
    upstream.default = Reply(steps=(Say("Hel"), Cut()))
    complete = Complete(request=ChatRequest(model="openai/a", messages=MESSAGES), sink=probe.ref, restart=True)
    waiting = asyncio.ensure_future(gateway.ask(complete, timeout=300))
    while not waiting.done():
        await system.advance(1)
    assert await code(waiting) == "provider_stream_broken"
    events = [event for progress in probe.received for event in progress.events]
    assert [event.restart for event in events if isinstance(event, AttemptFailed)] == [True, True, False]


async def test_when_no_other_target_has_room_the_request_that_began_anew_fails(
    gateway: Ref[Any], system: TestSystem, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """It ends, and does not try a full queue again and again."""
    gate, cut = asyncio.Event(), asyncio.Event()
    second.default = Reply(steps=(Wait(gate), Say("Hi"), End()))
    request = ChatRequest(model="set", messages=MESSAGES)
    filling = [asyncio.ensure_future(gateway.ask(Complete(request=request), timeout=300)) for _ in range(2)]
    await second.called(2)
    upstream.script(Reply(steps=(Say("Hel"), Wait(cut), Cut())), refuse(400))
    probe = system.probe(Progress)
    complete = Complete(request=ChatRequest(model="both", messages=MESSAGES), sink=probe.ref, restart=True)
    waiting = asyncio.ensure_future(gateway.ask(complete, timeout=300))
    await probe.expect(Progress)
    cut.set()
    await probe.expect(Progress)
    await system.advance(1)
    assert await code(waiting) == "provider_rejected"
    gate.set()
    await asyncio.gather(*filling)


@pytest.mark.parametrize(
    ("message", "fails"),
    [
        ("prompt is too long: 9 tokens > 8 maximum", ""),
        ("The model `a` does not exist", ""),
        ("Invalid schema for function 'f'", ""),
        ("top_p is out of range", ""),
        ("Your credit balance is too low", ""),
        ("Output blocked by content filtering policy", "content_policy"),
    ],
)
async def test_what_another_target_may_take_goes_on(
    ask: Ask, upstream: ScriptedUpstream, second: ScriptedUpstream, message: str, fails: str
) -> None:
    """A longer context, another schema, another account; a refusal on grounds of content ends the request."""
    upstream.script(Reply(status=400, body=msgspec.json.encode({"error": {"message": message}})))
    waiting = ask()
    if fails:
        assert await code(waiting) == fails
    else:
        assert (await waiting).provider == "second"
    assert (upstream.calls, second.calls) == (1, 0 if fails else 1)


async def test_when_all_have_failed_those_that_may_pass_are_asked_again(
    ask: Ask, system: TestSystem, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """A refusal is not repeated; an outage is, after its delay; three calls are the most."""
    upstream.script(refuse(400))
    second.script(refuse(503), refuse(503), say("too late"))
    waiting = ask()
    await second.called()
    await system.advance(0.4)
    assert second.calls == 1
    await system.advance(0.1)
    assert await code(waiting) == "provider_unavailable"
    assert (upstream.calls, second.calls) == (1, 2)


async def test_a_target_that_limits_the_rate_is_asked_last_for_a_while(
    ask: Ask, system: TestSystem, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """For its ``retry-after``, or the cool-down; if the others fail it is called all the same."""
    upstream.script(refuse(429))
    await ask()
    await ask()
    assert (upstream.calls, second.calls) == (1, 2)
    second.script(refuse(400))
    assert (await ask()).provider == "openai"
    await system.advance(COOL_DOWN)
    assert (await ask()).provider == "openai"
    assert (upstream.calls, second.calls) == (3, 3)


async def test_a_target_that_fails_is_passed_over_until_a_probe_succeeds(
    ask: Ask, system: TestSystem, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """An outage costs the first few requests an attempt, and then only probes."""
    upstream.default = refuse(500)
    for _ in range(IN_A_ROW + 5):
        assert (await ask()).provider == "second"
    assert upstream.calls == IN_A_ROW
    gate = asyncio.Event()
    upstream.script(Reply(steps=(Wait(gate), Say("Hi"), End())))
    await system.advance(OPEN_SECONDS)
    probing = ask()
    await upstream.called(IN_A_ROW + 1)
    assert (await ask()).provider == "second"
    gate.set()
    assert (await probing).provider == "openai"
    upstream.default = say("back")
    assert (await ask()).text == "back"


async def test_the_last_target_that_fails_is_unavailable_at_once(
    ask: Ask, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """Without a call; the failure has the seconds until the next probe. Other models are not affected."""
    upstream.default = Reply(steps=(Fault(),))
    for _ in range(IN_A_ROW):
        waiting = ask("openai/a")
        while not waiting.done():
            await system.advance(1)
        assert waiting.exception() is not None
    calls = upstream.calls
    with pytest.raises(ProviderError) as caught:
        await ask("openai/a")
    assert caught.value.code == "provider_unavailable"
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= OPEN_SECONDS
    assert upstream.calls == calls
    upstream.default = say("well")
    assert (await ask("openai/other")).text == "well"


@pytest.mark.parametrize("reply", [refuse(400), refuse(401), refuse(429)])
async def test_what_is_not_an_outage_opens_nothing(ask: Ask, upstream: ScriptedUpstream, reply: Reply) -> None:
    """Rejected requests, wrong keys and rate limits do not open the breaker."""
    upstream.default = reply
    for _ in range(IN_A_ROW + 1):
        await ask()
    upstream.default = say("well")
    assert (await ask("openai/a")).text == "well"


async def test_cancelled_calls_open_nothing(ask: Ask, upstream: ScriptedUpstream) -> None:
    """A cancelled call says nothing about the target."""
    upstream.default = Reply(before=(Stall(),))
    for number in range(IN_A_ROW + 1):
        waiting = ask()
        await upstream.called(number + 1)
        waiting.cancel()
        await upstream.abandoned(number + 1)
    upstream.default = say("well")
    assert (await ask()).text == "well"


async def test_an_outage_is_not_answered_by_a_storm(ask: Ask, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """Each request may make three calls, but all together repeat only what the retry budget allows."""
    upstream.default = refuse(500)
    requests = 40
    for number in range(requests):
        waiting = ask(f"openai/model-{number}")
        while not waiting.done():
            await system.advance(1)
        assert await code(waiting) == "provider_error"
    assert requests + BURST <= upstream.calls <= requests + BURST + 0.2 * requests


async def test_a_full_queue_goes_to_the_next_target(
    ask: Ask, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """No request is refused while another target has room."""
    gate = asyncio.Event()
    upstream.default = Reply(steps=(Wait(gate), Say("Hi"), End()))
    waiting = [ask(), ask()]
    await upstream.called(2)
    assert (await ask()).provider == "second"
    assert await code(ask("openai/a")) == "provider_overloaded"
    gate.set()
    assert {answer.provider for answer in await asyncio.gather(*waiting)} == {"openai"}


async def test_an_outage_of_one_provider_holds_up_no_other(
    ask: Ask, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """With all places of one taken by calls that hang, another answers without any time passing."""
    upstream.default = Reply(before=(Stall(),))
    hanging = [ask("openai/a"), ask("openai/a")]
    await upstream.called(2)
    answers = await asyncio.gather(*(ask("set") for _ in range(2)))
    assert {answer.provider for answer in answers} == {"second"}
    assert not any(waiting.done() for waiting in hanging)
    for waiting in hanging:
        waiting.cancel()
    await upstream.abandoned(2)


async def test_a_targets_options_reach_the_upstream(ask: Ask, second: ScriptedUpstream) -> None:
    """They fill what the request leaves open."""
    await ask("set", temperature=0.9)
    assert (second.received[0].body["temperature"], second.received[0].body["max_tokens"]) == (0.9, 9)


async def test_tokens_of_all_attempts_are_counted(
    ask: Ask, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """Also those of a failed attempt; without a price the cost is unknown."""
    used = Usage(input_tokens=5, output_tokens=2)
    upstream.script(Reply(steps=(End(finish_reason="stop", usage=used, marker=False), Fault())))
    second.script(say("Hi", usage=Usage(input_tokens=7, output_tokens=3)))
    answer = await ask()
    assert (answer.provider, answer.cost) == ("second", None)
    assert answer.usage == Usage(input_tokens=12, output_tokens=5)


async def test_aliases_are_listed_and_resolved(gateway: Ref[Any]) -> None:
    """A route is known by its first target's provider; ``default`` is the route's alias."""
    models = await gateway.ask(ListModels(), timeout=5)
    assert [(model.name, model.provider) for model in models[:3]] == [
        ("default", "openai"),
        ("both", "openai"),
        ("set", "second"),
    ]
    assert (await gateway.ask(ResolveModel("set"), timeout=5)).provider == "second"
    with pytest.raises(NotFound):
        await gateway.ask(ResolveModel("local/none"), timeout=5)
