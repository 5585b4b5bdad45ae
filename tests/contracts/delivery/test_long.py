"""Long answers, and answers that come faster than anybody reads: whole over every surface, from every offset."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import pytest
from aiohttp import ClientSession, TCPConnector

from actors.testing import ScriptedUpstream, say
from protocol.events import Delta, Entry, Position
from protocol.requests import GetRequest, RequestHandle
from service.config.settings import load_settings
from service.container import Container, open_container
from service.server.server import listening
from tests.contracts.delivery.surfaces import EXACT, read
from tests.service.bench import Service, open_service

BYTES: Final = int(os.environ.get("FLOOD_BYTES", "100000"))  # of an answer that comes without a pause; 4000000 is all
WHOLE: Final = "LONG_ANSWERS" in os.environ  # whether each resumed reader reads to the end, and not only each 20th
PIECE: Final = max(16, BYTES // 25_000)  # characters: all of it within a call's deadline
CLIENTS: Final = 20
TOKENS: Final = 20_000
STEP: Final = 100  # offsets between two resumed readers
NEAR: Final = 700  # entries that the others read: more than a page
WIDTH: Final = 7  # characters
PIECES: Final = tuple(f"{number:05}\u4f60 " for number in range(TOKENS))
QUESTION: Final[dict[str, Any]] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
MOST: Final = {"options": {"maxTokens": 9}}
WHOLLY: Final[dict[str, dict[str, Any]]] = {
    "/v1/chat/completions": {"stream": True, "max_tokens": 9},
    "/v1/messages": {"stream": True, "max_tokens": 9},
}
CHAT: Final = {"model": "gpt-4o-mini", "stream": True, "max_tokens": 9_000_000}

pytestmark = pytest.mark.timeout(120 + BYTES // 2000 + 300 * WHOLE)

decode: Final = msgspec.json.decode


class Flood:
    """A service whose upstream answers without a pause, and clients of it."""

    def __init__(self, base: str, container: Container, client: ClientSession, text: str) -> None:
        self.base = base
        self.container = container
        self.client = client
        self.text = text

    async def text_of(self, path: str, body: object = None) -> str:
        """Return the text that server-sent events add up to."""
        method, text, kept = "GET" if body is None else "POST", [], b""
        async with self.client.request(method, self.base + path, json=body) as response:
            assert response.status == 200, await response.text()
            async for chunk in response.content.iter_any():
                *lines, kept = (kept + chunk).split(b"\n")
                text += [piece_of(decode(line[6:])) for line in lines if line.startswith(b"data: {")]
        return "".join(text)

    async def submit(self, name: str) -> str:
        """Submit a request and return its id."""
        body = {"messages": [{"role": "user", "content": name}], "model": "gpt-4o-mini"}
        async with self.client.post(f"{self.base}/api/requests", json=body) as response:
            request_id = (await response.json())["requestId"]
        assert isinstance(request_id, str)
        return request_id


Read = Callable[[Flood, str], Awaitable[str]]


async def chat(flood: Flood, content: str) -> str:
    """OpenAI's chat completions, a call for each client."""
    return await flood.text_of("/v1/chat/completions", CHAT | {"messages": [{"role": "user", "content": content}]})


async def messages(flood: Flood, content: str) -> str:
    """Anthropic's messages, a call for each client."""
    return await flood.text_of("/v1/messages", CHAT | {"messages": [{"role": "user", "content": content}]})


async def responses(flood: Flood, content: str) -> str:
    """OpenAI's responses, a call for each client."""
    return await flood.text_of("/v1/responses", {"model": "gpt-4o-mini", "input": content, "stream": True})


async def native(flood: Flood, request_id: str) -> str:
    """Server-sent events of one request for all clients."""
    return await flood.text_of(f"/api/requests/{request_id}/events")


async def polls(flood: Flood, request_id: str) -> str:
    """Long polls of one request for all clients."""
    text, after, ended = "", "", False
    while not ended:
        address = f"{flood.base}/api/requests/{request_id}/events?wait=50{after}"
        async with flood.client.get(address, headers={"Accept": "application/json"}) as response:
            news = decode(await response.read())
        after, ended = "&after={epoch}:{offset}".format(**news["position"]), news["ended"]
        text += "".join(event["data"].get("delta", "") for event in news["events"])
    return text


async def socket(flood: Flood, request_id: str) -> str:
    """The socket, on one request for all clients; one that lags gets fewer and larger updates."""
    text = []
    async with flood.client.ws_connect(f"{flood.base}/ws", max_msg_size=0) as connection:
        await connection.send_json({"type": "subscribe", "id": 1, "requestId": request_id})
        async for message in connection:
            frame = decode(message.data)
            assert not frame.get("snapshot"), "nobody has asked for one"
            text.append(frame["data"].get("delta", ""))
            if frame["type"] == "complete":
                break
    return "".join(text)


async def in_process(flood: Flood, request_id: str) -> str:
    """A loop in the process, which others share."""
    handle = await flood.container.router.ask(GetRequest(request_id), timeout=5)
    text = []
    async for item in handle.follow():
        assert isinstance(item, Entry)
        text.append(item.event.text if isinstance(item.event, Delta) else "")
        await asyncio.sleep(0)
    return "".join(text)


APART: Final[dict[str, Read]] = {"chat": chat, "messages": messages, "responses": responses}
SHARED: Final[dict[str, Read]] = {"events": native, "long poll": polls, "socket": socket, "in process": in_process}


