"""Forms of a request: what an upstream is sent, and what after a refusal."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from actors.llm_gateway import RetryPolicy
from actors.testing import Call, End, Fault, Ping, Reply, Say, ScriptedUpstream, refuse, say
from protocol.errors import ProviderError, TidegateError
from protocol.gateway import Complete, Completion
from protocol.llm import ChatMessage, ChatRequest, Tool, ToolCall
from protocol.tool_names import tool_names
from tests.actors.llm_gateway.conftest import Gateway

Spawn = Callable[..., Gateway]

MESSAGES = (ChatMessage(role="system", content="be brief"), ChatMessage(role="user", content="hi"))
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
RECURSIVE = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
    "required": ["ok", "next"],
}
LIST = {"type": "array", "items": {"type": "integer"}}
CALLED = End(finish_reason="tool_calls")
NO_SCHEMA = Reply(status=400, body=b'{"error": {"message": "Invalid schema for response_format"}}')
AS_TOOL = Reply(steps=(Call(id="c1", name="answer", arguments='{"ok": true}'), CALLED))
LONG = "look_" * 30
REFUSED = Reply(status=400, body=b'{"error":{"message":"Invalid schema: this is not permitted"}}')
NO_EFFORT = Reply(status=400, body=b'{"error":{"message":"This model does not support the effort parameter"}}')


async def ask(gateway: Gateway, *, provider: str = "openai", **fields: Any) -> Completion:  # noqa: ANN401
    """Send a request."""
    request = ChatRequest(**{"model": f"{provider}/m", "messages": MESSAGES, **fields})
    return await gateway.ask(Complete(request=request), timeout=5)


async def failure(gateway: Gateway, **fields: Any) -> TidegateError:  # noqa: ANN401
    """The failure of a request."""
    with pytest.raises(TidegateError) as caught:
        await ask(gateway, **fields)
    return caught.value


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_a_refused_schema_is_followed_by_a_tool(spawn: Spawn, upstream: ScriptedUpstream, provider: str) -> None:
    """In the same attempt, and the arguments are the answer."""
    upstream.script(NO_SCHEMA, AS_TOOL)
    answer = await ask(spawn(), provider=provider, schema=SCHEMA)
    assert (bytes(answer.result or b""), answer.tool_calls, answer.finish_reason) == (b'{"ok": true}', (), "stop")
    first, second = (call.body for call in upstream.received)
    assert {"response_format", "output_config"} & first.keys()
    assert "tools" not in first
    assert not {"response_format", "output_config"} & second.keys()
    assert len(second["tools"]) == 1


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_a_schema_without_a_form_as_a_tool_is_prompted(
    spawn: Spawn, upstream: ScriptedUpstream, provider: str
) -> None:
    """A tool's arguments are an object; the prompt stands behind the system prompt, and the answer is validated."""
    gateway = spawn()
    upstream.script(NO_SCHEMA, say("[1, 2]"))
    answer = await ask(gateway, provider=provider, schema=LIST)
    assert bytes(answer.result or b"") == b"[1, 2]"
    body = upstream.received[1].body
    prompts = [message["content"] for message in body["messages"] if message["role"] == "system"]
    prompt = body["system"] if provider == "anthropic" else prompts[1]
    assert json.dumps(LIST).replace(" ", "") in prompt
    assert not {"response_format", "output_config", "tools"} & body.keys()
    upstream.script(NO_SCHEMA, say('["a"]'))
    assert (await failure(gateway, provider=provider, schema=LIST)).code == "schema_mismatch"


