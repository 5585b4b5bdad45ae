"""The client against the real service, through a proxy that aborts connections; and against a scripted socket."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web

from actors.testing import End, Reply, Say, ScriptedUpstream, Wait, say
from protocol.errors import (
    AccessDenied,
    ConfigurationError,
    InvalidRequest,
    NotFound,
    ProviderError,
    RequestCancelled,
    ShuttingDown,
    Unreachable,
)
from protocol.events import Position
from protocol.llm import ChatMessage
from protocol.requests import RequestOptions, SubmitBody
from service.client import Client
from service.client.backoff import Backoff
from service.client.following import Finished, Following, Update
from service.config.settings import load_settings
from service.container import open_container
from service.server.server import listening
from tests.cutting_proxy import CuttingProxy

BODY = SubmitBody(messages=(ChatMessage(role="user", content="hi"),))
WORDS = [f"{number} шу, " for number in range(1000)]
TEXT = "".join(WORDS)


@asynccontextmanager
async def serving(upstream: ScriptedUpstream, **settings: Any) -> AsyncIterator[str]:  # noqa: ANN401 - field by field
    """Serve on a free port with ``upstream`` as the provider; yields the address."""
    given = load_settings(
        None,
        port=0,
        openai_api_key="made-up",
        openai_base_url=upstream.openai_url,
        shutdown_grace_seconds=0,
        **settings,
    )
    async with open_container(given) as container, listening(container) as (_, address):
        container.lifecycle.serve()
        yield address
        container.lifecycle.stop()


async def gather(events: Following, each: Callable[[str], object] = lambda _: None) -> tuple[str, Finished]:
    """Follow to the end, as a user of the client does; ``each`` is called with the text so far."""
    text = ""
    async for event in events:
        if isinstance(event, Finished):
            return text, event
        text = event.text if event.replaces else text + event.text
        each(text)
    raise AssertionError("the answer has no end")


# ------------------------------------------------------------------------------------------- against the real service


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ring", [1024, 262_144])
async def test_cut_anywhere_the_text_is_whole(upstream: ScriptedUpstream, seed: int, ring: int) -> None:
    """After a hundred aborted connections a client has exactly the text of the one call."""
    chance = random.Random(seed)
    half = asyncio.Event()
    upstream.script(Reply(steps=(*map(Say, WORDS[:500]), Wait(half), *map(Say, WORDS[500:]), End())))

    def release(text: str) -> None:
        if len(text) >= len("".join(WORDS[:500])):
            half.set()

    cuts = [chance.randrange(200, 2000) for _ in range(100)]
    async with serving(upstream, log_max_bytes=ring) as address, CuttingProxy(address, cuts) as proxy:
        async with Client(proxy.url, base=0.0) as client:
            receipt = await client.submit(BODY)
            text, finished = await gather(client.follow(receipt.request_id, after=receipt.position), release)
        assert text == TEXT
        assert json.loads(bytes(finished.result)) == {
            "text": TEXT,
            "toolCalls": [],
            "parts": [{"type": "text", "text": TEXT}],
        }
        assert proxy.connections > (20 if ring < len(TEXT) else 80)
        assert upstream.calls == 1


async def test_the_json_value_so_far_comes_with_the_text(upstream: ScriptedUpstream) -> None:
    """With ``partial`` a client gets the value so far, also after a reconnect."""
    half = asyncio.Event()
    upstream.script(Reply(steps=(Say('{"name": "Piz'), Wait(half), Say('za"}'), End())))
    body = msgspec.structs.replace(BODY, schema={"type": "object"}, options=RequestOptions(partial=True))
    partials: list[Any] = []
    async with serving(upstream) as address, Client(address) as client:
        receipt = await client.submit(body)
        position = receipt.position
        while position.offset < 3:
            async with client.follow(receipt.request_id, after=position) as events:
                update = await anext(events)
            assert isinstance(update, Update)
            position = update.position
            partials.append(update.partial and json.loads(bytes(update.partial)))
            if update.partial:
                half.set()
        state = await client.state(receipt.request_id)
        assert json.loads(bytes(state.core_result or b"")) == {"name": "Pizza"}
    assert partials == [None, {"name": "Piz"}, {"name": "Pizza"}]


async def test_two_clients_one_position_each(upstream: ScriptedUpstream) -> None:
    """One client may continue from another's position: together they have the text."""
    upstream.script(say(*WORDS))
    async with serving(upstream) as address, Client(address) as client:
        receipt = await client.submit(BODY)
        first, position = "", None
        async with client.follow(receipt.request_id) as events:
            async for event in events:
                assert not isinstance(event, Finished)
                first += event.text
                position = event.position
                if event.position.offset > 20:
                    break
        second, _ = await gather(client.follow(receipt.request_id, after=position))
        assert first + second == TEXT


