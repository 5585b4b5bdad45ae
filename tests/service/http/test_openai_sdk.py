"""The official SDK against the service: its typed models accept every response."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from protocol.errors import Overloaded, ProviderError, TidegateError
from protocol.events import ReasoningDelta, ToolCallDelta
from protocol.llm import ToolCall
from tests.service.bench import Service, answered, open_service

MESSAGES: Any = [{"role": "user", "content": "hi"}]
TOOLS: Any = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


class Gate(BaseModel):
    """The schema of a structured answer."""

    isFoodRelated: bool  # noqa: N815 - the wire's own name
    confidence: float


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with a gateway that the test scripts."""
    async with open_service(api_keys="a-secret-of-the-tests", max_body_bytes=1_048_576) as running:
        yield running


@pytest.fixture
async def sdk(service: Service) -> AsyncIterator[AsyncOpenAI]:
    """The SDK, pointed at the service."""
    async with AsyncOpenAI(base_url=f"{service.base}/v1", api_key="a-secret-of-the-tests", max_retries=0) as client:
        yield client


async def test_a_whole_answer(service: Service, sdk: AsyncOpenAI) -> None:
    """Message, usage, finish reason and the request's id."""
    answer, call = await answered(
        service, sdk.chat.completions.create(model="m", messages=MESSAGES, temperature=0.3, user="u"), "Hel", "lo"
    )
    assert isinstance(answer, ChatCompletion)
    assert ChatCompletion.model_validate(answer.model_dump()) == answer
    assert answer.choices[0].message.content == "Hello"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 2)
    assert answer._request_id == call.complete.request_id
    assert call.complete.request.extra == {"user": "u"}


async def test_a_stream(service: Service, sdk: AsyncOpenAI) -> None:
    """Every chunk is a typed chunk; the last one has the usage."""
    stream, _ = await answered(
        service,
        sdk.chat.completions.create(model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}),
        "Hel",
        "lo",
    )
    async with stream:
        parts = [part async for part in stream]
    assert all(isinstance(part, ChatCompletionChunk) for part in parts)
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == "Hello"
    assert parts[0].choices[0].delta.role == "assistant"
    assert parts[-1].usage is not None
    assert parts[-1].usage.total_tokens == 5


async def test_tools_whole_and_streamed(service: Service, sdk: AsyncOpenAI) -> None:
    """The SDK's accumulator assembles a streamed tool call."""
    calls = (ToolCall(id="c1", name="look", arguments='{"at": 1}'),)
    answer, _ = await answered(
        service, sdk.chat.completions.create(model="m", messages=MESSAGES, tools=TOOLS), tool_calls=calls
    )
    tool = (answer.choices[0].message.tool_calls or [])[0]
    assert tool.type == "function"
    assert (tool.id, tool.function.name, tool.function.arguments) == ("c1", "look", '{"at": 1}')

    async def stream() -> ChatCompletion:
        async with sdk.chat.completions.stream(model="m", messages=MESSAGES, tools=TOOLS) as events:
            return await events.get_final_completion()

    waiting = asyncio.ensure_future(stream())
    call = await service.call()
    await call.tell(ToolCallDelta(index=0, id="c1", name="look", arguments='{"at"'))
    await call.tell(ToolCallDelta(index=0, arguments=": 1}"))
    await call.end()
    final = await waiting
    streamed = (final.choices[0].message.tool_calls or [])[0]
    assert streamed.type == "function"
    assert (streamed.id, streamed.function.arguments) == ("c1", '{"at": 1}')
    assert final.choices[0].finish_reason == "tool_calls"


async def test_reasoning_is_where_others_show_it(service: Service, sdk: AsyncOpenAI) -> None:
    """In `reasoning_content`, which the SDK's models keep, in JSON and streams."""

    async def ask(*, stream: bool) -> Any:  # noqa: ANN401
        waiting = asyncio.ensure_future(sdk.chat.completions.create(model="m", messages=MESSAGES, stream=stream))
        call = await service.call()
        await call.tell(ReasoningDelta(text="h"))
        await call.tell(ReasoningDelta(text="m", signature="s"))
        await call.say("Hi")
        await call.end()
        return await waiting

    whole = await ask(stream=False)
    assert whole.choices[0].message.reasoning_content == "hm"
    async with await ask(stream=True) as stream:
        deltas = [part.choices[0].delta async for part in stream if part.choices]
    assert "".join(getattr(delta, "reasoning_content", "") for delta in deltas) == "hm"
    assert "".join(delta.content or "" for delta in deltas) == "Hi"


