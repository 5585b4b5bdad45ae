"""A server process that is stopped while clients of every kind are in the middle of something."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import aiohttp
import anthropic
import httpx
import openai
import pytest

from actors.testing import End, Reply, Say, ScriptedUpstream, Stall, Wait
from tests.service.server.process import SOON, Served, serve

LONG: Final = {"SHUTDOWN_GRACE_SECONDS": "3600"}
STALLED: Final = Reply(steps=(Say("Hel"), Stall()))
SHUT: Final = "shutting_down"
UPLOAD: Final = (
    b"POST /api/requests HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
)
UPGRADE: Final = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def body(text: str, **more: object) -> dict[str, Any]:
    """Return a body with one message."""
    return {"messages": [{"role": "user", "content": text}], **more}


class Clients:
    """Clients of one server. Each returns what it was told at the end, and ``began`` counts those with a beginning."""

    def __init__(
        self,
        web: aiohttp.ClientSession,
        plain: httpx.AsyncClient,
        openais: openai.AsyncOpenAI,
        anthropics: anthropic.AsyncAnthropic,
    ) -> None:
        self.web = web
        self.plain = plain
        self.openai = openais
        self.anthropic = anthropics
        self.began = asyncio.Semaphore(0)

    async def submit(self, text: str) -> str:
        """Submit a request and return its id."""
        async with self.web.post("/api/requests", json=body(text)) as response:
            assert response.status == 202
            return str((await response.json())["requestId"])

    async def events(self) -> object:
        """Follow a request as server-sent events, with aiohttp."""
        request_id = await self.submit("events")
        async with self.web.get(f"/api/requests/{request_id}/events") as response:
            await response.content.readuntil(b"Hel")
            self.began.release()
            return last_event(await response.text())

    async def events_of_httpx(self) -> object:
        """Follow a request as server-sent events, with httpx."""
        request_id = await self.submit("events of httpx")
        text = ""
        async with self.plain.stream("GET", f"/api/requests/{request_id}/events") as response:
            async for piece in response.aiter_text():
                if "Hel" in piece:
                    self.began.release()
                text += piece
        return last_event(text)

    async def chunks(self) -> object:
        """Stream a chat completion with OpenAI's SDK."""
        stream = await self.openai.chat.completions.create(model="default", stream=True, messages=user("chunks"))
        try:
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    self.began.release()
        except openai.APIError as error:
            return error.code
        return "a clean end"

    async def messages(self) -> object:
        """Stream a message with Anthropic's SDK."""
        stream = await self.anthropic.messages.create(
            model="default", max_tokens=9, stream=True, messages=user("messages")
        )
        try:
            async for event in stream:
                if event.type == "content_block_delta":
                    self.began.release()
        except anthropic.APIStatusError as error:
            return code_of(error.body)
        return "a clean end"

    async def responses(self) -> object:
        """Stream a response with OpenAI's SDK."""
        stream = await self.openai.responses.create(model="default", stream=True, input="responses")
        async for event in stream:
            if event.type == "response.output_text.delta":
                self.began.release()
            if event.type == "response.failed":
                assert event.response.error is not None
                return event.response.error.model_dump()["type"]
        return "a clean end"

    async def completion(self) -> object:
        """Wait for a chat completion with OpenAI's SDK."""
        return await refused(self.openai.chat.completions.create(model="default", messages=user("completion")))

    async def response(self) -> object:
        """Wait for a response with OpenAI's SDK."""
        return await refused(self.openai.responses.create(model="default", input="response"))

    async def embedding(self) -> object:
        """Wait for an embedding with OpenAI's SDK."""
        return await refused(self.openai.embeddings.create(model="text-embedding-3-small", input="embedding"))

    async def message(self) -> object:
        """Wait for a message with Anthropic's SDK."""
        asked = self.anthropic.messages.create(model="default", max_tokens=9, messages=user("message"))
        try:
            await asked
        except anthropic.APIStatusError as error:
            return error.status_code, error.response.headers["retry-after"], code_of(error.body)
        return "an answer"

    async def poll(self) -> object:
        """Poll for the events after the first content."""
        request_id = await self.submit("poll")
        after = ""
        while True:
            query = {"wait": "50", "after": after} if after else {"wait": "50"}
            headers = {"Accept": "application/json"}
            async with self.web.get(f"/api/requests/{request_id}/events", params=query, headers=headers) as response:
                told = await response.json()
            if told["ended"]:
                return response.status, told["events"][-1]["error"]["code"]
            after = f"{told['position']['epoch']}:{told['position']['offset']}"
            if told["position"]["offset"] > 1:
                self.began.release()

    async def socket(self) -> object:
        """Submit and follow over the socket."""
        async with self.web.ws_connect("/ws") as socket:
            await socket.send_json({"type": "submit", "id": 1, **body("socket")})
            said: list[dict[str, Any]] = []
            while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                said.append(json.loads(message.data))
                if "delta" in said[-1].get("data", {}):
                    self.began.release()
            ended, disconnect = said[-2:]
            assert (disconnect["type"], disconnect["data"]["reconnect"]) == ("disconnect", True)
            return socket.close_code, ended["terminal"], ended["error"]["code"]

    async def nobody(self) -> object:
        """Submit a request and leave."""
        await self.submit("nobody")
        return "gone"


