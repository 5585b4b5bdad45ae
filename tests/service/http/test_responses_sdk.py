"""The official SDK's Responses API against the service: its typed models accept every response."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseFunctionToolCall
from pydantic import BaseModel

from actors.testing import End, Reply, Say, ScriptedUpstream, Wait, say
from protocol.errors import Overloaded, ProviderError
from protocol.events import ReasoningDelta, ToolCallDelta
from protocol.llm import ToolCall
from tests.service.bench import Service, answered, open_service
from tests.service.clients import DIALECTS, KEY, LOOKING, serving

TOOLS: Any = [
    {
        "type": "function",
        "name": "look",
        "description": "Look.",
        "parameters": {
            "type": "object",
            "properties": {"at": {"type": "integer"}},
            "required": ["at"],
            "additionalProperties": False,
        },
        "strict": True,
    }
]
CALLS = (ToolCall(id="c1", name="look", arguments='{"at": 1}'),)


class Gate(BaseModel):
    """A structured answer."""

    food: bool


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with a gateway that the test scripts."""
    async with open_service(api_keys="a-secret-of-the-tests") as running:
        yield running


@pytest.fixture
async def sdk(service: Service) -> AsyncIterator[AsyncOpenAI]:
    """The SDK, pointed at the service."""
    async with AsyncOpenAI(base_url=f"{service.base}/v1", api_key="a-secret-of-the-tests", max_retries=0) as client:
        yield client


