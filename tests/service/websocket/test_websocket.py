"""``/ws`` over real connections, with the real router and hub, and a scripted model."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from actors.fair_shares import Tenants
from actors.requests.router import RequestRouter
from actors.runtime import Actor, Deferred, System, handles
from actors.subscription_hub import SubscriptionHub
from protocol.errors import ActorStopped
from protocol.events import Delta
from protocol.gateway import Complete, Completion, ModelInfo, Progress, ResolveModel
from protocol.hub import GetHubStats, HubStats
from protocol.llm import TextPart
from service.auth.authenticator import Authenticator
from service.auth.keys import KeyRing
from service.auth.origins import OriginPolicy
from service.auth.passing import Passing
from service.config.settings import Settings, load_settings
from service.context import CONTAINER
from service.frames import text_frame
from service.lifecycle import Lifecycle
from service.middleware.calls import call_layer, stamp_responses
from service.telemetry.setup import Telemetry
from service.websocket import upgrade
from service.websocket.admission import BAD_FRAMES

if TYPE_CHECKING:
    from service.container import Container

Client = TestClient[web.Request, web.Application]
Socket = aiohttp.ClientWebSocketResponse
BODY = {"messages": [{"role": "user", "content": "hi"}]}


class Model(Actor[Complete | ResolveModel]):
    """Streams what the test puts into ``words``; None ends the answer."""

    def __init__(self, words: "asyncio.Queue[str | None]") -> None:
        self._words = words

    @handles(Complete)
    async def complete(self, message: Complete) -> "Completion | Deferred[Completion]":
        return self.defer(self._say(message))

    @handles(ResolveModel)
    async def resolve(self, message: ResolveModel) -> ModelInfo:
        return ModelInfo(message.model, "scripted")

    async def _say(self, message: Complete) -> Completion:
        text = ""
        while (word := await self._words.get()) is not None:
            text += word
            if message.sink is not None:
                await message.sink.tell(Progress(events=(Delta(word),)))
        return Completion(parts=(TextPart(text=text),), provider="scripted", model="m")


class Service:
    """The parts that the socket needs, and its clients."""

    def __init__(
        self, system: System, settings: Settings, exporter: InMemorySpanExporter | None, max_connections: int
    ) -> None:
        self.system = system
        self.settings = settings
        self.auth = Authenticator(KeyRing(key.get_secret_value() for key in self.settings.api_keys))
        self.lifecycle = Lifecycle()
        self.passing = Passing()
        self.lifecycle.serve()
        self.words: asyncio.Queue[str | None] = asyncio.Queue(10_000)
        gateway = system.spawn(lambda: Model(self.words), name="model")
        self.router = system.spawn(lambda: RequestRouter(gateway=gateway), name="router")
        self.hub = system.spawn(lambda: SubscriptionHub(text_frame, max_subscriptions=3), name="hub")
        self.telemetry = Telemetry()
        if exporter is not None:
            provider = TracerProvider()
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            self.telemetry = Telemetry(provider)
        layer = call_layer(self.auth, self.lifecycle, None, OriginPolicy(settings.origins()))
        self.app = web.Application(middlewares=[layer])
        self.app.on_response_prepare.append(stamp_responses(self.lifecycle))
        self.tenants = Tenants()
        self.app[CONTAINER] = cast("Container", SimpleNamespace(**vars(self)))
        upgrade.add_routes(self.app, limits=upgrade.SocketLimits(total=max_connections))
        self.client: Client = TestClient(TestServer(self.app))

    async def connect(
        self,
        *,
        origin: str | None = None,
        headers: Mapping[str, str] | None = None,
        protocols: tuple[str, ...] = (),
        autoping: bool = True,
    ) -> Socket:
        """Open a socket."""
        return await self.client.ws_connect(
            "/ws", origin=origin, headers=headers, protocols=protocols, autoping=autoping
        )

    def say(self, *words: str | None) -> None:
        """Let the model stream these words."""
        for word in words:
            self.words.put_nowait(word)


MakeService = Callable[..., Awaitable[Service]]


@pytest.fixture
async def make() -> AsyncIterator[MakeService]:
    """Start services, and stop them."""
    async with AsyncExitStack() as stack:

        async def start(
            exporter: InMemorySpanExporter | None = None, max_connections: int = 100, **settings: object
        ) -> Service:
            system = await stack.enter_async_context(System())
            service = Service(system, load_settings(env_file=None, **settings), exporter, max_connections)
            stack.push_async_callback(service.client.close)
            await service.client.start_server()
            return service

        yield start


async def receive(socket: Socket) -> dict[str, Any]:
    """Return the next frame."""
    frame: dict[str, Any] = json.loads(await socket.receive_str())
    return frame


async def submit(socket: Socket) -> str:
    """Submit a request that is not shared, and return its id."""
    await socket.send_json({"type": "submit", "id": 1, **BODY, "options": {"dedupe": False}})
    ack = await receive(socket)
    assert (ack["type"], ack["id"]) == ("ack", 1)
    return cast("str", ack["requestId"])


async def follow(socket: Socket, count: int | None = None) -> list[dict[str, Any]]:
    """Return the next ``count`` frames, or all to the end."""
    frames: list[dict[str, Any]] = []
    while len(frames) != count:
        frames.append(await receive(socket))
        if frames[-1]["type"] == "complete" or frames[-1].get("terminal"):
            break
    return frames


def text_of(frames: list[dict[str, Any]]) -> str:
    """Assemble the text."""
    return "".join(frame["data"].get("delta", "") for frame in frames if frame["type"] == "update")


async def told(socket: Socket) -> None:
    """Read the disconnect and the close; anything else fails the test."""
    disconnect = await receive(socket)
    delay = disconnect["data"].pop("delayMs")
    assert disconnect == {"type": "disconnect", "data": {"code": 4001, "reason": "shutdown", "reconnect": True}}
    assert 0 <= delay <= 8000
    assert (await socket.receive()).type is WSMsgType.CLOSE
    assert socket.close_code == 1000


async def closed(socket: Socket) -> int | None:
    """Read to the end, and return the close code."""
    while (await socket.receive()).type not in {WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR}:
        pass
    return socket.close_code


# ------------------------------------------------------------------------------------------------------- the answer


async def test_submitting_acknowledges_and_streams_to_the_end(make: MakeService) -> None:
    """One frame in; the ack with the request's id and position, the updates, the end."""
    service = await make()
    socket = await service.connect()
    await socket.send_json({"type": "submit", "id": "s", **BODY})
    ack = await receive(socket)
    assert (ack["id"], ack["data"]["recovered"]) == ("s", True)
    assert set(ack["data"]) == {"epoch", "offset", "state", "recovered"}
    service.say("Hel", "lo", None)
    frames = await follow(socket)
    assert [frame["offset"] for frame in frames] == [1, 2, 3, 4]
    assert {frame["requestId"] for frame in frames} == {ack["requestId"]}
    assert frames[0]["data"] == {"state": "running", "model": "default"}
    assert text_of(frames) == "Hello"
    assert frames[-1]["data"]["coreResult"]["text"] == "Hello"