async def test_there_is_one_other_form(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """A second refusal is the end."""
    upstream.default = NO_SCHEMA
    assert (await failure(spawn(), schema=SCHEMA)).code == "provider_rejected"
    assert upstream.calls == 2


@pytest.mark.parametrize("status", [401, 429, 500])
async def test_another_failure_is_no_refusal_of_the_schema(
    spawn: Spawn, upstream: ScriptedUpstream, status: int
) -> None:
    """The request keeps its form."""
    upstream.default = refuse(status)
    await failure(spawn(retry=RetryPolicy(attempts=1)), schema=SCHEMA)
    assert all("response_format" in call.body for call in upstream.received)


NO_GRAMMAR = b'{"error": {"message": "Failed to parse grammar", "type": "server_error"}}'
IN_BAND = Fault(kind="invalid_request_error", message="Invalid schema for response_format 's'")


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize("refused", [Reply(status=500, body=NO_GRAMMAR), Reply(steps=(Ping(), IN_BAND))])
async def test_a_refusal_may_be_a_failure_of_the_engine_or_stand_in_the_answer(
    spawn: Spawn, upstream: ScriptedUpstream, provider: str, refused: Reply
) -> None:
    """The next form follows, with its own answer, usage and finish reason."""
    upstream.script(refused, AS_TOOL)
    answer = await ask(spawn(), provider=provider, schema=SCHEMA)
    assert (bytes(answer.result or b""), answer.finish_reason, answer.usage.output_tokens) == (
        b'{"ok": true}',
        "stop",
        3,
    )
    assert upstream.calls == 2


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_a_refusal_after_content_is_a_failure(spawn: Spawn, upstream: ScriptedUpstream, provider: str) -> None:
    """What was said is not taken back."""
    upstream.script(Reply(steps=(Say('{"ok"'), IN_BAND)))
    assert (await failure(spawn(), model=f"{provider}/m", schema=SCHEMA)).code == "provider_rejected"
    assert upstream.calls == 1


async def test_without_a_schema_there_is_one_form(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """A refusal is the end."""
    upstream.default = REFUSED
    assert (await failure(spawn(), tools=(Tool(name=LONG),))).code == "provider_rejected"
    assert upstream.calls == 1


async def test_anthropic_is_not_asked_for_what_it_does_not_take(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """A schema that contains itself is a tool at once; beside thinking, which allows no forced tool, a prompt."""
    gateway = spawn()
    arguments = '{"ok": true, "next": null}'
    upstream.script(Reply(steps=(Call(id="c1", name="answer", arguments=arguments), CALLED)))
    answer = await ask(gateway, provider="anthropic", schema=RECURSIVE)
    assert bytes(answer.result or b"") == arguments.encode()
    assert upstream.received[0].body["tools"][0]["input_schema"] == RECURSIVE
    upstream.script(say(arguments))
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    await ask(gateway, provider="anthropic", schema=RECURSIVE, extra=thinking, dialect="anthropic")
    assert not {"tools", "output_config"} & upstream.received[1].body.keys()


@pytest.mark.parametrize(("provider", "length"), [("openai", 64), ("anthropic", 128)])
@pytest.mark.parametrize("schema", [None, SCHEMA])
async def test_long_names_are_mapped_back(
    spawn: Spawn, upstream: ScriptedUpstream, provider: str, length: int, schema: dict[str, Any] | None
) -> None:
    """Also beside a schema that the upstream has refused."""
    tools = (Tool(name=LONG), Tool(name="short"))
    names = tool_names(ChatRequest(model="m", messages=(), tools=tools), length)
    assert names is not None
    sent = names.applied(ChatRequest(model="m", messages=(), tools=tools)).tools[0].name
    steps = (Call(id="c1", name=sent, arguments="{}"), Call(index=1, id="c2", name="short"), CALLED)
    upstream.script(*((NO_SCHEMA,) if schema else ()), Reply(steps=steps))
    answer = await ask(spawn(), provider=provider, tools=tools, schema=schema)
    assert answer.tool_calls == (ToolCall("c1", LONG), ToolCall("c2", "short"))
    assert sent in json.dumps(upstream.received[-1].body["tools"])


async def test_a_json_object_of_anthropics(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """The dialect has no such format: it is asked for by a prompt, and the answer is validated."""
    fields: dict[str, Any] = {"extra": {"response_format": {"type": "json_object"}}, "dialect": "openai"}
    upstream.script(
        say('{"a": ', "1}"), say("Sure: {}"), say("[1]"), Reply(steps=(Say('{"a'), End(finish_reason="length")))
    )
    gateway = spawn()
    answer = await ask(gateway, provider="anthropic", **fields)
    assert (answer.text, answer.result) == ('{"a": 1}', None)
    assert "JSON object" in upstream.received[0].body["system"]
    for _ in range(2):
        assert (await failure(gateway, provider="anthropic", **fields)).code == "schema_mismatch"
    cut = await ask(gateway, provider="anthropic", **fields)
    assert (cut.text, cut.finish_reason) == ('{"a', "length")
    upstream.script(say("no JSON"))
    assert (await ask(gateway, **fields)).text == "no JSON"
    assert upstream.received[-1].body["response_format"] == {"type": "json_object"}


async def test_an_effort_that_the_model_does_not_take(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """One that was said in the other dialect is left out after a refusal; the vendor's own is the caller's matter."""
    gateway = spawn()
    effort: dict[str, Any] = {"extra": {"reasoning_effort": "high"}, "dialect": "openai"}
    upstream.script(NO_EFFORT, say("hi"))
    assert (await ask(gateway, provider="anthropic", **effort)).text == "hi"
    first, second = (call.body for call in upstream.received)
    assert (first["output_config"], "output_config" in second) == ({"effort": "high"}, False)
    upstream.script(NO_EFFORT)
    with pytest.raises(ProviderError):
        await ask(gateway, **effort)
