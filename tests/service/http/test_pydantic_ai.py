"""Pydantic AI's models with only the base URL and the key changed, with either vendor's upstream."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import (
    Agent,
    AgentRunResultEvent,
    BinaryContent,
    ModelHTTPError,
    NativeOutput,
    PromptedOutput,
    ToolOutput,
)
from pydantic_ai.embeddings import Embedder
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel, OpenAIResponsesModelSettings
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from actors.testing import ScriptedUpstream, refuse, say, scripted_vector
from tests.service.clients import DIALECTS, KEY, LOOKING, calls, serving

Make = Callable[..., Model[Any]]
SURFACES = ("chat", "responses", "messages")
GATE = '{"isFoodRelated": true, "confidence": 0.5}'


class Gate(BaseModel):
    """The schema of a structured answer."""

    isFoodRelated: bool  # noqa: N815 - the wire's own name
    confidence: float


@pytest.fixture(params=DIALECTS)
async def address(request: pytest.FixtureRequest, upstream: ScriptedUpstream) -> AsyncIterator[str]:
    """The address of a service whose only provider is the scripted upstream, in one of the dialects."""
    async with serving(upstream, request.param) as found:
        yield found


@pytest.fixture(params=SURFACES)
async def make(request: pytest.FixtureRequest, address: str) -> AsyncIterator[Make]:
    """Yield a Pydantic AI model for one of the surfaces; its connections are closed at the end."""
    made: list[AnthropicModel | OpenAIChatModel | OpenAIResponsesModel] = []

    def make(key: str = KEY) -> Model[Any]:
        if request.param == "messages":
            made.append(AnthropicModel("claude-haiku-4-5", provider=AnthropicProvider(base_url=address, api_key=key)))
        else:
            kind = OpenAIResponsesModel if request.param == "responses" else OpenAIChatModel
            made.append(kind("gpt-4o-mini", provider=OpenAIProvider(base_url=f"{address}/v1", api_key=key)))
        return made[-1]

    yield make
    for model in made:
        await model.client.close()


def agent(model: Model[Any], **options: Any) -> Agent[None, Any]:  # noqa: ANN401 - field by field
    """Return an agent with a tool."""
    made: Agent[None, Any] = Agent(model, instructions="be brief", **options)
    return made


async def output(talker: Agent[None, Any], *, stream: bool) -> Any:  # noqa: ANN401 - as the agent says
    """Run the agent, and return the output."""
    if not stream:
        return (await talker.run("hi")).output
    async with talker.run_stream("hi") as run:
        return await run.get_output()


async def test_an_answer(make: Make, upstream: ScriptedUpstream) -> None:
    """Text, usage and the upstream's request; then the next turn with the history."""
    upstream.script(say("Hé", "llo"), say("again"))
    talker = agent(make(), model_settings={"temperature": 0.5, "max_tokens": 99})
    first = await talker.run("hi")
    assert first.output == "Héllo"
    usage = first.usage
    assert (usage.input_tokens, usage.output_tokens, usage.requests) == (7, 3, 1)
    body = upstream.received[0].body
    assert body["temperature"] == 0.5
    assert "be brief" in str((body.get("system"), body["messages"][0]))
    second = await talker.run("and now", message_history=first.all_messages())
    assert second.output == "again"
    sent = str(upstream.received[-1].body["messages"])
    assert [sent.count(said) for said in ("hi", "Héllo", "and now")] == [1, 1, 1]