async def test_the_plain_protocol_works_without_ids(make: MakeService) -> None:
    """A client that sends no id gets update, complete, error and pong, and nothing else."""
    service = await make()
    socket = await service.connect()
    await socket.send_json({"type": "submit", **BODY})
    service.say("a", None)
    frames = await follow(socket)
    await socket.send_json({"type": "subscribe", "requestId": frames[0]["requestId"]})
    assert await follow(socket) == frames
    await socket.send_json({"type": "subscribe", "requestId": "req_none"})
    refusal = await receive(socket)
    assert (refusal["type"], refusal["requestId"], refusal["error"]["code"]) == (
        "error",
        "req_none",
        "request_not_found",
    )
    await socket.send_json({"type": "unsubscribe", "requestId": frames[0]["requestId"]})
    await socket.send_json({"type": "cancel", "requestId": frames[0]["requestId"]})
    await socket.send_json({"type": "ack", "requestId": frames[0]["requestId"], "offset": 2})
    await socket.send_json({"type": "ping"})
    assert await receive(socket) == {"type": "pong"}


async def test_a_hundred_cuts_and_the_same_text(make: MakeService) -> None:
    """Clients that reconnect at random offsets, or after the end, have the same events as one that stayed."""
    service, chance = await make(), random.Random(7)
    stayed = await service.connect()
    request_id = await submit(stayed)
    words = [f"{number} " for number in range(600)]
    text, after, socket = "", None, await service.connect()
    for _ in range(100):
        await socket.send_json({"type": "subscribe", "requestId": request_id, "after": after, "id": 1})
        ack = await receive(socket)
        service.say(*words[:6])
        del words[:6]
        frames = await follow(socket, chance.randint(1, 6))
        assert (frames[0]["offset"], ack["data"]["recovered"]) == ((after["offset"] if after else 0) + 1, True)
        text += text_of(frames)
        after = {"epoch": ack["data"]["epoch"], "offset": frames[-1]["offset"]}
        await socket.close()
        socket = await service.connect()
    service.say(None)
    await socket.send_json({"type": "subscribe", "requestId": request_id, "after": after})
    text += text_of(await follow(socket))
    whole = "".join(f"{number} " for number in range(600))
    assert text == text_of(await follow(stayed)) == whole
    late = await service.connect()
    await late.send_json({"type": "subscribe", "requestId": request_id})
    assert text_of(await follow(late)) == whole