async def test_a_whole_answer(service: Service, sdk: AsyncOpenAI) -> None:
    """Text, usage and the echoed parameters; the id retrieves it."""
    answer, call = await answered(
        service,
        sdk.responses.create(
            model="m",
            instructions="be brief",
            input=[{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
            temperature=0.3,
            max_output_tokens=9,
            metadata={"a": "b"},
        ),
        "Hel",
        "lo",
    )
    assert Response.model_validate(answer.model_dump()) == answer
    assert (answer.output_text, answer.status, answer.instructions) == ("Hello", "completed", "be brief")
    assert (answer.metadata, answer.max_output_tokens) == ({"a": "b"}, 9)
    assert answer.usage is not None
    assert answer.usage.total_tokens == 5
    assert answer.id == f"resp_{call.complete.request_id}"
    assert [message.role for message in call.complete.request.messages] == ["system", "user"]
    again = await sdk.responses.retrieve(answer.id)
    assert again == answer


async def test_a_stream_by_either_way(service: Service, sdk: AsyncOpenAI) -> None:
    """Events, and the SDK's accumulator."""
    stream, _ = await answered(service, sdk.responses.create(model="m", input="hi", stream=True), "Hel", "lo")
    async with stream:
        events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Hello"

    async def accumulated() -> Response:
        async with sdk.responses.stream(model="m", input="hi") as stream:
            return await stream.get_final_response()

    final, _ = await answered(service, accumulated(), "Hel", "lo")
    assert (final.output_text, final.status) == ("Hello", "completed")


async def test_the_background_is_followed_left_and_resumed(service: Service, sdk: AsyncOpenAI) -> None:
    """A stream resumes after the last event's number, to the same end."""
    asked = await sdk.responses.create(model="m", input="hi", background=True)
    assert asked.status == "queued"
    call = await service.call()
    await call.say("a", "b")
    async with await sdk.responses.retrieve(asked.id, stream=True) as stream:
        parts = aiter(stream)
        seen = [await anext(parts) for _ in range(5)]
    await call.say("c")
    await call.end()
    after = seen[-1].sequence_number
    rest = [event async for event in await sdk.responses.retrieve(asked.id, stream=True, starting_after=after)]
    everything = [event async for event in await sdk.responses.retrieve(asked.id, stream=True)]
    assert seen + rest == everything
    assert [event.sequence_number for event in everything] == list(range(len(everything)))
    last = everything[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "abc"
    assert (await sdk.responses.retrieve(asked.id)) == last.response
    with pytest.raises(openai.APIStatusError) as gone:
        await sdk.responses.retrieve(asked.id, stream=True, starting_after=99)
    assert gone.value.status_code == 410


async def test_a_response_is_cancelled(service: Service, sdk: AsyncOpenAI) -> None:
    """Cancelling ends the stream and the upstream call."""
    asked = await sdk.responses.create(model="m", input="hi", background=True)
    call = await service.call()
    cancelled = await sdk.responses.cancel(asked.id)
    assert cancelled.status == "cancelled"
    await call.cancelled.wait()
    events = [event async for event in await sdk.responses.retrieve(asked.id, stream=True)]
    last = events[-1]
    assert last.type == "response.failed"
    assert last.response.status == "cancelled"


async def test_tools_are_called_and_answered(service: Service, sdk: AsyncOpenAI) -> None:
    """Tool results by the previous response's id, and by its items."""
    asked = sdk.responses.create(model="m", input="what is there?", tools=TOOLS, tool_choice="required")
    first, call = await answered(service, asked, tool_calls=CALLS)
    assert call.complete.request.tool_choice == "required"
    item = first.output[0]
    assert isinstance(item, ResponseFunctionToolCall)
    assert (item.call_id, item.name, item.arguments) == ("c1", "look", '{"at": 1}')
    output: Any = {"type": "function_call_output", "call_id": item.call_id, "output": "a cat"}
    by_id = sdk.responses.create(model="m", input=[output], previous_response_id=first.id, tools=TOOLS)
    back: Any = [{"role": "user", "content": "what is there?"}, item.model_dump(exclude_none=True), output]
    by_items = sdk.responses.create(model="m", input=back, tools=TOOLS)
    asks = []
    for way in (by_id, by_items):
        second, call = await answered(service, way, "It is a cat.")
        assert second.output_text == "It is a cat."
        asks.append(call.complete.request.messages)
    assert asks[0] == asks[1]
    assert [message.role for message in asks[0]] == ["user", "assistant", "tool"]
    assert asks[0][1].tool_calls == CALLS


async def test_a_tool_call_is_streamed(service: Service, sdk: AsyncOpenAI) -> None:
    """The SDK assembles a tool call's arguments."""

    async def accumulated() -> Response:
        async with sdk.responses.stream(model="m", input="hi", tools=TOOLS) as stream:
            return await stream.get_final_response()

    waiting = asyncio.ensure_future(accumulated())
    call = await service.call()
    await call.say("Let me see.")
    await call.tell(ToolCallDelta(index=0, id="c1", name="look"))
    await call.tell(ToolCallDelta(index=0, arguments='{"at": 1}'))
    await call.end()
    message, item = (await waiting).output
    assert (message.type, item.type) == ("message", "function_call")
    assert isinstance(item, ResponseFunctionToolCall)
    assert item.arguments == '{"at": 1}'


async def test_reasoning_is_an_item(service: Service, sdk: AsyncOpenAI) -> None:
    """Reasoning is before the message, streamed and retrieved."""
    waiting = asyncio.ensure_future(sdk.responses.create(model="m", input="hi", stream=True))
    call = await service.call()
    await call.tell(ReasoningDelta(text="h"), ReasoningDelta(text="m"))
    await call.say("Hello")
    await call.end()
    async with await waiting as stream:
        events = [event async for event in stream]
    assert "".join(event.delta for event in events if event.type == "response.reasoning_text.delta") == "hm"
    last = events[-1]
    assert last.type == "response.completed"
    reasoning, message = last.response.output
    assert (reasoning.type, message.type) == ("reasoning", "message")
    assert last.response.output_text == "Hello"
    assert await sdk.responses.retrieve(last.response.id) == last.response


async def test_a_structured_answer_is_parsed(service: Service, sdk: AsyncOpenAI) -> None:
    """Structured output by `parse`, and from a stream."""
    parsed, call = await answered(
        service, sdk.responses.parse(model="m", input="hi", text_format=Gate), '{"food": true}', result={"food": True}
    )
    assert parsed.output_parsed == Gate(food=True)
    schema = call.complete.request.schema
    assert schema is not None
    assert schema["required"] == ["food"]

    async def accumulated() -> Gate | None:
        async with sdk.responses.stream(model="m", input="hi", text_format=Gate) as stream:
            return (await stream.get_final_response()).output_parsed

    streamed, _ = await answered(service, accumulated(), '{"food": true}', result={"food": True})
    assert streamed == Gate(food=True)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(Overloaded(code="provider_overloaded"), openai.InternalServerError), (ProviderError(), openai.APIStatusError)],
)
async def test_failures_are_the_sdk_s_exceptions(
    service: Service, sdk: AsyncOpenAI, error: Exception, kind: type[Exception]
) -> None:
    """Errors before content, in JSON and streams."""
    for stream in (False, True):
        waiting: Any = asyncio.ensure_future(sdk.responses.create(model="m", input="hi", stream=stream))
        await (await service.call()).fail(error)
        with pytest.raises(kind):
            await waiting


async def test_what_is_not_there_or_not_supported(sdk: AsyncOpenAI) -> None:
    """An unsupported parameter is refused by name."""
    with pytest.raises(openai.NotFoundError):
        await sdk.responses.retrieve("resp_x")
    with pytest.raises(openai.NotFoundError):
        await sdk.responses.create(model="m", input="hi", previous_response_id="resp_x")
    with pytest.raises(openai.BadRequestError, match="web_search"):
        await sdk.responses.create(model="m", input="hi", tools=[{"type": "web_search"}])
    with pytest.raises(openai.BadRequestError, match="conversation"):
        await sdk.responses.create(model="m", input="hi", conversation="conv_1")


async def test_other_tenants_do_not_see_a_response() -> None:
    """Another key's response is not found."""
    async with open_service(api_keys="the-first-of-two-keys,the-second-of-two-keys") as service:
        keys = [
            AsyncOpenAI(base_url=f"{service.base}/v1", api_key=key, max_retries=0)
            for key in ("the-first-of-two-keys", "the-second-of-two-keys")
        ]
        async with keys[0] as one, keys[1] as two:
            answer, _ = await answered(service, one.responses.create(model="m", input="hi"), "Hello")
            with pytest.raises(openai.NotFoundError):
                await two.responses.retrieve(answer.id)
            with pytest.raises(openai.NotFoundError):
                await two.responses.cancel(answer.id)
            with pytest.raises(openai.NotFoundError):
                await two.responses.create(model="m", input="hi", previous_response_id=answer.id)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_either_upstream_may_answer(upstream: ScriptedUpstream, dialect: str) -> None:
    """Tools with results, a parsed answer, and a resumed background response, on either upstream."""
    gate = asyncio.Event()
    slow = Reply(steps=(Say("Hel"), Wait(gate), Say("lo"), End()))
    upstream.script(LOOKING, say("it is there"), say('{"food": ', "true}"), slow)
    async with (
        serving(upstream, dialect) as address,
        AsyncOpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0) as sdk,
    ):
        asked = await sdk.responses.create(model="default", input="hi", tools=TOOLS)
        calls = [item for item in asked.output if item.type == "function_call"]
        assert [(call.name, call.arguments) for call in calls] == [("look", '{"at": 1}'), ("look", '{"at": 2}')]
        found: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "yes"} for call in calls]
        told = await sdk.responses.create(model="default", input=found, previous_response_id=asked.id)
        assert told.output_text == "it is there"
        assert len(upstream.received[1].body["messages"]) == (4 if dialect == "openai" else 3)
        parsed = await sdk.responses.parse(model="default", input="hi", text_format=Gate)
        assert parsed.output_parsed == Gate(food=True)
        begun = await sdk.responses.create(model="default", input="hi", background=True)
        seen = -1
        async with await sdk.responses.retrieve(begun.id, stream=True) as stream:
            async for event in stream:
                seen = event.sequence_number
                if event.type == "response.output_text.delta":
                    break
        gate.set()
        rest = [event async for event in await sdk.responses.retrieve(begun.id, stream=True, starting_after=seen)]
        assert [event.sequence_number for event in rest] == list(range(seen + 1, seen + 1 + len(rest)))
        assert rest[-1].type == "response.completed"
        assert rest[-1].response.output_text == "Hello"
