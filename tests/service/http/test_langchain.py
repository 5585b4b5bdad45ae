"""LangChain's clients with only the base URL and the key changed, with either vendor's upstream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import anthropic
import openai
import pytest
import tiktoken
from langchain_anthropic import ChatAnthropic
from langchain_anthropic import _client_utils as anthropic_clients
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_openai.chat_models import _client_utils as openai_clients
from pydantic import BaseModel, SecretStr

from actors.testing import ScriptedUpstream, refuse, say, scripted_vector
from tests.service.clients import DIALECTS, KEY, LOOKING, calls, serving

Make = Callable[..., BaseChatModel]
Keep = Callable[..., None]
SURFACES = ("chat", "responses", "messages")
OPENING: list[BaseMessage] = [SystemMessage("be brief"), HumanMessage("hi")]
GATE = '{"isFoodRelated": true, "confidence": 0.5}'


class Closing(Protocol):
    def close(self) -> Awaitable[None] | None: ...


class Gate(BaseModel):
    """The schema of a structured answer."""

    isFoodRelated: bool  # noqa: N815 - the wire's own name
    confidence: float


@tool
def look(at: int) -> str:
    """Look at a place."""
    return f"a cat at {at}"


@pytest.fixture(autouse=True)
def _nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn off LangChain's own tracing."""
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    monkeypatch.setenv("LANGCHAIN_TRACING_V2", "false")


@pytest.fixture
async def keep() -> AsyncIterator[Keep]:
    """Close the clients at the end: LangChain keeps connections for the whole process."""
    kept: list[Closing] = []
    yield lambda *clients: kept.extend(clients)
    for client in kept:
        closing = client.close()
        if closing is not None:
            await closing
    for cache in (
        openai_clients._cached_sync_httpx_client,
        openai_clients._cached_async_httpx_client,
        anthropic_clients._get_default_httpx_client,
        anthropic_clients._get_default_async_httpx_client,
    ):
        cache.cache_clear()


@pytest.fixture(params=DIALECTS)
async def address(request: pytest.FixtureRequest, upstream: ScriptedUpstream) -> AsyncIterator[str]:
    """The address of a service whose only provider is the scripted upstream, in one of the dialects."""
    async with serving(upstream, request.param) as found:
        yield found


@pytest.fixture(params=SURFACES)
def make(request: pytest.FixtureRequest, address: str, keep: Keep) -> Make:
    """Return a LangChain model for one of the surfaces."""

    def make(key: str = KEY, **options: Any) -> BaseChatModel:  # noqa: ANN401 - field by field
        options = {"api_key": SecretStr(key), "model": "default", "max_retries": 0, **options}
        if request.param == "messages":
            claude = ChatAnthropic(base_url=address, **options)
            keep(claude._client, claude._async_client)
            return claude
        gpt = ChatOpenAI(base_url=f"{address}/v1", use_responses_api=request.param == "responses", **options)
        keep(gpt.root_client, gpt.root_async_client)
        return gpt

    return make


async def gathered(model: Any, given: Any) -> tuple[AIMessageChunk, int]:  # noqa: ANN401 - any runnable
    """Stream an answer; returns it merged, with the number of pieces with text."""
    whole, pieces = None, 0
    async for chunk in model.astream(given):
        pieces += bool(chunk.text)
        whole = chunk if whole is None else whole + chunk
    assert isinstance(whole, AIMessageChunk)
    return whole, pieces


async def test_an_answer(make: Make, upstream: ScriptedUpstream) -> None:
    """The text, the usage, and the upstream's request."""
    upstream.script(say("Hé", "llo"))
    answer = await make(temperature=0.5).ainvoke(OPENING)
    assert isinstance(answer, AIMessage)
    assert (answer.text, answer.tool_calls) == ("Héllo", [])
    assert answer.usage_metadata is not None
    assert (answer.usage_metadata["input_tokens"], answer.usage_metadata["output_tokens"]) == (7, 3)
    body = upstream.received[0].body
    assert body["temperature"] == 0.5
    assert "be brief" in str((body.get("system"), body["messages"][0]))


async def test_a_stream(make: Make, upstream: ScriptedUpstream) -> None:
    """The answer is streamed; LangChain requests usage only when told to, as for any custom address."""
    upstream.script(say("Hé", "l", "lo"))
    whole, pieces = await gathered(make(stream_usage=True), OPENING)
    assert (whole.text, pieces) == ("Héllo", 3)
    assert whole.usage_metadata is not None
    assert (whole.usage_metadata["input_tokens"], whole.usage_metadata["output_tokens"]) == (7, 3)


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_and_their_results(make: Make, upstream: ScriptedUpstream, stream: bool) -> None:
    """Two tool calls at once with their arguments; their results reach the upstream."""
    upstream.script(LOOKING, say("two cats"))
    model = make().bind_tools([look])
    first = (await gathered(model, OPENING))[0] if stream else await model.ainvoke(OPENING)
    assert [(call["id"], call["name"], call["args"]) for call in first.tool_calls] == [
        ("c1", "look", {"at": 1}),
        ("c2", "look", {"at": 2}),
    ]
    assert first.text == "let me see"
    results = [await look.ainvoke(call) for call in first.tool_calls]
    assert all(isinstance(result, ToolMessage) for result in results)
    answer = await model.ainvoke([*OPENING, first, *results])
    assert answer.text == "two cats"
    sent = str(upstream.received[-1].body["messages"])
    assert [said in sent for said in ("let me see", "a cat at 1", "a cat at 2")] == [True] * 3


