"""The official SDK against the service: its typed models accept every response, with either vendor's upstream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, Literal, TypeVar

import anthropic
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import Message, MessageParam, ToolParam
from openai import AsyncOpenAI
from pydantic import BaseModel

from actors.testing import Call, Cut, End, Reply, Say, ScriptedUpstream, Think, Wait, say
from protocol.errors import Overloaded, ProviderError, RequestCancelled, TidegateError
from service.config.settings import load_settings
from service.container import open_container
from service.server.server import listening
from tests.local_service import local_service, needs_local_model
from tests.service.bench import Service, open_service

MESSAGES: list[MessageParam] = [{"role": "user", "content": "hi"}]
TOOLS: list[ToolParam] = [{"name": "look", "description": "looks", "input_schema": {"type": "object"}}]
LOOKING = Reply(
    steps=(
        Say("let me see"),
        Call(index=0, id="c1", name="look", arguments='{"at"'),
        Call(index=0, arguments=": 1}"),
        Call(index=1, id="c2", name="look", arguments='{"at": 2}'),
        End(finish_reason="tool_calls"),
    )
)
MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5"}
DIALECTS = tuple(MODELS)
T = TypeVar("T")


class Gate(BaseModel):
    """The schema of a structured answer."""

    isFoodRelated: bool  # noqa: N815 - the wire's own name
    confidence: float


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    """The dialect of the upstream."""
    return str(request.param)


@pytest.fixture
async def address(upstream: ScriptedUpstream, dialect: str) -> AsyncIterator[str]:
    """The address of a service whose only provider is the scripted upstream, in its dialect."""
    url = {"openai": upstream.openai_url, "anthropic": upstream.anthropic_url}[dialect]
    keys = {f"{dialect}_api_key": "upstream-key", f"{dialect}_base_url": url}
    settings = load_settings(None, port=0, default_llm_model=MODELS[dialect], **keys)
    async with open_container(settings) as container, listening(container) as (_runner, found):
        container.lifecycle.serve()
        yield found


@pytest.fixture
async def sdk(address: str) -> AsyncIterator[AsyncAnthropic]:
    """The SDK, pointed at the service."""
    async with AsyncAnthropic(base_url=address, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with a gateway that the test scripts, and with a key."""
    async with open_service(api_keys="a-secret-of-the-tests", max_body_bytes=1_048_576) as running:
        yield running


@pytest.fixture
async def hand(service: Service) -> AsyncIterator[AsyncAnthropic]:
    """The SDK, pointed at that service."""
    async with AsyncAnthropic(base_url=service.base, api_key="a-secret-of-the-tests", max_retries=0) as client:
        yield client


def create(sdk: AsyncAnthropic, **fields: Any) -> Awaitable[Message]:  # noqa: ANN401
    """Create a message."""
    asked: Awaitable[Message] = sdk.messages.create(
        **{"model": "default", "max_tokens": 9, "messages": MESSAGES, **fields}
    )
    return asked


async def streamed(sdk: AsyncAnthropic, **fields: Any) -> tuple[Message, str]:  # noqa: ANN401
    """Stream a message; returns the SDK's message and the streamed text."""
    async with sdk.messages.stream(model="default", max_tokens=9, messages=MESSAGES, **fields) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        return await stream.get_final_message(), text


async def test_a_whole_answer(upstream: ScriptedUpstream, sdk: AsyncAnthropic) -> None:
    """Message, usage, stop reason and ids, with either upstream, which gets the client's parameters."""
    upstream.script(say("Hel", "lo"))
    message = await create(sdk, system="be brief", stop_sequences=["END"], extra_body={"temperature": 0.5})
    assert Message.model_validate(message.model_dump(), strict=True) == message
    assert [block.text for block in message.content if block.type == "text"] == ["Hello"]
    assert (message.stop_reason, message.model) == ("end_turn", "default")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 3)
    assert message.id == f"msg_{message._request_id}"
    body = upstream.received[0].body
    assert (body["temperature"], body["max_tokens"]) == (0.5, 9)
    assert "be brief" in (body.get("system"), body["messages"][0]["content"])


async def test_a_stream(upstream: ScriptedUpstream, sdk: AsyncAnthropic) -> None:
    """The SDK's accumulator assembles the message; the usage is at its end."""
    upstream.script(say("Hé", "llo"))
    message, text = await streamed(sdk)
    assert (text, message.stop_reason) == ("Héllo", "end_turn")
    assert [block.text for block in message.content if block.type == "text"] == ["Héllo"]
    assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 3)
    assert message.id.startswith("msg_req_")


