"""Embeddings over HTTP with the official SDK, in front of a scripted upstream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types import CreateEmbeddingResponse

from actors.testing import Reply, ScriptedUpstream, Stall, refuse, scripted_vector
from service.config.settings import load_settings

Start = Callable[..., Awaitable[Any]]
BAD_REQUEST = 400
FIRST, SECOND = "the-first-of-two-keys", "the-second-of-two-keys"
BODY = {"model": "default", "input": ["a", "b"]}


@pytest.fixture
async def running(start: Start) -> Any:  # noqa: ANN401 - the service of this folder's fixture
    """A service with two keys."""
    return await start(api_keys=load_settings(None, api_keys=f"{FIRST},{SECOND}").api_keys)


@pytest.fixture
async def sdk(running: Any) -> AsyncIterator[AsyncOpenAI]:  # noqa: ANN401 - as above
    """The SDK, pointed at the service."""
    async with AsyncOpenAI(base_url=f"{running.address}/v1", api_key=FIRST, max_retries=0) as client:
        yield client


async def test_the_sdk_reads_both_encodings(sdk: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    """Vectors as numbers, as base64, and as the SDK requests them; repeated ones come from the cache."""
    create = sdk.embeddings.create
    numbers = await create(model="m", input=["a a", "b"], encoding_format="float", dimensions=3, user="u")
    assert isinstance(numbers, CreateEmbeddingResponse)
    assert [item.embedding for item in numbers.data] == [[*scripted_vector("a a", 3)], [*scripted_vector("b", 3)]]
    assert [item.index for item in numbers.data] == [0, 1]
    assert (numbers.model, numbers.usage.prompt_tokens, numbers.usage.total_tokens) == ("m", 3, 3)
    by_itself = await create(model="m", input=["b", "a a"], dimensions=3)
    assert [item.embedding for item in by_itself.data] == [item.embedding for item in reversed(numbers.data)]
    text: Any = (await create(model="m", input="b", dimensions=3, encoding_format="base64")).data[0].embedding
    assert isinstance(text, str)
    assert by_itself.usage.total_tokens == 0
    (received,) = upstream.received
    assert received.body == {"model": "m", "input": ["a a", "b"], "dimensions": 3, "encoding_format": "base64"}
    assert received.headers["authorization"] == "Bearer upstream-key"


async def test_it_is_said_where_vectors_are_from(running: Any, upstream: ScriptedUpstream) -> None:  # noqa: ANN401 - as above
    """Vectors come from the upstream, then from the cache; with dedupe off from the upstream. Tenants share nothing."""
    said = []
    for key, dedupe in ((FIRST, "on"), (FIRST, "on"), (FIRST, "off"), (SECOND, "on")):
        headers = {"authorization": f"Bearer {key}", "x-tidegate-dedupe": dedupe}
        response = await running.client.post("/v1/embeddings", json=BODY, headers=headers)
        assert response.status == 200
        said.append((response.headers["x-tidegate-source"], (await response.json())["usage"]["total_tokens"]))
    assert said == [("upstream", 2), ("cache", 0), ("upstream", 2), ("upstream", 2)]
    assert upstream.calls == 3


@pytest.mark.parametrize(
    ("status", "raised", "code"),
    [
        (400, openai.BadRequestError, "provider_rejected"),
        (429, openai.RateLimitError, "provider_rate_limited"),
        (500, openai.InternalServerError, "provider_error"),
    ],
)
async def test_a_failure_is_the_sdk_s_own_exception(
    sdk: AsyncOpenAI, upstream: ScriptedUpstream, status: int, raised: type[openai.APIStatusError], code: str
) -> None:
    """The client gets the code and the delay, and the upstream's reason for a 400; our retries are not multiplied."""
    upstream.script(*(refuse(status, retry_after="0") for _ in range(1 if status == BAD_REQUEST else 3)))
    with pytest.raises(raised) as caught:
        await sdk.embeddings.create(model="m", input="a")
    assert caught.value.code == code
    assert ("secret" in str(caught.value)) == (status == BAD_REQUEST)
    assert caught.value.response.headers.get("x-should-retry") == (None if status == BAD_REQUEST else "false")
    assert len((await sdk.embeddings.create(model="m", input="a")).data) == 1