async def test_cancelling_ends_the_request_for_all_who_follow_it(make: MakeService) -> None:
    """The acknowledgement has the state, and the followers get a terminal error."""
    service = await make()
    socket, other = await service.connect(), await service.connect()
    request_id = await submit(socket)
    await other.send_json({"type": "cancel", "id": 6, "requestId": request_id})
    ack = await receive(other)
    assert (ack["id"], ack["requestId"], ack["data"]["state"]) == (6, request_id, "cancelled")
    end = (await follow(socket))[-1]
    assert (end["error"]["code"], end["error"]["temporary"], end["terminal"]) == ("cancelled", False, True)


async def test_leaving_only_unsubscribes(make: MakeService) -> None:
    """A lost socket is removed from the hub; the request goes on."""
    service = await make()
    socket = await service.connect()
    request_id = await submit(socket)
    await follow(socket, 1)
    await socket.close()
    service.say("alone", None)
    again = await service.connect()
    await again.send_json({"type": "subscribe", "requestId": request_id})
    assert text_of(await follow(again)) == "alone"
    stats = await service.hub.ask(GetHubStats(), timeout=5)
    assert stats == HubStats(sockets=0, subscriptions=0, requests=0)


async def test_unsubscribing_is_acknowledged_and_stops_the_updates(make: MakeService) -> None:
    """After the ack there are no more frames of the request."""
    service = await make()
    socket, other = await service.connect(), await service.connect()
    request_id = await submit(socket)
    await other.send_json({"type": "subscribe", "requestId": request_id})
    await follow(other, 1)
    await follow(socket, 1)
    await socket.send_json({"type": "unsubscribe", "id": 2, "requestId": request_id})
    assert await receive(socket) == {"type": "ack", "id": 2, "requestId": request_id}
    service.say("x", None)
    await follow(other)
    await socket.send_json({"type": "ping", "id": 3})
    assert await receive(socket) == {"type": "pong", "id": 3}


async def test_positions_that_can_not_be_had(make: MakeService) -> None:
    """Another epoch gets a snapshot; beyond the end is refused, and so is a replay of another epoch."""
    service = await make()
    socket = await service.connect()
    request_id = await submit(socket)
    service.say("Hel", "lo", None)
    await follow(socket)
    foreign, beyond = {"epoch": "other", "offset": 2}, None
    await socket.send_json({"type": "subscribe", "id": 2, "requestId": request_id, "after": foreign})
    ack, snapshot, end = await receive(socket), await receive(socket), await receive(socket)
    assert ack["data"]["recovered"] is False
    assert (snapshot["snapshot"], snapshot["epoch"]) == (True, ack["data"]["epoch"])
    assert snapshot["data"]["text"] == "Hello"
    assert end["type"] == "complete"
    beyond = {"epoch": ack["data"]["epoch"], "offset": 99}
    for position, mode in ((beyond, None), (foreign, "replay")):
        frame = {"type": "subscribe", "id": 3, "requestId": request_id, "after": position, "mode": mode}
        await socket.send_json(frame)
        refusal = await receive(socket)
        assert (refusal["id"], refusal["error"]["code"]) == (3, "unrecoverable_position")
        assert "terminal" not in refusal


