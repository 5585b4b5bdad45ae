"""Channels and users over HTTP, with followers on the socket."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocol.channels import Join, Leave, Peer
from tests.service.http.channels_bench import Service, Start, open_service


@pytest.fixture
async def service(start: Start, tmp_path: Path) -> Service:
    """A service with several callers."""
    return await open_service(start, tmp_path)


async def test_publish_and_look_back(service: Service) -> None:
    """A publication has a position, and the history is read page by page."""
    positions = []
    for number in range(5):
        status, answer = await service.publish(data={"n": number})
        assert status == 202
        assert answer.keys() == {"position", "subscribers"}
        positions.append(answer["position"])
    assert [position["offset"] for position in positions] == [1, 2, 3, 4, 5]
    address, seen = "/api/channels/room:7/history?limit=2", []
    after: str | None = ""
    while after is not None:
        status, page = await service.get("reader", address + (f"&after={after}" if after else ""))
        assert (status, page["position"]) == (200, positions[-1])
        seen += [(entry["offset"], entry["event"], entry["data"]["n"]) for entry in page["publications"]]
        assert len(page["publications"]) <= 2
        after = page["next"]
    assert seen == [(offset, "said", offset - 1) for offset in range(1, 6)]


@pytest.mark.parametrize("way", ["body", "header", "both"])
async def test_a_key_publishes_once(service: Service, way: str) -> None:
    """A repeated key returns the first position with 200; with other content it is 422."""

    async def publish(data: int) -> tuple[int, dict[str, Any], dict[str, str]]:
        body = {"event": "said", "data": data} | ({"key": "k"} if way != "header" else {})
        headers = {"Idempotency-Key": "k"} if way != "body" else {}
        return await service.call("ada", "POST", "/api/channels/room:7/publish", body, **headers)

    first, again, other = await publish(1), await publish(1), await publish(2)
    assert (first[0], again[0], other[0]) == (202, 200, 422)
    assert again[1] == first[1]
    assert again[2]["Idempotent-Replayed"] == "true"
    assert other[1]["code"] == "idempotency_key_reused"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed_json"),
        ({}, 400, "invalid_request"),
        ({"event": ""}, 400, "invalid_request"),
        ({"event": "said", "more": 1}, 400, "invalid_request"),
        ({"event": "said", "ackTimeoutMs": 60_001}, 400, "invalid_request"),
        ({"event": "said", "ackTimeoutMs": -1}, 400, "invalid_request"),
        ({"event": "said", "key": "x" * 256}, 400, "invalid_request"),
        ({"event": "said", "data": "x" * 33_000}, 413, "publication_too_large"),
        ({"event": "said", "data": "x" * 66_000}, 413, "body_too_large"),
        (b'{"event": "said", "data": "\xff"}', 400, "invalid_request"),
        (b'{"event": "said", "data": ' + b"[" * 100 + b"]" * 100 + b"}", 400, "invalid_request"),
    ],
)
async def test_what_can_not_be_published(service: Service, body: object, status: int, code: str) -> None:
    """An invalid publication is refused with its code, and not published."""
    refused, problem = await service.post("ada", "/api/channels/room:7/publish", body)
    assert (refused, problem["code"]) == (status, code)
    assert (await service.get("ada", "/api/channels/room:7/history"))[1] == {
        "position": None,
        "publications": [],
        "next": None,
    }


async def test_two_keys_that_differ_are_refused(service: Service) -> None:
    """Two different keys in body and header are refused."""
    body = {"event": "said", "key": "a"}
    status, problem = await service.post("ada", "/api/channels/room:7/publish", body, **{"Idempotency-Key": "b"})
    assert (status, problem["errors"][0]["path"]) == (400, "$.key")


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "1" * 5000])
async def test_a_page_is_bounded(service: Service, limit: str) -> None:
    """A page has at most a thousand publications."""
    status, problem = await service.get("ada", f"/api/channels/room:7/history?limit={limit}")
    assert (status, problem["code"]) == (400, "invalid_request")


async def test_a_position_that_is_not_held_is_gone(service: Service) -> None:
    """410 for another epoch or beyond the end; 400 for a malformed position."""
    _, answer = await service.publish()
    epoch = answer["position"]["epoch"]
    for after, status, code in (
        ("other:1", 410, "unrecoverable_position"),
        (f"{epoch}:2", 410, "unrecoverable_position"),
        ("nonsense", 400, "invalid_position"),
    ):
        refused, problem = await service.get("ada", f"/api/channels/room:7/history?after={after}")
        assert (refused, problem["code"]) == (status, code)


@pytest.mark.parametrize("name", ["x" * 129, "room%0A7"])
async def test_a_channel_has_a_name(service: Service, name: str) -> None:
    """A name has 1 to 128 printable characters; a slash or a brace is escaped."""
    assert (await service.publish(channel=name))[0] == 400
    for odd in ("room%2F7", "room%7B7%7D", "r%C3%A4um"):
        assert (await service.publish(channel=odd))[0] == 202
        assert len((await service.get("ada", f"/api/channels/{odd}/history"))[1]["publications"]) == 1


async def test_rights_are_those_of_the_key(service: Service) -> None:
    """Each call needs its own right in the channel, and the scope `channels`."""
    assert (await service.get("reader", "/api/channels/room:7/history"))[0] == 200
    for status, problem in (
        await service.publish("reader"),
        await service.get("reader", "/api/channels/room:7/presence"),
        await service.get("reader", "/api/channels/lobby/history"),
    ):
        assert (status, problem["code"]) == (403, "channel_denied")
    status, problem = await service.publish("model")
    assert (status, problem["code"]) == (403, "forbidden")


async def test_tenants_share_no_channel(service: Service) -> None:
    """The same name in another tenant is another channel."""
    await service.publish()
    assert (await service.get("other", "/api/channels/room:7/history"))[1]["publications"] == []


async def test_a_publication_reaches_the_socket_and_comes_back_acknowledged(service: Service) -> None:
    """The caller gets the subscribers that acknowledged."""
    client = await service.socket("ada", client="phone")
    publishing = asyncio.ensure_future(service.publish(data={"x": 1}, ackTimeoutMs=5000))
    frame = await client.next()
    assert frame == {"type": "update", "channel": "room:7", "offset": 1, "event": "said", "data": {"x": 1}}
    await client.send(type="ack", channel="room:7", offset=1)
    status, answer = await publishing
    assert (status, answer["acknowledged"]) == (202, [{"user": "ada", "client": "phone"}])


async def test_nobody_acknowledges_in_time(service: Service) -> None:
    """Without acknowledgements in time the list is empty."""
    await service.socket("ada")
    status, answer = await service.publish(ackTimeoutMs=10)
    assert (status, answer["acknowledged"]) == (202, [])


async def test_presence(service: Service) -> None:
    """The members with their info; subscribers get an event when they leave."""
    watcher = await service.socket("ada", presence=True)
    peer, info = Peer("ada", "phone"), msgspec.Raw(b'{"name":"Ada"}')
    join = Join(socket=None, tenant="acme", channel="room:7", peer=peer, info=info)
    await service.hub.ask(join, timeout=5)
    member = {"user": "ada", "client": "phone", "info": {"name": "Ada"}}
    assert await service.get("ada", "/api/channels/room:7/presence") == (200, {"members": [member]})
    await service.hub.ask(Leave(socket=None, tenant="acme", channel="room:7", peer=peer), timeout=5)
    assert (await service.get("ada", "/api/channels/room:7/presence"))[1] == {"members": []}
    for action in ("join", "leave"):
        assert (await watcher.next())["data"] == {"action": action, "member": member}


async def test_a_user_is_disconnected(service: Service) -> None:
    """The socket gets a `disconnect` without reconnect, and is closed with 4503."""
    client = await service.socket("ada")
    status, found = await service.get("root", "/api/users/ada/status")
    assert (status, found["status"], found["sockets"]) == (200, "online", 1)
    assert await service.post("root", "/api/users/ada/disconnect") == (200, {"sockets": 1})
    disconnect = await client.next()
    assert disconnect["data"] == {"code": 4503, "reason": "disconnected", "reconnect": False, "delayMs": 0}
    assert await client.closed() == 4503
    assert await service.post("root", "/api/users/ada/disconnect") == (200, {"sockets": 0})


async def test_a_user_is_taken_out_of_a_channel(service: Service) -> None:
    """The socket stays open, without the channel."""
    client = await service.socket("ada")
    answer = await service.post("root", "/api/users/ada/unsubscribe", {"channel": "room:7"})
    assert answer == (200, {"sockets": 1})
    error = await client.next()
    assert (error["error"]["code"], error["terminal"]) == ("unsubscribed", True)
    await service.publish()
    await client.send(type="ping", id=9)
    assert (await client.next())["type"] == "pong"


async def test_users_are_for_administrators_of_their_tenant(service: Service) -> None:
    """Other scopes are refused, and another tenant's administrator sees no sockets."""
    await service.socket("ada")
    for path in ("disconnect", "unsubscribe"):
        status, problem = await service.post("ada", f"/api/users/ada/{path}", {"channel": "room:7"})
        assert (status, problem["code"]) == (403, "forbidden")
    assert (await service.get("ada", "/api/users/ada/status"))[0] == 403
    assert (await service.get("other", "/api/users/ada/status"))[1]["status"] == "offline"
    assert (await service.post("other", "/api/users/ada/disconnect"))[1] == {"sockets": 0}