async def test_a_structured_answer(service: Service, sdk: AsyncOpenAI) -> None:
    """The SDK turns a model class into a schema, and our answer back into the model."""
    answer, call = await answered(
        service,
        sdk.chat.completions.parse(model="m", messages=MESSAGES, response_format=Gate),
        result={"isFoodRelated": True, "confidence": 0.5},
    )
    assert answer.choices[0].message.parsed == Gate(isFoodRelated=True, confidence=0.5)
    assert call.complete.request.schema is not None
    assert set(call.complete.request.schema["properties"]) == {"isFoodRelated", "confidence"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (ProviderError(code="provider_rejected"), openai.BadRequestError),
        (ProviderError(code="provider_rate_limited"), openai.RateLimitError),
        (ProviderError(code="provider_error"), openai.InternalServerError),
        (ProviderError(code="provider_timeout"), openai.InternalServerError),
        (Overloaded(code="provider_overloaded", retry_after=1), openai.InternalServerError),
    ],
)
async def test_a_failure_is_the_sdk_s_own_exception(
    service: Service, sdk: AsyncOpenAI, failure: TidegateError, raised: type[openai.APIStatusError], stream: bool
) -> None:
    """Status and code are in the SDK's exception, for JSON and streams."""
    waiting = asyncio.ensure_future(sdk.chat.completions.create(model="m", messages=MESSAGES, stream=stream))
    await (await service.call()).fail(failure)
    with pytest.raises(raised) as caught:
        await waiting
    assert caught.value.code == failure.code
    assert caught.value.status_code == failure.problem.status


async def test_refusals_are_the_sdk_s_own_exceptions(service: Service, sdk: AsyncOpenAI) -> None:
    """An unknown model, a bad value, a wrong key, a key used twice, a body too large."""
    create = sdk.chat.completions.create
    with pytest.raises(openai.NotFoundError) as unknown:
        await create(model="unknown", messages=MESSAGES)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        await create(model="m", messages=MESSAGES, temperature=7)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError):
        await sdk.with_options(api_key="wrong").chat.completions.create(model="m", messages=MESSAGES)
    key = {"Idempotency-Key": "k"}
    await answered(service, create(model="m", messages=MESSAGES, extra_headers=key), "once")
    with pytest.raises(openai.UnprocessableEntityError):
        await create(model="m", messages=MESSAGES, seed=1, extra_headers=key)
    with pytest.raises(openai.APIStatusError) as large:
        await create(model="m", messages=[{"role": "user", "content": "x" * 1_100_000}])
    assert large.value.status_code == 413


async def test_our_retries_are_not_multiplied(service: Service) -> None:
    """An SDK that would retry is told not to, once the provider has failed for good."""
    async with AsyncOpenAI(base_url=f"{service.base}/v1", api_key="a-secret-of-the-tests", max_retries=2) as sdk:
        waiting = asyncio.ensure_future(sdk.chat.completions.create(model="m", messages=MESSAGES))
        await (await service.call()).fail(ProviderError())
        with pytest.raises(openai.InternalServerError):
            await waiting
        assert service.calls.empty()


async def test_a_failure_in_mid_stream_is_raised_while_iterating(service: Service, sdk: AsyncOpenAI) -> None:
    """The content so far is yielded first."""
    waiting = asyncio.ensure_future(sdk.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    call = await service.call()
    await call.say("so far")
    stream = await waiting
    await call.fail(ProviderError("it fell over", code="provider_stream_broken"))
    async with stream:
        parts = aiter(stream)
        said = [(await anext(parts)).choices[0].delta.content for _ in range(2)]
        with pytest.raises(openai.APIError, match="it fell over"):
            await anext(parts)
    assert said == ["", "so far"]


async def test_the_models_are_typed(service: Service, sdk: AsyncOpenAI) -> None:
    """The list is a page of the SDK's models."""
    assert [model.id async for model in sdk.models.list()] == ["default", "m", "local/smollm2"]


async def test_a_model_is_retrieved(sdk: AsyncOpenAI) -> None:
    """A name may have a slash; an unknown model raises the SDK's own exception."""
    model = await sdk.models.retrieve("local/smollm2")
    assert (model.id, model.owned_by) == ("local/smollm2", "local")
    with pytest.raises(openai.NotFoundError):
        await sdk.models.retrieve("unknown")
