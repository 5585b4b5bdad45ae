"""Authentication on ``/ws``: by header, by ticket, by the first frame."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from service.websocket import upgrade
from tests.service.bench import BODY, Service, open_service

KEY = "a-key-of-the-tests"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service that has a key."""
    async with open_service(api_keys=(KEY, "another-key-of-the-tests")) as running:
        yield running


async def connect(service: Service, query: str = "", **headers: str) -> aiohttp.ClientWebSocketResponse:
    """Open a socket."""
    return await service.client.ws_connect(f"{service.base}/ws{query}", headers=headers)


async def say(socket: aiohttp.ClientWebSocketResponse, **frame: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Send a frame, and return the answer."""
    await socket.send_json(frame)
    return await heard(socket)


async def heard(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    """Return the next frame."""
    frame: dict[str, Any] = json.loads(await socket.receive_str())
    return frame


async def closed(socket: aiohttp.ClientWebSocketResponse) -> int | None:
    """Return the service's close code."""
    message = await socket.receive()
    assert message.type is aiohttp.WSMsgType.CLOSE, message
    return socket.close_code


async def test_the_first_frame_lets_in(service: Service) -> None:
    """A web page authenticates by its first frame, and can then use every command."""
    socket = await connect(service)
    ack = await say(socket, type="authenticate", id=1, token=KEY)
    assert (ack["type"], ack["id"]) == ("ack", 1)
    ack = await say(socket, type="submit", id=2, **BODY)
    assert ack["requestId"].startswith("req_")
    await (await service.call()).end()


async def test_nothing_else_is_heard_before(service: Service) -> None:
    """Before authentication other frames are refused and the socket stays open; only a ping is answered."""
    socket = await connect(service)
    refusal = await say(socket, type="subscribe", id=1, requestId="req_1")
    assert refusal["error"]["code"] == "unauthenticated"
    assert (await say(socket, type="ping"))["type"] == "pong"
    assert (await say(socket, type="authenticate", id=2, token=KEY))["type"] == "ack"


async def test_a_bad_token_is_the_end(service: Service) -> None:
    """An error frame has the reason, and the close code forbids a reconnect."""
    socket = await connect(service)
    refusal = await say(socket, type="authenticate", id=1, token="wrong")
    assert (refusal["id"], refusal["error"]["code"]) == (1, "unauthenticated")
    assert await closed(socket) == 4500


async def test_a_ticket_opens_one_socket(service: Service) -> None:
    """A ticket is issued for a key, lasts for seconds, and opens one socket."""
    response = await service.post("/api/tickets", {}, Authorization=f"Bearer {KEY}")
    assert response.status in {200, 201}
    ticket = (await response.json())["ticket"]
    socket = await connect(service, f"?ticket={ticket}")
    assert (await say(socket, type="submit", id=1, **BODY))["type"] == "ack"
    await (await service.call()).end()
    again = await service.get(f"/ws?ticket={ticket}", **UPGRADE)
    assert again.status == 401
    assert (await again.json())["code"] == "invalid_ticket"


async def test_authenticating_again_is_for_the_same_one(service: Service) -> None:
    """Another tenant's key does not take a socket over: it closes it, so that nobody gets what the first one had."""
    socket = await connect(service, Authorization=f"Bearer {KEY}")
    assert (await say(socket, type="authenticate", id=1, token=KEY))["type"] == "ack"
    last = await say(socket, type="authenticate", id=2, token="another-key-of-the-tests")
    assert (last["type"], last["data"]["reason"], last["data"]["reconnect"]) == ("disconnect", "forbidden", False)
    assert await closed(socket) == 4507


async def test_without_keys_everybody_is_let_in() -> None:
    """Without configured keys authentication always succeeds."""
    async with open_service() as service:
        socket = await connect(service)
        assert (await say(socket, type="authenticate", id=1, token="anything"))["type"] == "ack"


async def test_unauthenticated_sockets_are_bounded(service: Service) -> None:
    """One more takes the place of the oldest; a socket that has authenticated keeps its own."""
    service.app[upgrade.SOCKETS].strangers.total = 1
    first = await connect(service)
    second = await connect(service)
    assert await closed(first) == 4504
    known = await connect(service, Authorization=f"Bearer {KEY}")
    assert (await say(known, type="ping"))["type"] == "pong"
    await say(second, type="authenticate", id=1, token=KEY)
    third = await connect(service)
    assert (await say(third, type="authenticate", id=1, token=KEY))["type"] == "ack"
    assert (await say(second, type="ping"))["type"] == "pong"


async def test_a_stranger_s_bad_frames_are_counted_too(service: Service) -> None:
    """Twenty refused frames close the socket with 4501."""
    socket = await connect(service)
    for number in range(19):
        await say(socket, type="presence", id=number, channel="room")
    await say(socket, type="presence", id=19, channel="room")
    assert await closed(socket) == 4501
