"""The repair round: a wrong answer goes back to the model once, with its errors."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from actors.llm_gateway import GatewayConfig, RetryPolicy, build_gateway, complete_json
from actors.llm_gateway.repair import MAX_QUOTED, repair_request
from actors.log.event_log import EventLog
from actors.runtime import Ref
from actors.runtime.testing import TestSystem
from actors.testing import Call, Cut, End, Reply, Say, ScriptedUpstream, Stall, Wait, refuse, say
from protocol import spans
from protocol.errors import FieldError, SchemaMismatch, TidegateError
from protocol.events import AttemptFailed, Content, Delta
from protocol.gateway import Complete, Completion, Progress
from protocol.llm import Attempt, ChatMessage, ChatRequest, Tool, Usage
from protocol.routes import Route, Routes

Spawn = Callable[..., Ref[Any]]
MESSAGES = (ChatMessage(role="user", content="is it food?"),)
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
REQUEST = ChatRequest(model="default", messages=MESSAGES, schema=SCHEMA)
WRONG, RIGHT = '{"ok": "maybe"}', '{"ok": true}'
ONCE = Usage(input_tokens=100, output_tokens=10)
TWICE = Usage(input_tokens=200, output_tokens=20)


def ask(gateway: Ref[Any], **fields: Any) -> Awaitable[Completion]:  # noqa: ANN401
    """Send a request whose answer may be repaired."""
    return asyncio.ensure_future(gateway.ask(Complete(**{"request": REQUEST, "repair": True, **fields}), timeout=60))


async def failure(waiting: Awaitable[Completion]) -> TidegateError:
    """Return a request's failure."""
    with pytest.raises(TidegateError) as caught:
        await waiting
    return caught.value


def events(told: Iterable[Progress]) -> list[Content]:
    """Return the content that the sink received."""
    return [event for progress in told for event in progress.events]


def errors(told: Iterable[Progress]) -> list[str]:
    """Return the attempts' error codes."""
    return [progress.attempt.error for progress in told if isinstance(progress.attempt, Attempt)]


@pytest.mark.parametrize("model", ["default", "anthropic/claude-haiku-4-5"])
async def test_a_wrong_answer_is_shown_to_the_model(spawn: Spawn, upstream: ScriptedUpstream, model: str) -> None:
    """The conversation goes on with the answer and its errors, in either dialect, and both calls are paid for."""
    upstream.script(say(WRONG, usage=ONCE), say(RIGHT, usage=ONCE))
    answer = await ask(spawn(), request=msgspec.structs.replace(REQUEST, model=model))
    assert bytes(answer.result or b"") == RIGHT.encode()
    assert (answer.text, answer.usage) == (RIGHT, TWICE)
    first, second = (call.body["messages"] for call in upstream.received)
    assert second[: len(first)] == first
    wrong, faults = second[len(first) :]
    assert (wrong["role"], faults["role"]) == ("assistant", "user")
    assert WRONG in str(wrong["content"])
    assert "$.ok" in str(faults["content"])


