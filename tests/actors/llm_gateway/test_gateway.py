import asyncio
import gc
import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from actors.llm_gateway import GatewayConfig, LLMGateway, attempt, build_gateway, completion, drain
from actors.runtime import Ref
from actors.runtime.testing import TestSystem
from actors.testing import Call, End, Reply, Say, ScriptedUpstream, Stall, Wait, refuse, say
from actors.upstream import admission, fallback
from protocol import spans
from protocol.errors import ConfigurationError, InvalidRequest, NotFound, SchemaMismatch
from protocol.events import Delta
from protocol.gateway import Complete, Completion, GetProviders, ListModels, Progress
from protocol.llm import ChatMessage, ChatRequest, ToolCall, Usage

Spawn = Callable[..., Ref[Any]]
MESSAGES = (ChatMessage(role="user", content="hi"),)


async def ask(gateway: Ref[Any], *, sink: Ref[Progress] | None = None, **fields: Any) -> Completion:  # noqa: ANN401
    """Send a request with these fields."""
    request = ChatRequest(**{"model": "default", "messages": MESSAGES, **fields})
    answer = await gateway.ask(Complete(request=request, request_id="req_1", sink=sink), timeout=60)
    assert isinstance(answer, Completion)
    return answer


@pytest.mark.parametrize(
    ("model", "provider", "name"),
    [
        ("default", "openai", "gpt-4o-mini"),
        ("gpt-4.1", "openai", "gpt-4.1"),
        ("openai/some/model", "openai", "some/model"),
        ("vendor/model", "openai", "vendor/model"),
        ("anthropic/claude-haiku-4-5", "anthropic", "claude-haiku-4-5"),
    ],
)
async def test_a_name_leads_to_its_provider(
    spawn: Spawn, upstream: ScriptedUpstream, model: str, provider: str, name: str
) -> None:
    """A provider's name in front, or a name that the default provider accepts."""
    answer = await ask(spawn(), model=model)
    assert (answer.text, answer.provider, answer.model) == ("Hello world", provider, name)
    assert upstream.received[0].body["model"] == name


@pytest.mark.parametrize("model", ["local/other", "openai/", ""])
async def test_an_unknown_model_is_not_found(spawn: Spawn, model: str) -> None:
    """A provider with a list of models accepts no other."""
    with pytest.raises(NotFound) as caught:
        await ask(spawn(), model=model)
    assert caught.value.code == "model_not_found"


async def test_models_and_providers_are_listed(spawn: Spawn) -> None:
    """The default comes first; each provider has its state."""
    gateway = spawn()
    models = await gateway.ask(ListModels(), timeout=5)
    assert [(model.name, model.provider) for model in models[:2]] == [
        ("default", "openai"),
        ("openai/gpt-4o-mini", "openai"),
    ]
    assert "local/smollm2" in [model.name for model in models]
    statuses = await gateway.ask(GetProviders(), timeout=5)
    assert {status.name: status.state for status in statuses} == {
        "openai": "ready",
        "anthropic": "ready",
        "local": "idle",
    }


async def test_a_call_leaves_nothing_to_the_collector(spawn: Spawn) -> None:
    """The objects of a call are freed with it, without a collection."""
    gateway = spawn()
    gc.collect()
    gc.disable()
    try:
        await ask(gateway)
        kinds = {admission.Admission, attempt.Attempt, completion.CompletionRun, drain.DeferredClose, fallback.Fallback}
        assert not [one for one in gc.get_objects() if type(one) in kinds]
    finally:
        gc.enable()


