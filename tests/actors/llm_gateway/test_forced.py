"""Structured output as the arguments of a tool, for upstreams that have none."""

import json
from collections.abc import Callable
from typing import Any, Literal

import pytest

from actors.llm_gateway.gateway import LLMGateway
from actors.llm_gateway.provider import ProviderDeadlines
from actors.llm_gateway.providers.forced import ASIDE, ForcedAnswer, ForcedProvider, forced
from actors.runtime.testing import TestSystem
from actors.testing import Call, Cut, End, Reply, Say, ScriptedUpstream, Think
from actors.wire.client import WireClient
from protocol.errors import ProviderError, SchemaMismatch
from protocol.events import AttemptFailed, Content, Delta, ReasoningDelta, ToolCallDelta
from protocol.gateway import Complete, Completion, Progress
from protocol.llm import ChatMessage, ChatRequest, Tool, ToolCall
from protocol.openai.reader import ChatReader
from protocol.routes import ProviderSpec, Routes
from protocol.upstream import Deltas
from tests.actors.llm_gateway.conftest import Gateway
from tests.contracts.conformance.adapters import ADAPTERS, Adapter

Dialect = Literal["openai", "anthropic"]

SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
LOOK = Tool(name="look", parameters={"type": "object"})
CALLED = End(finish_reason="tool_calls")
PIECES = (Call(id="c1", name="answer"), Call(arguments='{"ok": '), Call(arguments="true}"))


class Told:
    """A sink that keeps what it receives."""

    def __init__(self) -> None:
        self.events: list[Content] = []

    async def tell(self, message: Progress) -> None:
        self.events += message.events


@pytest.fixture(params=["openai", "anthropic"])
def dialect(request: pytest.FixtureRequest) -> str:
    """The upstream's dialect."""
    return str(request.param)


@pytest.fixture
def gateway(spawn: Callable[..., Gateway], upstream: ScriptedUpstream, dialect: Dialect) -> Gateway:
    """A gateway whose provider `plain` has tools, but no structured output."""
    url = {"openai": upstream.openai_url, "anthropic": upstream.anthropic_url}[dialect]
    spec = ProviderSpec(kind=dialect, base_url=url, structured="tool")
    return spawn(routes=Routes(providers={"plain": spec}))


async def ask(gateway: Gateway, told: Told | None = None, *, repair: bool = False, **fields: Any) -> Completion:  # noqa: ANN401
    """Send a request with the schema."""
    hi = (ChatMessage(role="user", content="hi"),)
    request = ChatRequest(**{"model": "plain/m", "messages": hi, "schema": SCHEMA, **fields})
    return await gateway.ask(Complete(request=request, sink=told, repair=repair), timeout=5)


async def test_the_tool_s_arguments_are_the_answer(
    gateway: Gateway, upstream: ScriptedUpstream, dialect: Dialect
) -> None:
    """They are streamed as text and validated, and are no tool call; text beside them is dropped."""
    told = Told()
    upstream.script(Reply(steps=(Think("hm"), Say("Here you are:"), *PIECES, CALLED)))
    answer = await ask(gateway, told)
    assert bytes(answer.result or b"") == b'{"ok": true}'
    assert (answer.text, answer.tool_calls, answer.finish_reason) == ('{"ok": true}', (), "stop")
    assert told.events == [ReasoningDelta(text="hm"), Delta(text='{"ok": ', part=1), Delta(text="true}", part=1)]
    body = upstream.received[0].body
    assert not {"response_format", "output_config"} & body.keys()
    (tool,) = body["tools"]
    if dialect == "openai":
        assert (tool["function"]["name"], tool["function"]["parameters"]) == ("answer", SCHEMA)
        assert body["tool_choice"] == {"type": "function", "function": {"name": "answer"}}
    else:
        assert (tool["name"], tool["input_schema"]) == ("answer", SCHEMA)
        assert body["tool_choice"] == {"type": "tool", "name": "answer"}