@asynccontextmanager
async def flooding(size: int, answers: int) -> AsyncIterator[Flood]:
    """Serve with an upstream that sends so many characters in small pieces, for each of so many answers."""
    text = ("".join(map(str, range(size // 4))))[:size]
    reply = say(*(text[start : start + PIECE] for start in range(0, size, PIECE)))
    async with ScriptedUpstream(*[reply] * answers) as upstream:
        settings = load_settings(
            None,
            port=0,
            openai_api_key="made-up",
            openai_base_url=upstream.openai_url,
            default_llm_model="gpt-4o-mini",
            provider_concurrency=CLIENTS,
            shutdown_grace_seconds=0,
        )
        async with (
            open_container(settings) as container,
            listening(container) as (_, address),
            ClientSession(connector=TCPConnector(limit=0)) as client,
        ):
            container.lifecycle.serve()
            yield Flood(address, container, client, text)
            container.lifecycle.stop()


@pytest.mark.parametrize("name", APART)
async def test_an_answer_without_a_pause_reaches_each_client_that_reads(name: str) -> None:
    """A call for each: the upstream is faster than the service, and nobody who reads is cut off."""
    async with flooding(BYTES, CLIENTS) as flood:
        texts = await asyncio.gather(*[APART[name](flood, f"client {number}") for number in range(CLIENTS)])
        assert [text == flood.text for text in texts] == [True] * CLIENTS


@pytest.mark.parametrize("name", SHARED)
async def test_an_answer_without_a_pause_reaches_all_who_follow_it(name: str) -> None:
    """One call for all of them."""
    async with flooding(BYTES, 1) as flood:
        request_id = await flood.submit(name)
        texts = await asyncio.gather(*[SHARED[name](flood, request_id) for _ in range(CLIENTS)])
        assert [text == flood.text for text in texts] == [True] * CLIENTS


@asynccontextmanager
async def long_answer() -> AsyncIterator[tuple[Service, RequestHandle]]:
    """Serve an answer of many tokens from the cache: a request that replays it."""
    async with open_service() as service:
        first = await handle_of(service, await service.submit(**QUESTION, **MOST))
        call = await service.call()
        await call.say(*PIECES)
        await call.end()
        async with first.follow(mode="live") as items:
            async for _ in items:
                pass
        replay = await handle_of(service, await service.submit(**QUESTION, **MOST))
        assert (replay.source, replay.stream.offset) == ("cache", TOKENS + 2)
        yield service, replay
        assert service.calls.empty()


async def handle_of(service: Service, request_id: str) -> RequestHandle:
    """Return a request as the process sees it."""
    return await service.container.router.ask(GetRequest(request_id), timeout=5)


@pytest.mark.parametrize("name", EXACT)
async def test_a_long_answer_is_replayed_from_every_hundredth_offset(name: str) -> None:
    """From the cache, from the first entry and from any other: each later entry, once."""
    async with long_answer() as (service, replay):
        epoch, request_id = replay.stream.epoch, replay.request_id
        for offset in range(0, TOKENS + 2, STEP):
            until = 0 if WHOLE or offset % (20 * STEP) == 0 else min(offset + NEAR, TOKENS + 2)
            frames = await read(EXACT[name], service, request_id, Position(epoch, offset), until)
            last = until or TOKENS + 2
            assert [frame["offset"] for frame in frames] == list(range(offset + 1, offset + len(frames) + 1))
            assert frames[-1]["offset"] >= last
            text = "".join(frame["data"].get("delta", "") for frame in frames)
            assert text == "".join(PIECES[max(offset - 1, 0) : max(offset - 1, 0) + len(text) // WIDTH])
            assert len(text) >= WIDTH * (last - offset - 2)


async def test_a_long_response_is_resumed_after_every_hundredth_event() -> None:
    """Each later event under its number, once."""
    async with long_answer() as (service, replay):
        path = f"/v1/responses/resp_{replay.request_id}?stream=true"
        whole = (await (await service.get(path)).text()).encode()
        blocks = whole.split(b"\n\n")[:-1]
        assert len(blocks) > TOKENS
        for number in range(0, len(blocks) - 1, STEP):
            async with service.client.get(f"{service.base}{path}&starting_after={number}") as response:
                if WHOLE or number % (20 * STEP) == 0:
                    assert (await response.read()).split(b"\n\n")[:-1] == blocks[number + 1 :]
                else:
                    rest = b"\n\n".join(blocks[number + 1 : number + NEAR])
                    assert await response.content.readexactly(min(len(rest), len(whole))) == rest


@pytest.mark.parametrize(("path", "changes"), WHOLLY.items())
async def test_a_long_answer_is_replayed_whole(path: str, changes: dict[str, Any]) -> None:
    """Over the surfaces that can't resume: the same text, piece by piece."""
    async with long_answer() as (service, _):
        response = await service.post(path, QUESTION | changes, x_tidegate_dedupe="on")
        assert (response.status, response.headers["x-tidegate-source"]) == (200, "cache")
        lines = [line[6:] for line in (await response.text()).split("\n") if line.startswith("data: {")]
        assert tuple(filter(None, map(piece_of, map(decode, lines)))) == PIECES


def piece_of(event: Any) -> str:  # noqa: ANN401 - JSON
    """Return the text that an event of any dialect adds."""
    if "choices" in event:
        return "".join(choice["delta"].get("content", "") for choice in event["choices"])
    if event.get("data", {}).get("delta") is not None:
        return str(event["data"]["delta"])
    assert event["type"] != "error", event
    delta = event.get("delta", "")
    return delta if isinstance(delta, str) else str(delta.get("text", ""))