async def test_tools_whole_and_streamed(upstream: ScriptedUpstream, sdk: AsyncAnthropic) -> None:
    """Several calls with their arguments, and their results on the way back."""
    upstream.script(LOOKING, LOOKING, say("a cat"))
    whole = await create(sdk, tools=TOOLS, tool_choice={"type": "any"})
    message, _ = await streamed(sdk, tools=TOOLS)
    for found in (whole, message):
        assert found.stop_reason == "tool_use"
        calls = [(block.id, block.name, block.input) for block in found.content if block.type == "tool_use"]
        assert calls == [("c1", "look", {"at": 1}), ("c2", "look", {"at": 2})]
    results: Any = [{"type": "tool_result", "tool_use_id": name, "content": "a cat"} for name in ("c1", "c2")]
    turns: list[MessageParam] = [*MESSAGES, message.to_param(), {"role": "user", "content": results}]
    answer = await create(sdk, tools=TOOLS, messages=turns)
    assert [block.text for block in answer.content if block.type == "text"] == ["a cat"]
    first, last = upstream.received[0].body, upstream.received[-1].body
    assert first["tool_choice"] in ("required", {"type": "any"})
    assert [turn["role"] for turn in last["messages"]][:2] == ["user", "assistant"]
    assert str(last["messages"]).count("a cat") == 2


async def test_a_turn_with_thoughts_is_continued(upstream: ScriptedUpstream, sdk: AsyncAnthropic, dialect: str) -> None:
    """In JSON and streams the thinking is before the rest; its own vendor gets it back unchanged.

    Thinking without a signature is another vendor's reasoning, and goes back to upstreams of its dialect.
    """
    thoughts = (Think("h"), Think("m", signature="s"), Think(signature="x", redacted=True))
    steps = (*thoughts, Call(id="c1", name="look", arguments="{}"), End(finish_reason="tool_calls"))
    upstream.script(Reply(steps=steps), Reply(steps=steps), say("a cat"))
    whole = await create(sdk, tools=TOOLS)
    message, _ = await streamed(sdk, tools=TOOLS)
    assert message.to_param() == whole.to_param()
    (thought, *_) = message.content
    assert thought.type == "thinking"
    assert thought.thinking == "hm"
    results: Any = [{"type": "tool_result", "tool_use_id": "c1", "content": "a cat"}]
    turns: list[MessageParam] = [*MESSAGES, message.to_param(), {"role": "user", "content": results}]
    await create(sdk, tools=TOOLS, messages=turns)
    turn = upstream.received[-1].body["messages"][1]
    if dialect == "anthropic":
        assert [block["type"] for block in turn["content"]] == ["thinking", "redacted_thinking", "tool_use"]
        assert turn["content"][:2] == [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "x"},
        ]
    else:
        assert (turn["reasoning_content"], turn["content"]) == ("hm", None)


async def test_the_text_at_which_a_model_stopped(upstream: ScriptedUpstream, sdk: AsyncAnthropic, dialect: str) -> None:
    """Anthropic's upstream reports the stop sequence; OpenAI's reports only the end."""
    end = Reply(steps=(Say("a"), End(stop_sequence="###")))
    upstream.script(end, end)
    whole = await create(sdk, stop_sequences=["###"])
    message, _ = await streamed(sdk, stop_sequences=["###"])
    for found in (whole, message):
        expected = ("stop_sequence", "###") if dialect == "anthropic" else ("end_turn", None)
        assert (found.stop_reason, found.stop_sequence) == expected


async def test_a_structured_answer(upstream: ScriptedUpstream, sdk: AsyncAnthropic) -> None:
    """The SDK turns a model class into a schema, and our answer back into the model."""
    upstream.script(say('{"isFoodRelated": true,', ' "confidence": 0.5}'))
    message = await sdk.messages.parse(model="default", max_tokens=9, messages=MESSAGES, output_format=Gate)
    assert message.parsed_output == Gate(isFoodRelated=True, confidence=0.5)
    body = upstream.received[0].body
    form = body["output_config"]["format"] if "output_config" in body else body["response_format"]["json_schema"]
    assert set(form["schema"]["properties"]) == {"isFoodRelated", "confidence"}


async def test_images_reach_the_upstream(upstream: ScriptedUpstream, sdk: AsyncAnthropic) -> None:
    """Each upstream gets them in its own dialect."""
    source = {"type": "base64", "media_type": "image/png", "data": "AA=="}
    content: Any = [{"type": "text", "text": "what is this"}, {"type": "image", "source": source}]
    await create(sdk, messages=[{"role": "user", "content": content}])
    (turn,) = upstream.received[0].body["messages"]
    assert turn["content"][1] in (
        {"type": "image", "source": source},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    )