async def test_a_stream(make: Make, upstream: ScriptedUpstream) -> None:
    """The answer is streamed, with the usage."""
    upstream.script(say("Hé", "l", "lo"))
    async with agent(make()).run_stream("hi") as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
    assert "".join(pieces) == "Héllo"
    usage = stream.usage
    assert (usage.input_tokens, usage.output_tokens) == (7, 3)


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_and_their_results(make: Make, upstream: ScriptedUpstream, stream: bool) -> None:
    """Two tool calls at once with their arguments; their results reach the upstream."""
    upstream.script(LOOKING, say("two", " cats"))
    looker = agent(make())

    @looker.tool_plain
    def look(at: int) -> str:
        """Look at a place."""
        return f"a cat at {at}"

    if stream:
        async with looker.run_stream_events("what is there") as events:
            told = [event async for event in events]
        assert isinstance(told[-1], AgentRunResultEvent)
        assert told[-1].result.output == "two cats"
    else:
        assert (await looker.run("what is there")).output == "two cats"
    first, last = (received.body for received in upstream.received)
    assert "Look at a place." in str(first["tools"])
    sent = str(last["messages"])
    assert [said in sent for said in ("let me see", "a cat at 1", "a cat at 2", "c1", "c2")] == [True] * 5


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", [ToolOutput, NativeOutput, PromptedOutput])
async def test_a_structured_answer(make: Make, upstream: ScriptedUpstream, kind: Any, stream: bool) -> None:  # noqa: ANN401 - a class of Pydantic AI's
    """Structured output as a tool, as a schema, and prompted."""
    upstream.script(calls("final_result", GATE) if kind is ToolOutput else say(GATE[:9], GATE[9:]))
    found = await output(agent(make(), output_type=kind(Gate)), stream=stream)
    assert found == Gate(isFoodRelated=True, confidence=0.5)
    assert "isFoodRelated" in str(upstream.received[0].body)


async def test_an_image(make: Make, upstream: ScriptedUpstream) -> None:
    """Pydantic AI's binary content is an image for either upstream."""
    await agent(make()).run(["what is this", BinaryContent(b"\0", media_type="image/png")])
    turn = upstream.received[0].body["messages"][-1]
    assert "AA==" in str(turn["content"][1])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_has_the_vendor_s_status(make: Make, upstream: ScriptedUpstream, stream: bool) -> None:
    """A refused request raises the vendor SDK's exception."""
    upstream.default = refuse(400)
    with pytest.raises(ModelHTTPError) as caught:
        await output(agent(make()), stream=stream)
    assert caught.value.status_code == 400


async def test_a_wrong_key(make: Make) -> None:
    """A wrong key raises the vendor SDK's exception."""
    with pytest.raises(ModelHTTPError) as caught:
        await agent(make("wrong")).run("hi")
    assert caught.value.status_code == 401


async def test_a_response_goes_on_from_the_last_one(address: str, upstream: ScriptedUpstream) -> None:
    """Pydantic AI sends the new turn with the last response's id; the upstream gets the whole conversation."""
    upstream.script(say("Paris"), say("The Seine"))
    provider = OpenAIProvider(base_url=f"{address}/v1", api_key=KEY)
    settings = OpenAIResponsesModelSettings(openai_previous_response_id="auto")
    talker = agent(OpenAIResponsesModel("default", provider=provider, settings=settings))
    first = await talker.run("the capital of France")
    assert (await talker.run("its river", message_history=first.all_messages())).output == "The Seine"
    sent = str(upstream.received[-1].body["messages"])
    assert [sent.count(said) for said in ("the capital of France", "Paris", "its river")] == [1, 1, 1]
    await provider.client.close()


async def test_embeddings(upstream: ScriptedUpstream) -> None:
    """Embeddings of a query and of documents."""
    async with serving(upstream, "openai") as address:
        provider = OpenAIProvider(base_url=f"{address}/v1", api_key=KEY)
        embedder = Embedder(OpenAIEmbeddingModel("text-embedding-3-small", provider=provider))
        found = await embedder.embed_documents(["ab", "c"])
        assert [[*vector] for vector in found.embeddings] == [[*scripted_vector("ab")], [*scripted_vector("c")]]
        assert [*(await embedder.embed_query("c")).embeddings[0]] == [*scripted_vector("c")]
        await provider.client.close()