def user(text: str) -> Any:  # noqa: ANN401 - either vendor's type
    """Return one message."""
    return body(text)["messages"]


def last_event(text: str) -> object:
    """Return the type and the code of a stream's last event."""
    *_, last = text.rstrip("\n").split("\n\n")
    fields = dict(line.split(": ", 1) for line in last.split("\n") if not line.startswith(":"))
    return fields["event"], json.loads(fields["data"])["error"]["code"]


def code_of(vendors: object) -> object:
    """Return our code in Anthropic's envelope."""
    assert isinstance(vendors, dict)
    return vendors["error"]["details"]["error_code"]


async def refused(asked: Awaitable[object]) -> object:
    """Return the status, the delay and the code with which OpenAI's SDK fails."""
    try:
        await asked
    except openai.APIStatusError as error:
        return error.status_code, error.response.headers["retry-after"], error.code
    return "an answer"


STREAMED: Final[dict[Callable[[Clients], Coroutine[None, None, object]], object]] = {
    Clients.events: ("error", SHUT),
    Clients.events_of_httpx: ("error", SHUT),
    Clients.chunks: SHUT,
    Clients.messages: SHUT,
    Clients.responses: SHUT,
    Clients.poll: (200, SHUT),
    Clients.socket: (1000, True, SHUT),
}
WHOLE: Final[dict[Callable[[Clients], Coroutine[None, None, object]], object]] = {
    Clients.completion: (503, "1", SHUT),
    Clients.response: (503, "1", SHUT),
    Clients.message: (529, "1", SHUT),
    Clients.nobody: "gone",
}


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[Served], Awaitable[Clients]]]:
    """Return a function that makes the clients of a server."""
    async with AsyncExitStack() as stack:

        async def connect(served: Served) -> Clients:
            base, enter = served.address, stack.enter_async_context
            return Clients(
                await enter(aiohttp.ClientSession(base)),
                await enter(httpx.AsyncClient(base_url=base, timeout=SOON)),
                await enter(openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="k", max_retries=0)),
                await enter(anthropic.AsyncAnthropic(base_url=base, api_key="k", max_retries=0)),
            )

        yield connect


Connect = Callable[[Served], Awaitable[Clients]]


async def test_every_client_istold(root: Path, upstream: ScriptedUpstream, connect: Connect) -> None:
    """Streams get their dialect's end, waiting calls an HTTP error; new work is refused meanwhile, and probes answered.

    The log names the signals, the number of requests cut off, and for each call the shutdown as its failure.
    """
    async with serve(root, upstream, **LONG) as served:
        clients = await connect(served)
        expected = STREAMED | WHOLE
        upstream.script(*[STALLED] * len(expected))
        asked = [asyncio.create_task(client(clients)) for client in expected]
        await upstream.called(len(expected))
        upstream.script(Reply(before=(Stall(),)))
        asked.append(asyncio.create_task(clients.embedding()))
        await upstream.called(len(expected) + 1)
        for _ in STREAMED:
            await clients.began.acquire()
        served.stop()
        stopping = await served.logged("stopping")
        assert (stopping["signal"], stopping["requests"]) == ("SIGTERM", len(expected))
        assert await clients.completion() == (503, "1", SHUT)
        probes = [await clients.plain.get(f"/api/health/{name}") for name in ("ready", "live")]
        assert [probe.status_code for probe in probes] == [503, 200]
        served.stop(signal.SIGINT)
        async with asyncio.timeout(SOON):
            assert await asyncio.gather(*asked) == [*expected.values(), (503, "1", SHUT)]
        forced = await served.logged("forced_shutdown")
        assert (forced["level"], forced["signal"], forced["reason"]) == ("error", "SIGINT", "second signal")
        assert forced["requests"] == len(expected) + 1
        assert (await served.logged("stopped"))["whole"] is False
        assert await served.process.wait() == 1
    codes = [line["code"] for line in served.lines if line["event"] == "http" and "code" in line]
    assert codes == [SHUT] * 10  # five streams, four whole answers and a refused call; a poll and a socket end well