async def test_the_caller_s_own_tools_may_be_called_first(
    gateway: Gateway, upstream: ScriptedUpstream, dialect: Dialect
) -> None:
    """The model has to call one of them or the answer's; text before a call of theirs is kept."""
    told = Told()
    upstream.script(Reply(steps=(Say("let me see"), Call(id="c1", name="look", arguments="{}"), CALLED)))
    answer = await ask(gateway, told, tools=(LOOK,))
    assert (answer.text, answer.finish_reason) == ("let me see", "tool_calls")
    assert answer.tool_calls == (ToolCall("c1", "look", "{}"),)
    assert told.events[0] == Delta(text="let me see")
    assert upstream.received[0].body["tool_choice"] == ("required" if dialect == "openai" else {"type": "any"})


@pytest.mark.parametrize("name", ["functions.answer", "default_api:answer", "Answer"])
async def test_the_tool_may_be_called_by_a_longer_name(gateway: Gateway, upstream: ScriptedUpstream, name: str) -> None:
    """With a namespace before it, or in other letters; the caller never sees a call of it."""
    upstream.script(Reply(steps=(Call(id="c1", name=name, arguments='{"ok": true}'), CALLED)))
    answer = await ask(gateway)
    assert (answer.text, answer.tool_calls, answer.finish_reason) == ('{"ok": true}', (), "stop")