async def test_both_calls_cost(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """Two calls cost twice as much as one."""
    gateway = spawn()
    upstream.script(say(RIGHT, usage=ONCE), say(WRONG, usage=ONCE), say(RIGHT, usage=ONCE))
    one, two = await ask(gateway), await ask(gateway)
    assert one.cost is not None
    assert two.cost == one.cost * 2


async def test_what_was_told_is_void(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """The log has the boundary, a snapshot only the second text, and the attempts both calls."""
    probe, gate = system.probe(Progress), asyncio.Event()
    upstream.script(Reply(steps=(Say(WRONG[:5]), Wait(gate), Say(WRONG[5:]), End())), say(RIGHT))
    waiting = ask(spawn(), sink=probe.ref)
    told = [await probe.expect(Progress)]
    gate.set()
    await waiting
    told.extend(probe.received)
    content = events(told)
    boundary = AttemptFailed(provider="openai", model="gpt-4o-mini", code="schema_mismatch", restart=True)
    assert content.count(boundary) == 1
    after = content[content.index(boundary) + 1 :]
    assert "".join(event.text for event in after if isinstance(event, Delta)) == RIGHT
    assert errors(told) == ["schema_mismatch", ""]
    log = EventLog()
    log.extend(content)
    assert log.snapshot().text == RIGHT


async def test_a_second_wrong_answer_is_the_end(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """There is one round only; the failure and the log have the last text."""
    probe = system.probe(Progress)
    upstream.script(say(WRONG), say('{"ok": 7}'), say(RIGHT))
    error = await failure(ask(spawn(), sink=probe.ref))
    assert isinstance(error, SchemaMismatch)
    assert (error.raw, error.errors[0].path) == ('{"ok": 7}', "$.ok")
    assert upstream.calls == 2
    assert errors(probe.received) == ["schema_mismatch", "schema_mismatch"]
    log = EventLog()
    log.extend(events(probe.received))
    assert log.snapshot().text == '{"ok": 7}'


async def test_nothing_is_repaired_unasked(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """A request without ``repair`` gets the wrong answer as it came, with nothing after it."""
    probe = system.probe(Progress)
    upstream.script(say(WRONG), say(RIGHT))
    error = await failure(ask(spawn(), repair=False, sink=probe.ref))
    assert error.code == "schema_mismatch"
    assert upstream.calls == 1
    assert "".join(event.text for event in events(probe.received) if isinstance(event, Delta)) == WRONG
    assert errors(probe.received) == ["schema_mismatch"]


@pytest.mark.parametrize(
    "wrong",
    [
        Reply(steps=(Say('{"ok": tr'), End(finish_reason="length"))),
        Reply(steps=(Say('{"ok": tr'), End(finish_reason="content_filter"))),
        say(" "),
    ],
)
async def test_what_can_not_be_repaired_is_not(spawn: Spawn, upstream: ScriptedUpstream, wrong: Reply) -> None:
    """An answer that was cut short would be cut again, and an empty one has nothing to show."""
    upstream.script(wrong, say(RIGHT))
    assert (await failure(ask(spawn()))).code == "schema_mismatch"
    assert upstream.calls == 1


async def test_calls_of_tools_are_no_wrong_answer(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """Calls of the caller's tools are not validated."""
    upstream.script(Reply(steps=(Call(id="c1", name="look", arguments="{}"), End(finish_reason="tool_calls"))))
    answer = await ask(spawn(), request=msgspec.structs.replace(REQUEST, tools=(Tool(name="look"),)))
    assert (answer.result, answer.tool_calls[0].name, upstream.calls) == (None, "look", 1)


async def test_calls_of_tools_that_nobody_offered_are_a_wrong_answer(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """They are given back to the model, with the name of the tool."""
    wrong = Reply(steps=(Call(id="c1", name="look", arguments='{"b":1}'), End(finish_reason="tool_calls")))
    upstream.script(wrong, say(RIGHT), wrong, wrong)
    gateway = spawn()
    answer = await ask(gateway)
    assert (answer.text, answer.tool_calls, upstream.calls) == (RIGHT, (), 2)
    said, asked = upstream.received[-1].body["messages"][-2:]
    assert "look" in said["content"]
    assert "not offered" in asked["content"]
    request = msgspec.structs.replace(REQUEST, tools=(Tool(name="look"),), tool_choice="none")
    error = await failure(ask(gateway, request=request))
    assert error.code == "schema_mismatch"


async def test_the_repair_is_one_of_the_requests_calls(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """Where no call is left, the wrong answer is the end."""
    upstream.script(say(WRONG), say(RIGHT))
    error = await failure(ask(spawn(retry=RetryPolicy(attempts=1))))
    assert error.code == "schema_mismatch"
    assert upstream.calls == 1


async def test_the_repair_is_within_the_requests_time(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """A repair beyond the deadline fails the request with it."""
    upstream.script(say(WRONG), Reply(before=(Stall(),)))
    waiting = ask(spawn(first_token=100.0))
    await upstream.called(2)
    await system.advance(59.99)
    assert (await failure(waiting)).code == "deadline_exceeded"


async def test_whoever_answered_is_asked(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """The repair goes to the target that was wrong; a failure of it is followed by the next target, as ever."""
    routes = Routes(routes={"three": Route(targets=("openai/a", "openai/b", "openai/c"))})
    request = msgspec.structs.replace(REQUEST, model="three")
    upstream.script(refuse(403), say(WRONG), Reply(before=(Cut(),)), say(RIGHT))
    gateway = spawn(routes=routes, retry=RetryPolicy(attempts=4, jitter=lambda: 0.0))
    answer = await ask(gateway, request=request)
    assert answer.text == RIGHT
    assert [call.body["model"] for call in upstream.received] == ["a", "b", "b", "c"]
    assert [len(call.body["messages"]) for call in upstream.received] == [1, 1, 3, 3]


async def test_a_wrong_answer_is_no_outage(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """However many there are, the target is still called, and each answer is given back."""
    upstream.default = say(WRONG)
    gateway = spawn()
    for _ in range(20):
        assert (await failure(ask(gateway))).code == "schema_mismatch"
    assert upstream.calls == 40


async def test_a_typed_answer_is_repaired(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """``complete_json`` returns the second answer."""
    upstream.script(say("7"), say('{"ok": true}'))
    assert await complete_json(spawn(), MESSAGES, dict[str, bool]) == {"ok": True}


async def test_each_call_is_a_span(upstream: ScriptedUpstream) -> None:
    """The first has the error of its answer, and its tokens."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    upstream.script(say(WRONG, usage=ONCE), say(RIGHT, usage=ONCE))
    async with TestSystem(tracer_provider=provider) as system:
        config = GatewayConfig(openai_base_url=upstream.openai_url, llm_provider="openai", default_model="m")
        await ask(system.spawn(build_gateway(config), name="llm-gateway"))
    calls = [dict(span.attributes or {}) for span in exporter.get_finished_spans() if span.kind is SpanKind.CLIENT]
    assert [(call[spans.ATTEMPT], call.get(spans.ERROR_TYPE)) for call in calls] == [(1, "schema_mismatch"), (2, None)]
    assert [call[spans.GEN_AI_INPUT_TOKENS] for call in calls] == [100, 100]


def test_what_the_model_is_shown_is_bounded() -> None:
    """An error message may quote the whole answer."""
    mismatch = SchemaMismatch(raw="x", errors=[FieldError("$" + "p" * 10_000, "m" * 10_000)] * 20)
    shown = repair_request(REQUEST, mismatch).messages[-1].content
    assert isinstance(shown, str)
    assert len(shown) < 20 * (2 * MAX_QUOTED + 10) + 200