# ------------------------------------------------------------------------------------------------------ bad manners


async def test_a_bad_frame_is_answered_and_the_socket_stays(make: MakeService) -> None:
    """Malformed, unknown, incomplete, invalid frames: each has its error, with the id if it could be read."""
    service = await make()
    socket = await service.connect()
    bad = {
        "{": (None, "malformed_json"),
        '{"type":"publish","id":5,"channel":"room:7"}': (5, "invalid_request"),
        '{"type":"subscribe","id":6}': (6, "invalid_request"),
        '{"type":"submit","id":7,"messages":[]}': (7, "invalid_request"),
        '{"type":"submit","id":8,"messages":[{"role":"user","content":"x"}],"schema":{"type":3}}': (
            8,
            "invalid_schema",
        ),
        '{"type":"cancel","id":9,"requestId":"req_none"}': (9, "request_not_found"),
    }
    for text, (frame_id, code) in bad.items():
        await socket.send_str(text)
        answer = await receive(socket)
        assert (answer.get("id"), answer["error"]["code"]) == (frame_id, code)
        assert answer["error"]["remedy"]
    await socket.send_json({"type": "ping"})
    assert await receive(socket) == {"type": "pong"}


async def test_too_many_bad_frames_close_the_socket(make: MakeService) -> None:
    """Each bad frame gets an error, and the twentieth in a minute closes the socket."""
    service = await make()
    socket = await service.connect()
    for _ in range(BAD_FRAMES):
        await socket.send_str("{")
    for _ in range(BAD_FRAMES):
        assert (await receive(socket))["type"] == "error"
    assert await closed(socket) == 4501


async def test_a_message_that_is_too_large_closes_the_socket(make: MakeService) -> None:
    """A message has at most 64 KiB."""
    service = await make()
    socket = await service.connect()
    await socket.send_str("x" * (64 * 1024 + 1))
    assert await closed(socket) == 1009


async def test_a_socket_has_a_limit_of_subscriptions(make: MakeService) -> None:
    """A subscription above the limit is an error that names the request, which runs on."""
    service = await make()
    socket = await service.connect()
    for _ in range(3):
        await socket.send_json({"type": "submit", **BODY, "options": {"dedupe": False}})
        await follow(socket, 1)
    await socket.send_json({"type": "submit", "id": 4, **BODY, "options": {"dedupe": False}})
    refusal = await receive(socket)
    assert (refusal["id"], refusal["error"]["code"]) == (4, "connection_limit")
    assert refusal["requestId"].startswith("req_")


# ------------------------------------------------------------------------------------------------ before the upgrade


async def test_only_a_websocket_client_gets_in(make: MakeService) -> None:
    """A request without an upgrade gets the remedy."""
    response = await (await make()).client.get("/ws")
    assert response.status == 426
    assert (await response.json())["code"] == "upgrade_required"


async def test_the_origin_is_checked_in_production(make: MakeService) -> None:
    """An origin that is not allowed gets a 403 before the upgrade; programs, which send none, are accepted.

    In development any page may open a socket, if it then has to send a key.
    """
    service = await make(environment="production", ws_allowed_origins=("https://ours.example",))
    with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
        await service.connect(origin="https://theirs.example")
    assert raised.value.status == 403
    assert not (await service.connect(origin="https://ours.example")).closed
    assert not (await service.connect()).closed
    development = await make(api_keys=("a-key-of-the-tests",))
    assert not (await development.connect(origin="https://theirs.example")).closed
    without_keys = await make()
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await without_keys.connect(origin="https://theirs.example")