async def test_what_we_do_not_know_is_for_an_upstream_of_the_dialect(
    upstream: ScriptedUpstream, sdk: AsyncAnthropic, dialect: str
) -> None:
    """A field that only one vendor has reaches only that vendor."""
    await create(sdk, metadata={"user_id": "u"}, extra_body={"top_k": 3})
    sent = {"top_k", "metadata"} & upstream.received[0].body.keys()
    assert sent == ({"top_k", "metadata"} if dialect == "anthropic" else set())


async def test_features_in_preview_reach_an_upstream_of_the_dialect(
    upstream: ScriptedUpstream, sdk: AsyncAnthropic, dialect: str
) -> None:
    """The header is forwarded if it is valid; another value is refused."""
    await create(sdk, extra_headers={"anthropic-beta": "a-2026-01-01,b"})
    assert upstream.received[0].headers.get("anthropic-beta") == ("a-2026-01-01,b" if dialect == "anthropic" else None)
    with pytest.raises(anthropic.BadRequestError, match="anthropic-beta"):
        await create(sdk, extra_headers={"anthropic-beta": "a b"})


async def test_a_file_of_one_vendor_s_is_for_it(upstream: ScriptedUpstream, sdk: AsyncAnthropic, dialect: str) -> None:
    """What an upstream can't express is a bad request that names it, without a call."""
    part: Any = {"type": "document", "source": {"type": "file", "file_id": "f1"}}
    asked = create(sdk, messages=[{"role": "user", "content": [part]}])
    if dialect == "anthropic":
        await asked
        assert upstream.received[0].body["messages"][0]["content"] == [part]
        return
    with pytest.raises(anthropic.BadRequestError, match="document"):
        await asked
    assert upstream.calls == 0


async def test_an_upstream_that_dies_in_mid_stream(upstream: ScriptedUpstream, sdk: AsyncAnthropic) -> None:
    """The content so far is yielded, then the SDK raises; it is never a clean end."""
    gate = asyncio.Event()
    upstream.script(Reply(steps=(Say("so far"), Wait(gate), Cut())))
    async with sdk.messages.stream(model="default", max_tokens=9, messages=MESSAGES) as stream:
        texts = aiter(stream.text_stream)
        assert await anext(texts) == "so far"
        gate.set()
        with pytest.raises(anthropic.APIStatusError) as caught:
            await anext(texts)
    assert caught.value.error_code == "provider_stream_broken"
    assert caught.value.type == "api_error"


async def test_an_openai_client_on_either_upstream(upstream: ScriptedUpstream, address: str) -> None:
    """Text, tools and structured output, in JSON and streams, are the same for the other vendor's client."""
    answer = say('{"isFoodRelated": true,', ' "confidence": 0.5}')
    upstream.script(say("Hel", "lo"), say("Hel", "lo"), LOOKING, LOOKING, answer)
    messages: Any = MESSAGES
    tools: Any = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    async with AsyncOpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0) as sdk:
        for asked in ({}, {"tools": tools}):
            whole = await sdk.chat.completions.create(model="default", messages=messages, **asked)
            async with sdk.chat.completions.stream(model="default", messages=messages, **asked) as stream:
                final = await stream.get_final_completion()
            for found in (whole, final):
                assert found.choices[0].message.content == ("let me see" if asked else "Hello")
                assert found.choices[0].finish_reason == ("tool_calls" if asked else "stop")
                calls = [call.function.arguments for call in found.choices[0].message.tool_calls or ()]
                assert calls == (['{"at": 1}', '{"at": 2}'] if asked else [])
        parsed = await sdk.chat.completions.parse(model="default", messages=messages, response_format=Gate)
        assert parsed.choices[0].message.parsed == Gate(isFoodRelated=True, confidence=0.5)


