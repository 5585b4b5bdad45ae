"""The HTTP surfaces end to end: the real gateway in front of a scripted upstream."""

import asyncio
import random
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import openai
import pytest
from aiohttp import ClientSession, TCPConnector
from openai import AsyncOpenAI

from actors.testing import Cut, End, Reply, Say, ScriptedUpstream, Wait, refuse, say
from service.config.settings import load_settings
from service.container import open_container
from service.server.server import listening
from tests.service.bench import Event, parse_events, text_of

MODEL = "gpt-4o-mini"
MESSAGES: Any = [{"role": "user", "content": "hi"}]
PIECES = tuple(f"piece {index}, " for index in range(60))


@pytest.fixture
async def address(upstream: ScriptedUpstream) -> AsyncIterator[str]:
    """The address of a service whose only provider is the scripted upstream."""
    settings = load_settings(
        None,
        port=0,
        openai_api_key="upstream-key",
        openai_base_url=upstream.openai_url,
        default_llm_model=MODEL,
        abandon_grace_seconds=0,
    )
    async with open_container(settings) as container, listening(container) as (_runner, url):
        container.lifecycle.serve()
        yield url


@pytest.fixture
async def client(address: str) -> AsyncIterator[ClientSession]:
    """A client of the service without a connection limit."""
    async with ClientSession(address, connector=TCPConnector(limit=0)) as session:
        yield session


@pytest.fixture
async def sdk(address: str) -> AsyncIterator[AsyncOpenAI]:
    """The official SDK, pointed at the service."""
    async with AsyncOpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0) as made:
        yield made


async def test_a_hundred_submissions_at_once_make_one_upstream_call(
    upstream: ScriptedUpstream, client: ClientSession
) -> None:
    """Each of a hundred clients has its own request and the whole stream; the next one needs no call."""
    more = asyncio.Event()
    upstream.script(Reply(steps=(*map(Say, PIECES[:30]), Wait(more), *map(Say, PIECES[30:]), End())))
    body = {"messages": MESSAGES, "options": {"temperature": 0}}

    async def submitted() -> tuple[str, str]:
        async with client.post("/api/requests", json=body) as response:
            assert response.status == 202
            return response.headers["Location"], response.headers["x-tidegate-source"]

    async def text(place: str) -> str:
        async with client.get(f"{place}/events") as response:
            return text_of(parse_events(await response.text()))

    many = await asyncio.gather(*(submitted() for _ in range(100)))
    reading = [asyncio.ensure_future(text(place)) for place, _ in many]
    more.set()
    assert await asyncio.gather(*reading) == ["".join(PIECES)] * 100
    assert sorted(source for _, source in many) == ["joined"] * 99 + ["upstream"]
    place, source = await submitted()
    assert (source, await text(place)) == ("cache", "".join(PIECES))
    assert upstream.calls == 1


async def test_cut_at_random_while_it_comes_a_reader_loses_nothing(
    upstream: ScriptedUpstream, client: ClientSession
) -> None:
    """A reader that disconnects after any byte and resumes with its last id has the exact text."""
    gates = [asyncio.Event() for _ in PIECES]
    steps = [step for gate, piece in zip(gates, PIECES, strict=True) for step in (Wait(gate), Say(piece))]
    upstream.script(Reply(steps=(*steps, End())))
    async with client.post("/api/requests", json={"messages": MESSAGES}) as response:
        place = response.headers["Location"]
    dice = random.Random(11)
    seen: list[Event] = []
    for gate in gates:
        gate.set()
        last = {"Last-Event-ID": seen[-1].id} if seen else {}
        async with client.get(f"{place}/events", headers=last) as stream:
            got = await stream.content.readuntil(b"\n\n")
        whole = got[: dice.randrange(len(got) + 1)].rpartition(b"\n\n")[0]
        seen += parse_events(got.decode() if dice.random() < 0.5 else whole.decode())
    async with client.get(f"{place}/events", headers={"Last-Event-ID": seen[-1].id}) as stream:
        seen += parse_events(await stream.text())
    assert text_of(seen) == "".join(PIECES)
    assert seen[-1].event == "complete"


async def test_the_sdk_gets_what_the_upstream_said(upstream: ScriptedUpstream, sdk: AsyncOpenAI) -> None:
    """Text, usage and price, in JSON and streams; unknown fields are passed through."""
    upstream.script(say("Hel", "lo"), say("Hel", "lo"))
    raw = await sdk.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES, logit_bias={"1": 5})
    answer = raw.parse()
    assert answer.choices[0].message.content == "Hello"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0
    assert Decimal(raw.headers["x-tidegate-cost-usd"]) > 0
    assert upstream.received[0].body["logit_bias"] == {"1": 5}
    stream = await sdk.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    async with stream:
        parts = [part async for part in stream]
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == "Hello"
    assert parts[-1].usage == answer.usage


async def test_an_upstream_that_dies_in_mid_stream(upstream: ScriptedUpstream, sdk: AsyncOpenAI) -> None:
    """The content so far is yielded, then the SDK raises; it is never a clean end."""
    gate = asyncio.Event()
    upstream.script(Reply(steps=(Say("so far"), Wait(gate), Cut())))
    stream = await sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    gate.set()
    async with stream:
        parts = aiter(stream)
        assert [(await anext(parts)).choices[0].delta.content for _ in range(2)] == ["", "so far"]
        with pytest.raises(openai.APIError):
            await anext(parts)


async def test_an_upstream_that_refuses_tells_nothing_of_itself(upstream: ScriptedUpstream, sdk: AsyncOpenAI) -> None:
    """The caller gets our message, not the upstream's body, nor its status for our own key."""
    upstream.script(refuse(401))
    with pytest.raises(openai.InternalServerError) as caught:
        await sdk.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert (caught.value.code, caught.value.status_code) == ("provider_credentials", 502)
    assert "secret" not in caught.value.response.text
    assert caught.value.response.headers["x-should-retry"] == "false"


async def test_leaving_closes_the_upstream_only_where_it_was_asked_for(
    upstream: ScriptedUpstream, client: ClientSession
) -> None:
    """A disconnect leaves the request running, except with the header that cancels."""
    gate = asyncio.Event()
    upstream.default = Reply(steps=(Say("a"), Wait(gate), Say("b"), End()))
    body = {"model": MODEL, "messages": MESSAGES, "stream": True}
    finishing = await client.post("/v1/chat/completions", json=body)
    cancelling = await client.post("/v1/chat/completions", json=body, headers={"x-tidegate-on-abandon": "cancel"})
    finishing.close()
    cancelling.close()
    await upstream.abandoned(1)
    gate.set()
    for response, status in ((finishing, "completed"), (cancelling, "cancelled")):
        place = f"/api/requests/{response.headers['x-request-id']}"
        async with client.get(f"{place}/events") as stream:
            await stream.read()
        async with client.get(place) as found:
            assert (await found.json())["assistantStatus"] == status
    assert upstream.left == 1