async def test_refusals_are_the_sdk_s_own_exceptions(sdk: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    """Mixed texts and tokens, an unknown model, a wrong key, an invalid header."""
    create = sdk.embeddings.create
    mixed: Any = [[1, 2], "a"]
    with pytest.raises(openai.BadRequestError, match="must be an array of tokens") as tokens:
        await create(model="m", input=mixed)
    assert tokens.value.param == "input[1]"
    with pytest.raises(openai.NotFoundError) as unknown:
        await create(model="local/unknown", input="a")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        await sdk.with_options(api_key="wrong").embeddings.create(model="m", input="a")
    with pytest.raises(openai.BadRequestError, match="x-tidegate-dedupe"):
        await create(model="m", input="a", extra_headers={"x-tidegate-dedupe": "maybe"})
    assert upstream.calls == 0


async def test_tokens_are_inputs_too(sdk: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    """Token inputs reach the upstream unchanged, in a call without texts; repeated ones come from the cache."""
    create = sdk.embeddings.create
    answer, _ = await asyncio.gather(create(model="m", input=[[1, 2], [3]]), create(model="m", input="a"))
    assert [item.embedding for item in answer.data] == [[*scripted_vector((1, 2))], [*scripted_vector((3,))]]
    assert answer.usage.total_tokens == 3
    assert sorted(str(received.body["input"]) for received in upstream.received) == ["['a']", "[[1, 2], [3]]"]
    again = await create(model="m", input=[1, 2])
    assert (again.data[0].embedding, again.usage.total_tokens) == (answer.data[0].embedding, 0)


async def test_the_price_is_said_where_it_is_known(start: Start, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """The cost of the call; cached vectors cost nothing. An alias of the file is used like any model."""
    file = tmp_path / "tidegate.toml"
    file.write_text(
        f"""
        [providers.twin]
        kind = "openai"
        base_url = "{upstream.openai_url}"
        [embeddings.docs]
        targets = ["openai/text-embedding-3-small", "twin/text-embedding-3-small"]
        """,
        encoding="utf-8",
    )
    running = await start(routes_file=file)
    upstream.script(Reply(), refuse(500))
    said = []
    for text in ("a", "a", "b"):
        response = await running.client.post("/v1/embeddings", json={"model": "docs", "input": text})
        assert (await response.json())["model"] == "docs"
        said.append(response.headers.get("x-tidegate-cost-usd"))
    assert said == ["0.00000002", "0", None]
    listed = await (await running.client.get("/v1/models")).json()
    assert {"docs", "openai/text-embedding-3-small"} <= {model["id"] for model in listed["data"]}


async def test_a_key_s_budget_pays(
    start: Start, upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embeddings use the chat's account; beyond the budget they are refused in OpenAI's envelope, without a call."""
    monkeypatch.setenv("POOR", "the-key-of-the-poor")
    file = tmp_path / "tidegate.toml"
    file.write_text('[keys.poor]\nenv = "POOR"\nbudgets = [{ per = "day", tokens = 2 }]\n', encoding="utf-8")
    running = await start(routes_file=file)
    headers = {"authorization": "Bearer the-key-of-the-poor"}
    for texts, status in ((["a", "b"], 200), (["a", "b"], 200), (["c"], 429)):
        body = {"model": "m", "input": texts}
        response = await running.client.post("/v1/embeddings", json=body, headers=headers)
        assert response.status == status
    assert (await response.json())["error"]["code"] == "budget_exceeded"
    usage = await (await running.client.get("/api/usage", headers=headers)).json()
    assert [window["tokens"] for window in usage["windows"]] == [2, 2]
    assert upstream.calls == 1


async def test_a_client_that_leaves_ends_its_call(running: Any, upstream: ScriptedUpstream) -> None:  # noqa: ANN401 - as above
    """When the only client disconnects, the upstream's socket is closed."""
    upstream.script(Reply(before=(Stall(),)))
    headers = {"authorization": f"Bearer {FIRST}"}
    leaving = asyncio.ensure_future(running.client.post("/v1/embeddings", json=BODY, headers=headers))
    await upstream.called()
    leaving.cancel()
    await upstream.abandoned()