async def test_the_tokens_probabilities(upstream: ScriptedUpstream, address: str, dialect: str) -> None:
    """In JSON and streams an OpenAI client gets its upstream's log probabilities."""
    tokens: list[dict[str, Any]] = [
        {"token": text, "logprob": -0.5, "bytes": None, "top_logprobs": []} for text in ("Hel", "lo", "!")
    ]
    answer = Reply(steps=(Say("Hel", (tokens[0],)), Say("lo!", (tokens[1], tokens[2])), End()))
    upstream.script(answer, answer)
    messages: Any = MESSAGES
    async with AsyncOpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0) as sdk:
        whole = await sdk.chat.completions.create(model="default", messages=messages, logprobs=True)
        async with sdk.chat.completions.stream(model="default", messages=messages, logprobs=True) as stream:
            final = await stream.get_final_completion()
    for found in (whole, final):
        likely = found.choices[0].logprobs
        assert found.choices[0].message.content == "Hello!"
        if dialect == "openai":
            assert upstream.received[0].body["logprobs"] is True
            assert likely is not None
            assert [token.token for token in likely.content or ()] == ["Hel", "lo", "!"]
        else:
            assert likely is None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failure", "raised", "status"),
    [
        (ProviderError(code="provider_rejected"), anthropic.BadRequestError, 400),
        (ProviderError(code="provider_rate_limited"), anthropic.RateLimitError, 429),
        (ProviderError(code="provider_error"), anthropic.InternalServerError, 502),
        (ProviderError(code="provider_unavailable"), anthropic.ServiceUnavailableError, 503),
        (ProviderError(code="provider_timeout"), anthropic.DeadlineExceededError, 504),
        (Overloaded(code="provider_overloaded", retry_after=1), anthropic.OverloadedError, 529),
        (RequestCancelled(), anthropic.ConflictError, 409),
    ],
)
async def test_a_failure_is_the_sdk_s_own_exception(
    service: Service,
    hand: AsyncAnthropic,
    failure: TidegateError,
    raised: type[anthropic.APIStatusError],
    status: int,
    stream: bool,
) -> None:
    """Status, code and id are in the SDK's exception, for JSON and streams."""
    waiting = asyncio.ensure_future(create(hand, model="m", stream=stream))
    call = await service.call()
    await call.fail(failure)
    with pytest.raises(raised) as caught:
        await waiting
    assert (caught.value.error_code, caught.value.status_code) == (failure.code, status)
    assert (caught.value.request_id, caught.value.api_message) == (call.complete.request_id, failure.detail)


async def test_refusals_are_the_sdk_s_own_exceptions(service: Service, hand: AsyncAnthropic) -> None:
    """An unknown model, a bad value, a wrong key, a body too large."""
    with pytest.raises(anthropic.NotFoundError):
        await create(hand, model="unknown")
    with pytest.raises(anthropic.BadRequestError) as bad:
        await create(hand, model="m", extra_body={"temperature": 7})
    assert "$.temperature" in str(bad.value.api_message)
    with pytest.raises(anthropic.AuthenticationError):
        await create(hand.with_options(api_key="wrong"), model="m")
    with pytest.raises(anthropic.RequestTooLargeError):
        await create(hand, model="m", system="x" * 1_100_000)


@pytest.mark.parametrize("credential", ["api_key", "auth_token"])
async def test_tokens_are_counted_with_either_credential(
    service: Service, credential: Literal["api_key", "auth_token"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`x-api-key` and a bearer token are the same key."""
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
    key: Any = {credential: "a-secret-of-the-tests"}
    async with AsyncAnthropic(base_url=service.base, max_retries=0, **key) as sdk:
        counted = await sdk.messages.count_tokens(model="m", messages=MESSAGES, system="x" * 38, tools=TOOLS)
    assert 10 < counted.input_tokens < 50


async def test_the_models_are_typed(hand: AsyncAnthropic) -> None:
    """The list is one page of the SDK's models."""
    page = await hand.models.list()
    found = [(model.id, model.display_name, model.type, model.lifecycle) for model in page.data]
    assert found[:2] == [("default", "default", "model", "active"), ("m", "m", "model", "active")]
    assert all(model.created_at.tzinfo for model in page.data)
    assert [model.id async for model in page] == [model.id for model in page.data]
    assert (page.first_id, page.last_id, page.has_more) == (page.data[0].id, page.data[-1].id, False)


async def test_a_model_is_retrieved(hand: AsyncAnthropic) -> None:
    """A model by its name; an unknown one raises the SDK's own exception."""
    model = await hand.models.retrieve("m")
    assert (model.id, model.type) == ("m", "model")
    with pytest.raises(anthropic.NotFoundError):
        await hand.models.retrieve("unknown")


@needs_local_model
def test_the_local_model_answers(root: Path, tmp_path: Path) -> None:
    """Without any key a real model answers Anthropic's client: JSON, stream and token count."""
    with local_service(root, tmp_path) as address, anthropic.Anthropic(base_url=address, api_key="any") as sdk:
        asked: Any = {"model": "default", "max_tokens": 12, "messages": [{"role": "user", "content": "Say hello."}]}
        same: Any = {"extra_body": {"temperature": 0}}
        whole = sdk.messages.create(**asked, **same)
        with sdk.messages.stream(**asked, **same, extra_headers={"x-tidegate-dedupe": "off"}) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        assert [bool(block.text) for block in whole.content if block.type == "text"] == [bool(text)] == [True]
        for message in (whole, final):
            assert message.usage.output_tokens > 0
            assert message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0) > 0
        assert sdk.messages.count_tokens(model="default", messages=asked["messages"]).input_tokens == 3