async def test_nothing_after_the_end(upstream: ScriptedUpstream) -> None:
    """Following from the end ends at once."""
    async with serving(upstream) as address, Client(address) as client:
        receipt = await client.submit(BODY)
        _, finished = await gather(client.follow(receipt.request_id))
        assert [event async for event in client.follow(receipt.request_id, after=finished.position)] == []


async def test_a_restarted_service_has_forgotten(upstream: ScriptedUpstream) -> None:
    """After the service is replaced by a new one, following raises that the request does not exist."""
    upstream.script(Reply(steps=(Say("Hel"), Wait(asyncio.Event()))))
    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(serving(upstream))
        proxy = await stack.enter_async_context(CuttingProxy(old))
        client = await stack.enter_async_context(Client(proxy.url, base=0.0))
        events = client.follow((await client.submit(BODY)).request_id)
        async for event in events:
            if isinstance(event, Finished) or event.text:
                break
        proxy.target = await stack.enter_async_context(serving(upstream))
        proxy.cut()
        with pytest.raises(NotFound) as raised:
            await anext(events)
        assert raised.value.code == "request_not_found"


async def test_cancelled(upstream: ScriptedUpstream) -> None:
    """Cancelling ends the stream of other followers, and the state says so."""
    upstream.script(Reply(steps=(Say("Hel"), Wait(asyncio.Event()))))
    async with serving(upstream) as address, Client(address) as client:
        request_id = (await client.submit(BODY)).request_id
        events = client.follow(request_id)
        await anext(events)
        assert (await client.cancel(request_id)).request_id == request_id
        with pytest.raises(RequestCancelled):
            await gather(events)
        assert (await client.state(request_id)).assistant_status == "cancelled"


async def test_a_failed_request_raises_its_failure(upstream: ScriptedUpstream) -> None:
    """A request's error is raised with its own code."""
    upstream.script(Reply(status=401))
    async with serving(upstream) as address, Client(address) as client:
        with pytest.raises(ProviderError) as raised:
            await gather(client.follow((await client.submit(BODY)).request_id))
        assert raised.value.code == "provider_credentials"


async def test_what_the_service_refuses(upstream: ScriptedUpstream) -> None:
    """A refused submission raises the service's error with the wrong fields; it is not retried."""
    async with serving(upstream) as address, Client(address) as client:
        with pytest.raises(InvalidRequest) as raised:
            await client.submit(SubmitBody(messages=BODY.messages, options=RequestOptions(temperature=9)))
        assert [fault.path for fault in raised.value.errors] == ["$.options.temperature"]
        with pytest.raises(NotFound) as missing:
            await client.submit(SubmitBody(messages=BODY.messages, model="local/nothing"))
        assert missing.value.code == "model_not_found"
        with pytest.raises(NotFound):
            await client.state("req_of_nobody")


async def test_the_same_key_is_the_same_request(upstream: ScriptedUpstream) -> None:
    """Submitting again with the same idempotency key returns the first request."""
    async with serving(upstream) as address, Client(address) as client:
        first = await client.submit(BODY, idempotency_key="k")
        assert (await client.submit(BODY, idempotency_key="k")).request_id == first.request_id


async def test_keys(upstream: ScriptedUpstream) -> None:
    """Without the key neither calls nor sockets are accepted; with it both are."""
    async with serving(upstream, api_keys="the-key-of-the-tests") as address:
        async with Client(address) as client:
            with pytest.raises(AccessDenied):
                await client.submit(BODY)
            with pytest.raises(AccessDenied):
                await anext(client.follow("req_1"))
        async with Client(address, key="the-key-of-the-tests") as client:
            text, _ = await gather(client.follow((await client.submit(BODY)).request_id))
            assert text == "Hello world"


# ----------------------------------------------------------------------------------------- against a scripted socket


