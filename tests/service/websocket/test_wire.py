"""The tables of the wire: each close code, each client frame, each rule of the socket."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import aiohttp
import pytest

from actors.delivery import fanout
from protocol.hub import DisconnectAll
from protocol.identity import Principal
from service.websocket import admission, reader, transport, upgrade
from tests.service.bench import BODY, Service, open_service

KEY: Final = "a-key-of-the-tests"
BEARER: Final = {"Authorization": f"Bearer {KEY}"}
ADA: Final = Principal(tenant="t", subject="ada")

Socket = aiohttp.ClientWebSocketResponse


class Line:
    """A client's socket, which buffers unread frames."""

    def __init__(self, service: Service, socket: Socket) -> None:
        self.service = service
        self.socket = socket

    async def send(self, **frame: Any) -> None:  # noqa: ANN401 - JSON
        """Send a frame."""
        await self.socket.send_json(frame)

    async def hear(self, count: int = 1) -> list[dict[str, Any]]:
        """Return the next frames."""
        return [json.loads(await self.socket.receive_str()) for _ in range(count)]

    async def ask(self, **frame: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Send a frame, and return the next frames."""
        await self.send(**frame)
        return (await self.hear())[0]

    async def ended(self) -> list[dict[str, Any]]:
        """Return the frames up to the end of a request."""
        frames = await self.hear()
        while frames[-1]["type"] == "update":
            frames += await self.hear()
        return frames

    async def closed(self) -> int | None:
        """Read to the end, and return the close code."""
        async with asyncio.timeout(10):
            while (await self.socket.receive()).type not in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}:
                pass
        return self.socket.close_code


async def dial(
    service: Service, query: str = "", *, autoping: bool = True, headers: Mapping[str, str] | None = None
) -> Line:
    """Open a socket."""
    return Line(
        service, await service.client.ws_connect(f"{service.base}/ws{query}", headers=headers, autoping=autoping)
    )


async def as_user(service: Service, principal: Principal) -> Line:
    """Open a socket with a user's credential."""
    ticket, _ = service.container.auth.issue_ticket(principal)
    return await dial(service, f"?ticket={ticket}")


# --------------------------------------------------------------------------------------------------- the close codes


async def _shutdown(service: Service, _: pytest.MonkeyPatch) -> Line:
    line = await dial(service, headers=BEARER)
    await line.ask(type="subscribe", id=1, channel="room")
    await service.container.hub.ask(DisconnectAll(), timeout=5)
    (disconnect,) = await line.hear()
    assert disconnect["type"] == "disconnect"
    assert (disconnect["data"]["code"], disconnect["data"]["reconnect"]) == (4001, True)
    return line


async def _expired(service: Service, _: pytest.MonkeyPatch) -> Line:
    return await as_user(service, Principal(tenant="t", subject="ada", expires=time.time() + 0.2))


async def _slow(service: Service, monkeypatch: pytest.MonkeyPatch) -> Line:
    monkeypatch.setattr(fanout, "STALL_LIMIT", 0.0)
    line = await as_user(service, ADA)
    await line.ask(type="subscribe", id=1, channel="room")
    monkeypatch.setattr(transport.SocketTransport, "buffered", property(lambda _: 10_000_000))
    await line.send(type="publish", channel="room", event="said")
    return line


async def _insufficient_state(service: Service, _: pytest.MonkeyPatch) -> Line:
    line = await as_user(service, ADA)
    await line.ask(type="subscribe", id=1, channel="room")
    await service.container.system.stop(service.container.hub)
    return line


async def _no_pong(service: Service, monkeypatch: pytest.MonkeyPatch) -> Line:
    monkeypatch.setitem(service.container.settings.__dict__, "ws_heartbeat_seconds", 0.02)
    monkeypatch.setattr(transport, "PONG_TIMEOUT", 0.01)
    return await dial(service, autoping=False, headers=BEARER)


async def _flood(service: Service, _: pytest.MonkeyPatch) -> Line:
    line = await dial(service, headers=BEARER)
    for _number in range(int(reader.BURST) + 50):
        await line.send(type="ack", requestId="req_1", offset=1)
    return line


async def _bad_token(service: Service, _: pytest.MonkeyPatch) -> Line:
    line = await dial(service)
    await line.send(type="authenticate", token="wrong")
    return line


async def _bad_requests(service: Service, _: pytest.MonkeyPatch) -> Line:
    line = await dial(service, headers=BEARER)
    for _number in range(admission.BAD_FRAMES):
        await line.send(type="nonsense")
    return line


async def _too_late(service: Service, monkeypatch: pytest.MonkeyPatch) -> Line:
    monkeypatch.setattr(admission, "AUTHENTICATE_TIMEOUT", 0.02)
    return await dial(service)


async def _forced(service: Service, _: pytest.MonkeyPatch) -> Line:
    tenant = (await service.container.auth.authenticate(KEY)).tenant
    line = await as_user(service, Principal(tenant=tenant, subject="ada"))
    await line.ask(type="ping")
    response = await service.post("/api/users/ada/disconnect", {}, **BEARER)
    assert response.status == 200
    return line


async def _one_too_many(service: Service, _: pytest.MonkeyPatch) -> Line:
    service.app[upgrade.SOCKETS].strangers.total = 0
    return await dial(service)


async def _denied(service: Service, _: pytest.MonkeyPatch) -> Line:
    return await as_user(service, Principal(tenant="t", subject="ada", scopes=("admin",)))


CLOSES: Final[dict[int, Callable[[Service, pytest.MonkeyPatch], Awaitable[Line]]]] = {
    1000: _shutdown,
    4005: _expired,
    4008: _slow,
    4010: _insufficient_state,
    4012: _no_pong,
    4013: _flood,
    4500: _bad_token,
    4501: _bad_requests,
    4502: _too_late,
    4503: _forced,
    4504: _one_too_many,
    4507: _denied,
}


@pytest.mark.parametrize("code", CLOSES)
async def test_a_socket_is_closed_with(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way in which the service closes a connection has its code; 4001 is in the frame before 1000."""
    async with open_service(api_keys=(KEY,)) as service:
        line = await CLOSES[code](service, monkeypatch)
        assert await line.closed() == code


# -------------------------------------------------------------------------------------------------------- the frames


async def _subscribes(line: Line) -> None:
    request_id = await line.service.answered("Hel", "lo")
    await line.send(type="subscribe", requestId=request_id)
    frames = await line.ended()
    assert [frame["type"] for frame in frames] == ["update", "update", "update", "complete"]
    assert not any("id" in frame for frame in frames)


async def _unsubscribes(line: Line) -> None:
    request_id = await line.service.submit()
    call = await line.service.call()
    await line.ask(type="subscribe", id=1, requestId=request_id)
    await line.hear()
    assert (await line.ask(type="unsubscribe", id=2, requestId=request_id))["id"] == 2
    await call.say("unheard")
    await call.end()
    assert (await line.ask(type="ping"))["type"] == "pong"


async def _pings(line: Line) -> None:
    assert await line.ask(type="ping") == {"type": "pong"}


async def _submits(line: Line) -> None:
    ack = await line.ask(type="submit", id=1, **BODY)
    assert (ack["type"], ack["id"], ack["data"]["state"]) == ("ack", 1, "pending")
    call = await line.service.call()
    await call.say("Hi")
    await call.end()
    assert (await line.ended())[-1]["data"]["coreResult"]["text"] == "Hi"


async def _authenticates(line: Line) -> None:
    assert (await line.ask(type="authenticate", id=2, token=KEY))["type"] == "ack"


async def _goes_on_after_a_position(line: Line) -> None:
    request_id = await line.service.answered("Hel", "lo")
    ack = await line.ask(type="subscribe", id=3, requestId=request_id)
    first = await line.ended()
    after = {"epoch": ack["data"]["epoch"], "offset": 2}
    again = await line.ask(type="subscribe", id=4, requestId=request_id, after=after, mode="replay")
    assert again["data"] == {"epoch": after["epoch"], "offset": 4, "state": "completed", "recovered": True}
    assert await line.ended() == first[2:]


async def _sees_a_snapshot(line: Line) -> None:
    request_id = await line.service.answered("Hel", "lo")
    await line.ask(type="subscribe", id=3, requestId=request_id, mode="snapshot")
    snapshot, end = await line.ended()
    assert (snapshot["snapshot"], snapshot["offset"], snapshot["data"]["text"]) == (True, 3, "Hello")
    assert end["type"] == "complete"


async def _hears_only_what_comes(line: Line) -> None:
    request_id = await line.service.submit()
    call = await line.service.call()
    await call.say("before")
    await line.ask(type="subscribe", id=3, requestId=request_id, mode="live")
    await call.say("after")
    await call.end()
    frames = await line.ended()
    assert [frame["data"].get("delta") for frame in frames] == ["after", None]


async def _publishes(line: Line) -> None:
    ack = await line.ask(type="subscribe", id=4, channel="room:7")
    assert ack["channel"] == "room:7"
    await line.send(type="publish", id=5, channel="room:7", event="typing", data={}, key="k")
    frames = {frame["type"]: frame for frame in await line.hear(2)}
    assert frames["update"] == {"type": "update", "channel": "room:7", "offset": 1, "event": "typing", "data": {}}
    assert frames["ack"]["data"] == {"epoch": ack["data"]["epoch"], "offset": 1, "subscribers": 1}
    again = await line.ask(type="publish", id=6, channel="room:7", event="typing", data={}, key="k")
    assert again["data"] == frames["ack"]["data"]


async def _acknowledges(line: Line) -> None:
    await line.send(type="ack", requestId="req_1", offset=57)
    assert (await line.ask(type="ping"))["type"] == "pong"


async def _cancels(line: Line) -> None:
    ack = await line.ask(type="submit", id=1, **BODY)
    await line.service.call()
    await line.send(type="cancel", id=6, requestId=ack["requestId"])
    frames = await line.hear(3)
    assert any(frame["type"] == "ack" and frame["id"] == 6 for frame in frames)
    (end,) = [frame for frame in frames if frame["type"] == "error"]
    assert (end["error"]["code"], end["terminal"]) == ("cancelled", True)


async def _asks_who_is_there(line: Line) -> None:
    await line.send(type="subscribe", id=4, channel="room:7", member={"name": "Ada"}, client="phone", presence=True)
    frames = {frame["type"]: frame for frame in await line.hear(2)}
    assert frames["presence"]["data"]["action"] == "join"
    members = (await line.ask(type="presence", id=7, channel="room:7"))["data"]["members"]
    assert [(member["client"], member["info"]) for member in members] == [("phone", {"name": "Ada"})]


async def _is_told_what_is_wrong(line: Line) -> None:
    for frame in ({"type": "nonsense", "id": 9}, {"type": "subscribe", "id": 9}, {"type": "cancel", "id": 9, "x": 1}):
        error = await line.ask(**frame)
        assert (error["type"], error["id"], error["error"]["code"]) == ("error", 9, "invalid_request")
    await line.socket.send_str("{")
    assert (await line.hear())[0]["error"]["code"] == "malformed_json"
    assert (await line.ask(type="ping"))["type"] == "pong"


async def _misses_nothing_of_what_has_ended(line: Line) -> None:
    request_id = await line.service.answered("late")
    await line.send(type="subscribe", requestId=request_id)
    assert (await line.ended())[-1]["type"] == "complete"


FRAMES: Final[dict[str, Callable[[Line], Awaitable[None]]]] = {
    "subscribe": _subscribes,
    "unsubscribe": _unsubscribes,
    "ping": _pings,
    "submit": _submits,
    "authenticate": _authenticates,
    "subscribe after a position": _goes_on_after_a_position,
    "subscribe to a snapshot": _sees_a_snapshot,
    "subscribe live": _hears_only_what_comes,
    "subscribe to a channel and publish": _publishes,
    "ack": _acknowledges,
    "cancel": _cancels,
    "presence": _asks_who_is_there,
    "rule: a bad frame is answered and the socket stays": _is_told_what_is_wrong,
    "rule: late subscribers get the end too": _misses_nothing_of_what_has_ended,
}


@pytest.mark.parametrize("row", FRAMES)
async def test_a_client_s_frame(row: str) -> None:
    """Each client frame has exactly the effect in the table."""
    async with open_service() as service:
        await FRAMES[row](await dial(service))
