"""When the server stops, every socket gets a ``disconnect`` with its own delay."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiohttp
import pytest

from protocol.errors import ActorStopped
from service.websocket import upgrade
from service.websocket.upgrade import RECONNECT_SPREAD
from tests.service.bench import Service, open_service

KEY: Final = "a-key-of-the-tests"
BEARER: Final = {"Authorization": f"Bearer {KEY}"}

Socket = aiohttp.ClientWebSocketResponse


async def _stranger(service: Service, _: str) -> Socket:
    return await service.client.ws_connect(f"{service.base}/ws")


async def _idler(service: Service, _: str) -> Socket:
    return await service.client.ws_connect(f"{service.base}/ws", headers=BEARER)


async def _follower(service: Service, request_id: str) -> Socket:
    return await _saying(service, requestId=request_id)


async def _batch(service: Service, request_id: str) -> Socket:
    return await _saying(service, requestId=request_id, batch=True)


async def _listener(service: Service, _: str) -> Socket:
    return await _saying(service, channel="room:7")


async def _saying(service: Service, **frame: Any) -> Socket:  # noqa: ANN401 - JSON
    socket = await _idler(service, "")
    await socket.send_json({"type": "subscribe", "id": 1, **frame})
    assert json.loads((await socket.receive_str()).split("\n")[0])["type"] == "ack"
    return socket


TOLD_BY_THE_HUB: Final = (_follower, _batch, _listener)
TOLD_BY_THE_REST: Final = (_stranger, _idler)


async def test_everybody_is_told_and_nobody_at_the_same_time() -> None:
    """Followers of requests and channels, batch clients, idle and unauthenticated ones get a delay and 1000."""
    async with open_service(api_keys=(KEY,)) as service:
        response = await service.post("/api/requests", {"messages": [{"role": "user", "content": "hi"}]}, **BEARER)
        request_id = (await response.json())["requestId"]
        call = await service.call()
        groups = [await _three_of_each(service, kinds, request_id) for kinds in (TOLD_BY_THE_HUB, TOLD_BY_THE_REST)]
        await upgrade.disconnect_all(service.app)
        for sockets in groups:
            delays = sorted([await _delay(socket) for socket in sockets])
            share = RECONNECT_SPREAD * 1000 / len(delays)
            for index, delay in enumerate(delays):  # which is rounded to milliseconds
                assert share * index - 1 <= delay <= share * (index + 1) + 1
        await call.end()


async def test_followers_of_requests_stay_for_the_end() -> None:
    """When the stop begins, only sockets that follow a request stay; they get its end before the ``disconnect``."""
    async with open_service(api_keys=(KEY,)) as service:
        response = await service.post("/api/requests", {"messages": [{"role": "user", "content": "hi"}]}, **BEARER)
        request_id = (await response.json())["requestId"]
        call = await service.call()
        followers = [await kind(service, request_id) for kind in (_follower, _batch)]
        others = [await kind(service, request_id) for kind in (_listener, *TOLD_BY_THE_REST)]
        await upgrade.disconnect_idle(service.app)
        for socket in others:
            await _delay(socket)
        await call.say("still here")
        await call.end()
        for socket in followers:
            assert (await _types(socket))[-3:] == ["update", "complete", "disconnect"]


async def test_without_the_hub_nobody_stays() -> None:
    """Where the hub is stopped, the error is raised, and all sockets are disconnected at once."""
    async with open_service(api_keys=(KEY,)) as service:
        socket = await _idler(service, "")
        await service.container.system.stop(service.container.hub)
        with pytest.raises(ActorStopped):
            await upgrade.disconnect_idle(service.app)
        await _delay(socket)


async def _three_of_each(
    service: Service, kinds: tuple[Callable[[Service, str], Awaitable[Socket]], ...], request_id: str
) -> list[Socket]:
    return [await kind(service, request_id) for kind in kinds for _ in range(3)]


async def _types(socket: Socket) -> list[str]:
    """Read to the end, and return the types of the frames."""
    said = [json.loads(line) async for message in socket for line in message.data.split("\n")]
    return [frame["type"] for frame in said]


async def _delay(socket: Socket) -> float:
    """Read to the end, and return the reconnect delay in milliseconds."""
    said = []
    while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
        said += [json.loads(line) for line in message.data.split("\n")]
    (disconnect,) = [frame["data"] for frame in said if frame["type"] == "disconnect"]
    assert (disconnect["code"], disconnect["reconnect"], socket.close_code) == (4001, True, 1000)
    return float(disconnect["delayMs"])