class ScriptedSocket:
    """Answers the n-th subscription with the n-th row of frames; a number closes the socket with that code."""

    def __init__(self, *rows: Sequence[dict[str, Any] | str | int]) -> None:
        self.subscribed: list[dict[str, Any]] = []
        self._rows = rows

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one connection."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.subscribed.append(await socket.receive_json())
        for frame in self._rows[len(self.subscribed) - 1]:
            if isinstance(frame, int):
                await socket.close(code=frame)
            else:
                await socket.send_str(frame if isinstance(frame, str) else json.dumps({"requestId": "r", **frame}))
        async for _ in socket:
            pass
        return socket


def ack(offset: int = 0, *, epoch: str = "e", recovered: bool = True, state: str = "running") -> dict[str, Any]:
    """An acknowledgement of the subscription."""
    data = {"epoch": epoch, "offset": offset, "state": state, "recovered": recovered}
    return {"type": "ack", "id": 1, "data": data}


def update(offset: int, delta: str, first: int | None = None) -> dict[str, Any]:
    """A piece of text."""
    spanning = {} if first is None else {"from": first}
    return {"type": "update", "offset": offset, "data": {"delta": delta}, **spanning}


def complete(offset: int) -> dict[str, Any]:
    """The end."""
    return {"type": "complete", "offset": offset, "data": {"coreResult": {}, "finishReason": "stop", "usage": {}}}