async def test_a_key_is_needed_where_keys_are_set(make: MakeService) -> None:
    """An unknown key is refused before the upgrade; with a known key other tenants' requests are not found."""
    service = await make(api_keys=("the-first-of-two-keys", "the-second-of-two-keys"))
    with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
        await service.connect(headers={"Authorization": "Bearer three"})
    assert raised.value.status == 401
    mine = await service.connect(headers={"Authorization": "Bearer the-first-of-two-keys"})
    theirs = await service.connect(headers={"x-api-key": "the-second-of-two-keys"})
    request_id = await submit(mine)
    await theirs.send_json({"type": "subscribe", "id": 2, "requestId": request_id})
    assert (await receive(theirs))["error"]["code"] == "request_not_found"


async def test_the_subprotocol_is_optional(make: MakeService) -> None:
    """``tidegate.v1`` is selected if it is offered."""
    service = await make()
    assert (await service.connect(protocols=("other", "tidegate.v1"))).protocol == "tidegate.v1"
    assert (await service.connect()).protocol is None


async def test_connections_are_bounded(make: MakeService) -> None:
    """A connection above the limit is closed with a code that delays the reconnect."""
    service = await make(max_connections=1)
    first = await service.connect()
    assert await closed(await service.connect()) == 4504
    await first.close()


# ----------------------------------------------------------------------------------------------------- the transport


async def test_a_ping_of_the_protocol_is_answered(make: MakeService) -> None:
    """A WebSocket ping gets a pong with its payload."""
    service = await make()
    socket = await service.connect(autoping=False)
    await socket.ping(b"there?")
    message = await socket.receive()
    assert (message.type, message.data) == (WSMsgType.PONG, b"there?")


async def test_a_batch_is_one_message(make: MakeService) -> None:
    """With ``batch`` all frames of a tick are one message, a line each; otherwise each is a message."""
    service = await make()
    first, second = await service.connect(), await service.connect()
    request_id = await submit(first)
    service.say("a", "b", None)
    plain = await follow(first)
    assert text_of(plain) == "ab"
    await second.send_json({"type": "subscribe", "id": 1, "requestId": request_id, "batch": True})
    lines = (await second.receive_str()).split("\n")
    frames = [json.loads(line) for line in lines]
    assert [frame["type"] for frame in frames] == ["ack", *(frame["type"] for frame in plain)]
    assert frames[1:] == plain


async def test_the_close_code_is_echoed(make: MakeService) -> None:
    """A client that closes gets its own code back, at once."""
    service = await make()
    socket = await service.connect()
    await socket.close(code=4999)
    assert socket.close_code == 4999


async def test_everybody_is_told_when_the_server_goes(make: MakeService) -> None:
    """A ``disconnect`` frame and 1000, once, also without a subscription; new work is refused."""
    service = await make()
    busy, idle = await service.connect(), await service.connect()
    await submit(busy)
    await follow(busy, 1)
    service.lifecycle.stop()
    await upgrade.disconnect_all(service.app)
    for socket in (busy, idle):
        await told(socket)
    with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
        await service.connect()
    assert raised.value.status == 503


async def test_an_upgrade_under_way_is_told_too(make: MakeService) -> None:
    """A socket that was admitted just before the stop is disconnected as soon as it is open."""
    service = await make()
    await upgrade.disconnect_all(service.app)
    await told(await service.connect())


async def test_everybody_is_told_without_the_hub(make: MakeService) -> None:
    """Where the hub is stopped, the error is raised, and the sockets are disconnected all the same."""
    service = await make()
    socket = await service.connect()
    await service.system.stop(service.hub)
    with pytest.raises(ActorStopped):
        await upgrade.disconnect_all(service.app)
    await told(socket)


async def test_a_frame_has_a_span_and_a_socket_has_none(make: MakeService) -> None:
    """A submit begins a new trace, linked to the upgrade's caller; the state has its id."""
    exporter = InMemorySpanExporter()
    service = await make(exporter)
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    socket = await service.connect(headers={"traceparent": parent})
    await submit(socket)
    await socket.send_json({"type": "ping"})
    await follow(socket, 1)
    await receive(socket)
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.parent) == ("submit /ws", None)
    assert [f"{link.context.trace_id:032x}" for link in span.links] == ["4bf92f3577b34da6a3ce929d0e0e4736"]