async def test_what_runs_is_finished_before_the_end(root: Path, upstream: ScriptedUpstream, connect: Connect) -> None:
    """A request that only a socket follows, and one that nobody follows, end by themselves; the exit code is 0.

    The socket gets the whole answer, and is disconnected after it. An idle socket is disconnected at once.
    """
    rests = [asyncio.Event(), asyncio.Event()]
    for rest in rests:
        upstream.script(Reply(steps=(Say("Hel"), Wait(rest), Say("lo"), End())))
    async with serve(root, upstream, **LONG) as served:
        clients = await connect(served)
        async with clients.web.ws_connect("/ws") as idle, clients.web.ws_connect("/ws") as busy:
            await idle.send_json({"type": "ping"})
            assert (await idle.receive_json())["type"] == "pong"
            await busy.send_json({"type": "submit", **body("socket")})
            while (await busy.receive_json())["data"].get("delta") != "Hel":
                pass
            await clients.submit("nobody")
            await upstream.called(2)
            served.stop()
            assert (await served.logged("stopping"))["requests"] == 2
            assert (await idle.receive_json())["data"]["reason"] == "shutdown"
            assert (await idle.receive()).type is aiohttp.WSMsgType.CLOSE
            rests[0].set()
            said = [json.loads(message.data) async for message in busy]
            assert [frame["type"] for frame in said] == ["update", "complete", "disconnect"]
            assert busy.close_code == 1000
        assert served.process.returncode is None
        rests[1].set()
        assert (await served.logged("stopped"))["whole"] is True
        assert await served.process.wait() == 0
        assert len(upstream.answered) == 2


async def test_a_poll_fetches_the_end_during_the_stop(root: Path, upstream: ScriptedUpstream, connect: Connect) -> None:
    """A client that polls over new connections gets the end of its request while the server stops."""
    rest = asyncio.Event()
    upstream.script(Reply(steps=(Say("Hel"), Wait(rest), Say("lo"), End())), STALLED)
    async with serve(root, upstream, **LONG) as served:
        clients = await connect(served)
        request_id = await clients.submit("poll")
        await upstream.called(1)
        await clients.submit("stalled")
        served.stop()
        await served.logged("stopping")
        rest.set()
        text, query, told = "", {"wait": "50"}, {"ended": False}
        while not told["ended"]:
            async with httpx.AsyncClient(base_url=served.address) as poll:
                address = f"/api/requests/{request_id}/events"
                told = (await poll.get(address, params=query, headers={"Accept": "application/json"})).json()
            query["after"] = f"{told['position']['epoch']}:{told['position']['offset']}"
            text += "".join(event["data"].get("delta", "") for event in told["events"])
        assert text == "Hello"
        served.stop()
        assert (await served.logged("forced_shutdown"))["requests"] == 1
        assert await served.process.wait() == 1


async def test_the_grace_is_a_bound(root: Path, upstream: ScriptedUpstream, connect: Connect) -> None:
    """A stream that does not end within the grace period gets its end after it."""
    upstream.script(STALLED)
    async with serve(root, upstream, SHUTDOWN_GRACE_SECONDS="0.2") as served:
        clients = await connect(served)
        asked = asyncio.create_task(clients.events())
        await clients.began.acquire()
        served.stop(signal.SIGINT)
        assert await asked == ("error", SHUT)
        forced = await served.logged("forced_shutdown")
        assert (forced["reason"], forced["signal"], forced["requests"]) == ("grace exceeded", "SIGINT", 1)
        assert await served.process.wait() == 1


async def test_clients_that_do_nothing_are_told_and_named(root: Path, upstream: ScriptedUpstream) -> None:
    """An upload that does not go on gets the HTTP error; a socket that does not answer the close frame is dropped."""
    async with serve(root, upstream, SHUTDOWN_GRACE_SECONDS="0.2") as served:
        wires = []
        for head in (UPLOAD, UPGRADE):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(served.address.rpartition(":")[2]))
            writer.write(head)
            wires.append((reader, writer))
        upload, socket = (reader for reader, _ in wires)
        assert b"101 Switching Protocols" in await socket.readuntil(b"\r\n\r\n")
        served.stop()
        assert (await served.logged("forced_shutdown"))["requests"] == 1
        refused = await upload.read()
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b'"code":"shutting_down"' in refused
        assert b'"reason":"shutdown"' in await socket.read()
        await served.logged("stopped")
        assert await served.process.wait() == 1
        for _, writer in wires:
            writer.close()
    ends = {line["path"]: (line["status"], line["code"]) for line in served.lines if line["event"] == "http"}
    assert ends == {"/api/requests": (503, SHUT), "/ws": (101, SHUT)}


async def test_nothing_runs_and_nothing_waits(root: Path, upstream: ScriptedUpstream) -> None:
    """Without a grace period a server in which nothing runs exits with 0, and calls nothing forced."""
    async with serve(root, upstream, SHUTDOWN_GRACE_SECONDS="0") as served:
        served.stop()
        assert (await served.logged("stopped"))["whole"] is True
        assert await served.process.wait() == 0
    assert "forced_shutdown" not in [line["event"] for line in served.lines]