async def heard(socket: ScriptedSocket, **options: Any) -> str:  # noqa: ANN401 - the client's own
    """Follow a scripted socket, and return the text."""
    app = web.Application()
    app.router.add_get("/ws", socket.serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with Client(address, **{"base": 0.0, **options}) as client:
            return (await gather(client.follow("r")))[0]
    finally:
        await runner.cleanup()


async def test_repeated_frames_are_dropped() -> None:
    """A frame at or below the last offset is ignored."""
    frames = [ack(), update(1, "a"), update(1, "a"), update(2, "b"), update(1, "a"), complete(3)]
    assert await heard(ScriptedSocket(frames)) == "ab"


async def test_merged_frames_count_for_all_they_hold() -> None:
    """After a merged frame the position is its last offset."""
    socket = ScriptedSocket([ack(), update(1, "a"), update(5, "bcde", first=2), 1001], [ack(5), complete(6)])
    assert await heard(socket) == "abcde"
    assert socket.subscribed[1]["after"] == {"epoch": "e", "offset": 5}


async def test_a_gap_is_never_skipped() -> None:
    """When a frame is missing the client reconnects for it."""
    socket = ScriptedSocket(
        [ack(), update(1, "a"), update(3, "c")], [ack(3), update(2, "b"), update(3, "c"), complete(4)]
    )
    assert await heard(socket) == "abc"
    assert socket.subscribed[1]["after"] == {"epoch": "e", "offset": 1}


async def test_garbage_is_a_lost_connection() -> None:
    """A malformed frame ends the connection, not the subscription."""
    assert await heard(ScriptedSocket([ack(), update(1, "a"), "{"], [ack(1), update(2, "b"), complete(3)])) == "ab"


async def test_a_snapshot_replaces_the_text_and_the_epoch() -> None:
    """A new epoch replaces the position, even with lower offsets."""
    snapshot = {"type": "update", "offset": 1, "epoch": "f", "snapshot": True, "data": {"text": "new "}}
    socket = ScriptedSocket(
        [ack(), update(1, "o"), update(2, "l"), update(3, "d"), 4001],
        [ack(1, epoch="f", recovered=False), snapshot, update(2, "text"), 4001],
        [ack(2, epoch="f"), complete(3)],
    )
    assert await heard(socket) == "new text"
    assert socket.subscribed[2]["after"] == {"epoch": "f", "offset": 2}


async def test_an_attempt_that_starts_anew_voids_the_text() -> None:
    """A restart replaces the content before it; a failed attempt without one keeps it."""
    kept = {"type": "update", "offset": 2, "data": {"attemptFailed": {"code": "provider_error", "restart": False}}}
    void = {"type": "update", "offset": 4, "data": {"attemptFailed": {"code": "provider_error", "restart": True}}}
    frames = [ack(), update(1, "a"), kept, update(3, "b"), void, update(5, "c"), complete(6)]
    assert await heard(ScriptedSocket(frames)) == "c"
    assert await heard(ScriptedSocket([ack(), update(1, "a"), kept, update(3, "b"), complete(4)])) == "ab"


async def test_the_server_says_when_to_come_back() -> None:
    """After a ``disconnect`` frame the client waits for exactly the delay in it."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    bye = {"type": "disconnect", "data": {"code": 4001, "reason": "shutdown", "reconnect": True, "delayMs": 7000}}
    assert await heard(ScriptedSocket([ack(), update(1, "a"), bye, 1000], [ack(1), complete(2)]), sleep=sleep) == "a"
    assert waits == [7.0]


async def test_the_server_says_not_to_come_back() -> None:
    """A ``disconnect`` without ``reconnect``, and a close code from 4500 on, are final."""
    bye = {"type": "disconnect", "data": {"code": 4503, "reason": "forced", "reconnect": False}}
    with pytest.raises(ShuttingDown):
        await heard(ScriptedSocket([ack(), bye]))
    with pytest.raises(AccessDenied) as raised:
        await heard(ScriptedSocket([ack(), update(1, "a"), 4500]))
    assert raised.value.code == "unauthenticated"


async def test_a_position_beyond_the_end_begins_anew() -> None:
    """A position that the service refuses is dropped, and the text with it."""
    refused = {"type": "error", "id": 1, "error": {"code": "unrecoverable_position", "message": "no"}}
    socket = ScriptedSocket(
        [ack(), update(1, "a"), update(2, "b"), 1001], [refused], [ack(), update(1, "c"), complete(2)]
    )
    assert await heard(socket) == "c"
    assert "after" not in socket.subscribed[2]


async def test_a_busy_service_is_asked_again() -> None:
    """A temporary error is retried."""
    full = {"type": "error", "id": 1, "error": {"code": "connection_limit", "message": "full", "temporary": True}}
    assert await heard(ScriptedSocket([full], [ack(), update(1, "a"), complete(2)])) == "a"


# ------------------------------------------------------------------------------------------------------------ patience


async def exhaust(backoff: Backoff) -> None:
    """Wait repeatedly, without success."""
    while True:
        await backoff.wait("no answer")


async def test_waits_are_jittered_and_bounded() -> None:
    """Delays stay below the doubling ceiling, and after the patience ``Unreachable`` is raised; success resets both."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    backoff = Backoff(10.0, base=1.0, cap=4.0, sleep=sleep, clock=lambda: sum(waits))
    for _ in range(3):
        count = len(waits)
        with pytest.raises(Unreachable, match="gave up after 10 s"):
            await exhaust(backoff)
        ceilings = (1.0, 2.0, *[4.0] * 1000)
        assert all(wait <= ceiling for wait, ceiling in zip(waits[count:], ceilings, strict=False))
        assert sum(waits[count:]) <= 10.0
        backoff.success()
    assert len(set(waits)) == len(waits)


async def test_nobody_there() -> None:
    """Where nothing listens, calls and followers raise ``Unreachable`` within the patience."""
    async with CuttingProxy("http://127.0.0.1:1") as proxy:
        url = proxy.url
    async with Client(url, call_patience=0.0) as client:
        for attempt in (client.submit(BODY), client.state("r"), anext(client.follow("r"))):
            with pytest.raises(Unreachable) as raised:
                await attempt
            assert "tidegate serve" in raised.value.problem.remedy


@pytest.mark.parametrize("url", ["127.0.0.1:3000", "ftp://127.0.0.1", ""])
def test_no_address(url: str) -> None:
    """An invalid URL is refused at once."""
    with pytest.raises(ConfigurationError, match="http://"):
        Client(url)


async def test_another_service() -> None:
    """Another server at the address is recognized."""

    async def page(_request: web.Request) -> web.Response:
        return web.Response(text="<html>")

    app = web.Application()
    app.router.add_post("/api/requests", page)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with Client(f"http://127.0.0.1:{runner.addresses[0][1]}", call_patience=0.0) as client:
            with pytest.raises(ConfigurationError, match="not as this service"):
                await client.submit(BODY)
            with pytest.raises(NotFound):
                await anext(client.follow("r"))
    finally:
        await runner.cleanup()


async def test_outside_of_its_block_a_client_is_closed() -> None:
    """A client that was not entered raises how to use it."""
    with pytest.raises(RuntimeError, match="async with"):
        Client("http://127.0.0.1:1").follow("r")


def test_positions_are_values() -> None:
    """A position can be parsed from its text."""
    assert Position.parse(str(Position("e", 3))) == Position("e", 3)