async def test_a_tool_that_has_to_be_called(make: Make, upstream: ScriptedUpstream) -> None:
    """The tool choice reaches the upstream in its dialect."""
    upstream.script(calls("look", '{"at": 3}'))
    answer = await make().bind_tools([look], tool_choice="look").ainvoke(OPENING)
    assert [call["args"] for call in answer.tool_calls] == [{"at": 3}]
    assert upstream.received[0].body["tool_choice"] in (
        {"type": "function", "function": {"name": "look"}},
        {"type": "tool", "name": "look"},
    )


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_a_structured_answer(make: Make, upstream: ScriptedUpstream, method: str) -> None:
    """LangChain's two methods: a schema of the answer, and a forced tool."""
    upstream.script(say(GATE[:9], GATE[9:]) if method == "json_schema" else calls("Gate", GATE))
    found = await make().with_structured_output(Gate, method=method).ainvoke(OPENING)
    assert found == Gate(isFoodRelated=True, confidence=0.5)
    body = upstream.received[0].body
    assert "isFoodRelated" in str(body.get("response_format") or body.get("output_config") or body["tools"])


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # LangChain's own, over the SDK's parsed answer
async def test_a_structured_answer_in_pieces(make: Make, upstream: ScriptedUpstream) -> None:
    """The last piece is the parsed answer."""
    upstream.script(say(GATE[:9], GATE[9:]))
    model = make().with_structured_output(Gate, method="json_schema")
    assert [part async for part in model.astream(OPENING)][-1] == Gate(isFoodRelated=True, confidence=0.5)


async def test_an_image(make: Make, upstream: ScriptedUpstream) -> None:
    """LangChain's image block is an image for either upstream."""
    block = {"type": "image", "base64": "AA==", "mime_type": "image/png"}
    await make().ainvoke([HumanMessage([{"type": "text", "text": "what is this"}, block])])
    (turn,) = upstream.received[0].body["messages"]
    assert "AA==" in str(turn["content"][1])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_is_the_vendor_s_exception(make: Make, upstream: ScriptedUpstream, stream: bool) -> None:
    """A refused request raises the vendor SDK's exception."""
    upstream.default = refuse(400)
    with pytest.raises((openai.BadRequestError, anthropic.BadRequestError)):
        await (gathered(make(), OPENING) if stream else make().ainvoke(OPENING))


async def test_a_wrong_key(make: Make) -> None:
    """A wrong key raises the vendor SDK's exception."""
    with pytest.raises((openai.AuthenticationError, anthropic.AuthenticationError)):
        await make("wrong").ainvoke(OPENING)


async def test_blocking_calls(make: Make, upstream: ScriptedUpstream) -> None:
    """LangChain's synchronous calls, in JSON and streams."""
    upstream.script(say("Hé", "llo"), say("Hé", "llo"))
    model = make()
    assert (await asyncio.to_thread(model.invoke, OPENING)).text == "Héllo"
    assert "".join(part.text for part in await asyncio.to_thread(list, model.stream(OPENING))) == "Héllo"


async def test_a_response_goes_on_from_the_last_one(address: str, upstream: ScriptedUpstream, keep: Keep) -> None:
    """LangChain sends the new turn with the last response's id; the upstream gets the whole conversation."""
    upstream.script(say("Paris"), say("The Seine"))
    options: Any = {"api_key": SecretStr(KEY), "model": "default", "max_retries": 0}
    model = ChatOpenAI(base_url=f"{address}/v1", use_previous_response_id=True, **options)
    keep(model.root_client, model.root_async_client)
    opening = HumanMessage("the capital of France")
    first = await model.ainvoke([opening])
    assert (await model.ainvoke([opening, first, HumanMessage("its river")])).text == "The Seine"
    sent = str(upstream.received[-1].body["messages"])
    assert [sent.count(said) for said in ("the capital of France", "Paris", "its river")] == [1, 1, 1]


@pytest.fixture
async def embed(upstream: ScriptedUpstream, keep: Keep) -> AsyncIterator[Callable[..., OpenAIEmbeddings]]:
    """Return an embeddings model, for a service with an upstream that embeds; Anthropic does not."""
    async with serving(upstream, "openai") as address:

        def make(**options: Any) -> OpenAIEmbeddings:  # noqa: ANN401 - field by field
            model = OpenAIEmbeddings(base_url=f"{address}/v1", api_key=SecretStr(KEY), **options)
            keep(model.client._client, model.async_client._client)
            return model

        yield make


async def test_embeddings_of_tokens(
    embed: Callable[..., OpenAIEmbeddings], upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LangChain sends tokens by default. Its tokenizer is downloaded, so here a byte is a token."""
    ranks = {bytes((byte,)): byte for byte in range(256)}
    encoding = tiktoken.Encoding("bytes", pat_str=r"(?s:.)", mergeable_ranks=ranks, special_tokens={})
    monkeypatch.setattr(tiktoken, "encoding_for_model", lambda _: encoding)
    vectors = await embed(model="text-embedding-3-small").aembed_documents(["ab", "c"])
    assert vectors == [[*scripted_vector((97, 98))], [*scripted_vector((99,))]]
    assert upstream.received[0].body["input"] == [[97, 98], [99]]


async def test_embeddings_of_texts(embed: Callable[..., OpenAIEmbeddings], upstream: ScriptedUpstream) -> None:
    """Texts instead of tokens."""
    model = embed(model="default", check_embedding_ctx_length=False)
    assert await model.aembed_documents(["ab", "c"]) == [[*scripted_vector("ab")], [*scripted_vector("c")]]
    assert await model.aembed_query("c") == [*scripted_vector("c")]
    assert [received.body["input"] for received in upstream.received] == [["ab", "c"]]