async def test_of_several_calls_of_the_tool_the_first_is_the_answer(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """The others are dropped, whatever they say."""
    again = (Call(index=1, id="c2", name="answer", arguments='{"ok": false}'), CALLED)
    upstream.script(Reply(steps=(Call(id="c1", name="answer", arguments='{"ok": true}'), *again)))
    answer = await ask(gateway)
    assert (answer.text, answer.tool_calls) == ('{"ok": true}', ())


async def test_a_call_of_an_unknown_tool_is_no_answer(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """It does not match the schema."""
    upstream.script(Reply(steps=(Call(id="c1", name="look", arguments='{"ok": true}'), CALLED)))
    with pytest.raises(SchemaMismatch) as caught:
        await ask(gateway)
    assert "look" in caught.value.raw


async def test_an_answer_without_the_tool_is_an_answer(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """An upstream that ignores the tool choice may still have answered; also one without an end marker."""
    for marker in (True, False):
        upstream.script(Reply(steps=(Say('{"ok": '), Say("true}"), End(marker=marker))))
        assert bytes((await ask(gateway)).result or b"") == b'{"ok": true}'


async def test_a_wrong_answer_is_repaired(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """By the same tool, with the wrong answer in the conversation."""
    told = Told()
    wrong = Reply(steps=(Call(id="c1", name="answer", arguments='{"ok": 1}'), CALLED))
    upstream.script(wrong, Reply(steps=(*PIECES, CALLED)))
    answer = await ask(gateway, told, repair=True)
    assert answer.text == '{"ok": true}'
    assert upstream.received[1].body["messages"][1]["content"] == '{"ok": 1}'
    assert upstream.received[1].body["tools"] == upstream.received[0].body["tools"]
    upstream.script(wrong)
    with pytest.raises(SchemaMismatch) as caught:
        await ask(gateway)
    assert caught.value.raw == '{"ok": 1}'


async def test_an_answer_that_breaks_off_is_a_failure(
    gateway: Gateway, upstream: ScriptedUpstream, system: TestSystem
) -> None:
    """After content, as for any other answer, with a boundary; before it the call is repeated."""
    told = Told()
    upstream.script(Reply(steps=(*PIECES[:2], Cut())))
    with pytest.raises(ProviderError) as caught:
        await ask(gateway, told)
    assert caught.value.code == "provider_stream_broken"
    assert isinstance(told.events[-1], AttemptFailed)
    assert upstream.calls == 1
    assert upstream.busy == 0
    assert system.clock.time() == 0


async def test_other_requests_are_asked_as_they_are(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """A request without a schema is not changed."""
    answer = await ask(gateway, schema=None)
    assert answer.text == "Hello world"
    assert "tools" not in upstream.received[0].body


@pytest.mark.parametrize(
    ("fields", "tools", "choice"),
    [
        ({}, ["answer"], "answer"),
        ({"tools": (LOOK,)}, ["look", "answer"], "required"),
        ({"tools": (LOOK,), "tool_choice": "auto"}, ["look", "answer"], "required"),
        ({"tools": (LOOK,), "tool_choice": "none"}, ["answer"], "answer"),
        ({"tools": (Tool(name="answer"), Tool(name="answer_"))}, ["answer", "answer_", "answer__"], "required"),
        ({"tools": (Tool(name="functions.Answer"),)}, ["functions.Answer", "answer_"], "required"),
        ({"tools": (LOOK,), "tool_choice": "look"}, ["look"], "look"),
        ({"schema": {"type": "array"}}, None, ""),
        ({"schema": None}, None, ""),
    ],
)
def test_what_is_forced(fields: dict[str, Any], tools: list[str] | None, choice: str) -> None:
    """The answer's tool is added to the caller's; a forced tool stays forced, a schema of a list is left."""
    messages = (ChatMessage(role="user", content="hi"),)
    extra = {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}, "user": "u"}
    request = ChatRequest(**{"model": "m", "messages": messages, "schema": SCHEMA, "extra": extra, **fields})
    asked = forced(request)
    if tools is None:
        assert asked is None
    else:
        assert asked is not None
        assert ([tool.name for tool in asked[0].tools], asked[0].tool_choice) == (tools, choice)
        name = "" if tools == ["look"] else tools[-1]
        assert (asked[0].schema, asked[0].extra, asked[1]) == (None, {"user": "u"}, name)


def test_only_a_short_aside_is_held_back() -> None:
    """Longer text is the answer, and is not held back; a second call of the tool adds nothing."""
    answer, pieces = ForcedAnswer(ChatReader(), "answer"), Deltas()
    for text in ("x" * ASIDE, "y", "z"):
        answer.feed(json.dumps({"choices": [{"delta": {"content": text}}]}).encode(), pieces)
        assert len(pieces) == {"x": 0, "y": 2, "z": 3}[text[0]]
    assert answer.rest() == []
    answer = ForcedAnswer(ChatReader(), "answer")
    called = answer.translate([ToolCallDelta(index=0, id="a", name="answer", arguments="{}"), Delta(text="there")])
    assert called == [Delta(text="{}")]
    assert answer.translate([ToolCallDelta(index=1, id="b", name="look")]) == [
        ToolCallDelta(index=1, id="b", name="look")
    ]


async def test_a_tool_that_the_caller_forces_is_what_is_called(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Then there is no answer of the schema."""
    upstream.script(Reply(steps=(Call(id="c1", name="look", arguments="{}"), CALLED)))
    answer = await ask(gateway, tools=(LOOK,), tool_choice="look")
    assert answer.tool_calls == (ToolCall("c1", "look", "{}"),)
    assert not {"response_format", "output_config"} & upstream.received[0].body.keys()


@pytest.mark.parametrize("adapter", [a for a in ADAPTERS if a.name != "local"], ids=lambda adapter: adapter.name)
async def test_every_kind_of_provider_can_be_asked_so(
    adapter: Adapter, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """Whatever its framing and credentials; the local model has its grammar."""
    provider = ForcedProvider(adapter.make(WireClient(), upstream, ProviderDeadlines()))
    providers = {adapter.name: provider}
    gateway = system.spawn(lambda: LLMGateway(providers, default_model=adapter.target), name="llm-gateway")
    upstream.script(Reply(steps=(*PIECES, CALLED)))
    answer = await ask(gateway, model=adapter.target)
    assert (bytes(answer.result or b""), answer.tool_calls, answer.finish_reason) == (b'{"ok": true}', (), "stop")
    assert "answer" in str(upstream.received[0].body["tools"])