async def test_progress_is_told_as_it_comes(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """The waiting time comes with the first content only, and the attempt at the end."""
    begin, go_on = asyncio.Event(), asyncio.Event()
    probe = system.probe(Progress)
    upstream.script(Reply(steps=(Wait(begin), Say("Hel"), Wait(go_on), Say("lo"), End())))
    waiting = asyncio.ensure_future(ask(spawn(), sink=probe.ref))
    await upstream.called()
    await system.advance(2)
    begin.set()
    first = await probe.expect(Progress)
    assert (first.events, first.waited, first.attempt) == ((Delta(text="Hel"),), 2.0, None)
    await system.advance(1)
    go_on.set()
    assert (await waiting).text == "Hello"
    told = [first, *probe.received]
    assert [event for progress in told for event in progress.events] == [Delta(text="Hel"), Delta(text="lo")]
    assert [progress.waited for progress in told[1:]] == [0.0] * (len(told) - 1)
    attempts = [progress.attempt for progress in told if progress.attempt is not None]
    assert [(attempt.provider, attempt.model, attempt.error, attempt.duration_ms) for attempt in attempts] == [
        ("openai", "gpt-4o-mini", "", 3000.0)
    ]


@pytest.mark.parametrize("model", ["default", "anthropic/claude-haiku-4-5"])
async def test_usage_and_cost(spawn: Spawn, upstream: ScriptedUpstream, model: str) -> None:
    """Tokens by class, as the upstream reported them, and their price."""
    usage = Usage(input_tokens=1000, output_tokens=100, cached_input_tokens=400)
    upstream.script(say("Hi", usage=usage))
    answer = await ask(spawn(), model=model)
    assert answer.usage == usage
    assert isinstance(answer.cost, Decimal)
    assert answer.cost > 0


async def test_tools_and_options_go_to_the_upstream(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """They are sent unchanged; tool calls come back whole."""
    upstream.script(
        Reply(
            steps=(
                Call(id="c1", name="look", arguments='{"a"'),
                Call(arguments=":1}"),
                End(finish_reason="tool_calls"),
            )
        )
    )
    answer = await ask(
        spawn(), temperature=0.5, max_tokens=9, seed=1, stop=("END",), extra={"user": "u"}, dialect="openai"
    )
    assert answer.tool_calls == (ToolCall("c1", "look", '{"a":1}'),)
    assert answer.finish_reason == "tool_calls"
    body = upstream.received[0].body
    assert (body["temperature"], body["max_tokens"], body["seed"], body["stop"], body["user"]) == (
        0.5,
        9,
        1,
        ["END"],
        "u",
    )


SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}


async def test_an_answer_is_validated(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """With a schema the result is the JSON, and the upstream received the schema."""
    upstream.script(say('{"ok": ', "true}"))
    answer = await ask(spawn(), schema=SCHEMA)
    assert json.loads(bytes(answer.result or b"")) == {"ok": True}
    assert upstream.received[0].body["response_format"]["json_schema"]["schema"] == {
        **SCHEMA,
        "additionalProperties": False,
    }


async def test_a_mismatch_keeps_the_raw_text(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """The failure has the model's text and the errors; the call itself was good."""
    upstream.script(say('{"ok": "maybe"}'))
    with pytest.raises(SchemaMismatch) as caught:
        await ask(spawn(), schema=SCHEMA)
    assert caught.value.raw == '{"ok": "maybe"}'
    assert caught.value.errors[0].path == "$.ok"
    assert upstream.calls == 1


async def test_a_bad_schema_costs_no_call(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """A wrong schema is refused before any call."""
    with pytest.raises(InvalidRequest) as caught:
        await ask(spawn(), schema={"type": "banana"})
    assert caught.value.code == "invalid_schema"
    assert upstream.calls == 0


async def test_concurrency_is_bounded(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """No more calls than allowed are under way; the status shows the waiting ones."""
    gate = asyncio.Event()
    upstream.default = Reply(steps=(Wait(gate), Say("Hi"), End()))
    gateway = spawn(concurrency=2, queue=3)
    waiting = [asyncio.ensure_future(ask(gateway)) for _ in range(5)]
    await upstream.called(2)
    await system.settle()
    status = (await gateway.ask(GetProviders(), timeout=5))[0]
    assert (status.in_flight, status.queued, upstream.calls) == (2, 3, 2)
    gate.set()
    assert [answer.text for answer in await asyncio.gather(*waiting)] == ["Hi"] * 5


async def test_the_mailbox_is_never_held_up(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """A call that waits for the network does not delay other messages."""
    upstream.script(Reply(before=(Stall(),)))
    gateway = spawn()
    waiting = asyncio.ensure_future(ask(gateway))
    await upstream.called()
    assert await gateway.ask(ListModels(), timeout=5)
    waiting.cancel()
    await upstream.abandoned()


def spans_of(exporter: InMemorySpanExporter) -> list[Mapping[str, Any]]:
    """Return the attributes of the calls' spans, in order."""
    return [
        dict(span.attributes or {}) | {"name": span.name}
        for span in exporter.get_finished_spans()
        if span.kind is SpanKind.CLIENT
    ]


async def test_each_attempt_is_a_span(upstream: ScriptedUpstream) -> None:
    """Names and tokens follow the conventions; the upstream gets the trace."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    config = GatewayConfig(llm_provider="openai", default_model="m", openai_base_url=upstream.openai_url)
    upstream.script(refuse(503, retry_after="0"), say("Hi"))
    async with TestSystem(tracer_provider=provider) as system:
        gateway = system.spawn(build_gateway(config), name="llm-gateway")
        probe = system.probe(Progress)
        waiting = asyncio.ensure_future(ask(gateway, sink=probe.ref, max_tokens=5))
        await probe.expect(Progress)
        await system.advance(0)
        await waiting
    failed, good = spans_of(exporter)
    assert (failed["name"], failed[spans.ERROR_TYPE], failed[spans.ATTEMPT]) == ("chat m", "provider_unavailable", 1)
    assert spans.ERROR_TYPE not in good
    assert good[spans.GEN_AI_OPERATION] == "chat"
    assert good[spans.GEN_AI_PROVIDER] == "openai"
    assert (good[spans.GEN_AI_INPUT_TOKENS], good[spans.GEN_AI_OUTPUT_TOKENS]) == (7, 3)
    assert good[spans.GEN_AI_FINISH_REASONS] == ("stop",)
    assert good[spans.GEN_AI_MAX_TOKENS] == 5
    assert good[spans.REQUEST_ID] == "req_1"
    sent = [span.get_span_context() for span in exporter.get_finished_spans() if span.kind is SpanKind.CLIENT]
    assert [call.headers["traceparent"].split("-")[2] for call in upstream.received] == [
        f"{context.span_id:016x}" for context in sent if context is not None
    ]


async def test_without_tracing_nothing_is_sent_on(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """No trace, no header."""
    await ask(spawn())
    assert "traceparent" not in upstream.received[0].headers


async def test_the_end_of_the_system_closes_the_sockets(upstream: ScriptedUpstream) -> None:
    """Nothing of a gateway outlives its system."""
    upstream.script(Reply(steps=(Say("Hel"), Stall())))
    config = GatewayConfig(llm_provider="openai", openai_base_url=upstream.openai_url)
    async with TestSystem(allow_dead_letters=True) as system:
        gateway = system.spawn(build_gateway(config), name="llm-gateway")
        waiting = asyncio.ensure_future(ask(gateway))
        await upstream.called()
    await asyncio.wait((waiting,))
    assert waiting.exception() is not None
    await upstream.abandoned()


@pytest.mark.parametrize("default", ["nobody/model", "model", "openai/"])
def test_a_default_that_nobody_serves_is_a_mistake(default: str) -> None:
    """The error names the providers."""
    with pytest.raises(ConfigurationError, match="providers are: "):
        LLMGateway({}, default_model=default)
