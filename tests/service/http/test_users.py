"""Users and lists of channels over HTTP, for administrators, with followers on the socket."""

import random
import string
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.service.http.channels_bench import Service, Start, open_service

ADMIN_CALLS = [
    ("GET", "/api/channels"),
    ("GET", "/api/channels/room:7/subscribers"),
    ("GET", "/api/users/ada/channels"),
    ("POST", "/api/users/ada/subscribe"),
    ("PUT", "/api/users/ada/presence"),
]


@pytest.fixture
async def service(start: Start, tmp_path: Path) -> Service:
    """A service with several callers."""
    return await open_service(start, tmp_path)


async def pages(service: Service, path: str, limit: int) -> list[dict[str, Any]]:
    """Return the items of all pages."""
    items: list[dict[str, Any]] = []
    after = ""
    while True:
        status, page = await service.get("root", f"{path}?limit={limit}" + (f"&after={after}" if after else ""))
        assert status == 200, page
        assert len(page["items"]) <= limit
        items += page["items"]
        after = page["next"]
        if after is None:
            return items


async def test_channels_are_listed(service: Service) -> None:
    """Page by page, by name, with their size; of another tenant none."""
    for name in ("b", "a", "räum/1", "c"):
        await service.publish(channel=quote(name, safe=""))
    follower = await service.socket("reader")
    items = await pages(service, "/api/channels", 2)
    await follower.settled()
    assert [item["name"] for item in items] == ["a", "b", "c", "room:7", "räum/1"]
    assert [(item["followers"], item["members"], item["publications"]) for item in items[2:4]] == [(0, 0, 1), (1, 0, 0)]
    assert items[0]["position"]["offset"] == 1
    assert (await service.get("other", "/api/channels"))[1] == {"items": [], "next": None}


async def test_the_subscribers_of_a_channel(service: Service) -> None:
    """All followers, also those that are no members; a publication says how many sockets there are."""
    clients = [
        await service.socket("ada", client="phone", member={}),
        await service.socket("ada", client="laptop"),
        await service.socket("ada", client="laptop"),
        await service.socket("reader", client="x"),
    ]
    for client in clients:
        await client.settled()
    items = await pages(service, "/api/channels/room:7/subscribers", 1)
    assert items == [
        {"user": "ada", "client": "laptop", "sockets": 2, "member": False},
        {"user": "ada", "client": "phone", "sockets": 1, "member": True},
        {"user": "reader", "client": "x", "sockets": 1, "member": False},
    ]
    status, answer = await service.publish()
    assert (status, answer["subscribers"]) == (202, 4)
    assert (await service.get("other", "/api/channels/room:7/subscribers"))[1]["items"] == []


async def test_a_publication_over_the_socket_says_how_many_it_reached(service: Service) -> None:
    """The `ack` has the number of subscribers beside the position."""
    client = await service.socket("ada")
    await client.send(type="publish", id=2, channel="room:7", event="said", key="k")
    frames = [await client.next(), await client.next()]
    (ack,) = [frame for frame in frames if frame["type"] == "ack"]
    assert (ack["data"]["offset"], ack["data"]["subscribers"]) == (1, 1)
    assert (await service.publish(data=None, key="k"))[1]["subscribers"] == 1


async def test_an_administrator_subscribes_a_user(service: Service) -> None:
    """Its sockets are told by an `ack` without an id, also without a right in the channel, and get the publications."""
    client = await service.connect("reader")
    path = "/api/users/reader/subscribe"
    assert await service.post("root", path, {"channel": "lobby"}) == (200, {"sockets": 1, "refused": 0})
    ack = await client.next()
    assert ack == {"type": "ack", "channel": "lobby", "data": {**ack["data"], "offset": 0, "recovered": True}}
    assert await service.post("root", path, {"channel": "lobby"}) == (200, {"sockets": 1, "refused": 0})
    await service.publish(channel="lobby", data=1)
    assert (await client.next())["data"] == 1
    items = await pages(service, "/api/users/reader/channels", 10)
    assert items == [{"name": "lobby", "sockets": 1, "member": False}]
    assert await service.post("root", "/api/users/reader/unsubscribe", {"channel": "lobby"}) == (200, {"sockets": 1})
    assert (await client.next())["error"]["code"] == "unsubscribed"
    assert await pages(service, "/api/users/reader/channels", 10) == []
    assert (await service.post("other", path, {"channel": "lobby"}))[1]["sockets"] == 0


async def test_a_user_who_was_subscribed_may_leave(service: Service) -> None:
    """The client's own `unsubscribe` ends it."""
    client = await service.connect("reader")
    await service.post("root", "/api/users/reader/subscribe", {"channel": "lobby", "mode": "live", "presence": True})
    assert (await client.next())["type"] == "ack"
    await client.send(type="unsubscribe", id=1, channel="lobby")
    assert await client.next() == {"type": "ack", "id": 1, "channel": "lobby"}
    assert (await service.publish(channel="lobby"))[1]["subscribers"] == 0


async def test_a_users_presence_is_set(service: Service) -> None:
    """The status has what was set, with its metadata and its end; nothing of it in another tenant."""
    status, answer, _ = await service.call(
        "root", "PUT", "/api/users/ada/presence", {"status": "online", "metadata": {"on": "tv"}, "ttlMs": 60_000}
    )
    assert status == 200
    assert await service.get("root", "/api/users/ada/status") == (200, answer)
    assert (answer["user"], answer["status"], answer["sockets"], answer["metadata"]) == (
        "ada",
        "online",
        0,
        {"on": "tv"},
    )
    assert answer["until"] == pytest.approx(answer["since"] + 60)
    assert (await service.get("other", "/api/users/ada/status"))[1]["status"] == "offline"
    await service.call("root", "PUT", "/api/users/ada/presence", {"status": "online", "ttlMs": 0})
    found = (await service.get("root", "/api/users/ada/status"))[1]
    assert (found["status"], found["metadata"], found["until"]) == ("offline", None, None)


@pytest.mark.parametrize(("method", "path"), ADMIN_CALLS)
@pytest.mark.parametrize("who", ["ada", "reader", "model"])
async def test_a_plain_key_does_no_administrators_work(service: Service, who: str, method: str, path: str) -> None:
    """Neither a key for channels nor one for models; a key for administration alone is enough."""
    body = {"channel": "room:7"} if path.endswith("subscribe") else {"status": "online"} if method == "PUT" else None
    status, problem, _ = await service.call(who, method, path, body)
    assert (status, problem["code"]) == (403, "forbidden")
    assert (await service.call("onlyadmin", method, path, body))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "where"),
    [
        ("POST", "/api/users/ada/subscribe", {}, "$.channel"),
        ("POST", "/api/users/ada/subscribe", {"channel": ""}, "$.channel"),
        ("POST", "/api/users/ada/subscribe", {"channel": 7}, "$.channel"),
        ("POST", "/api/users/ada/subscribe", {"channel": "c", "more": 1}, "$.more"),
        ("POST", "/api/users/ada/subscribe", {"channel": "c", "after": {"epoch": "e", "offset": -1}}, "$.after.offset"),
        ("POST", "/api/users/ada/subscribe", {"channel": "c", "mode": "other"}, "$.mode"),
        ("PUT", "/api/users/ada/presence", {}, "$.status"),
        ("PUT", "/api/users/ada/presence", {"status": "away"}, "$.status"),
        ("PUT", "/api/users/ada/presence", {"status": "online", "ttlMs": 86_400_001}, "$.ttlMs"),
        ("PUT", "/api/users/ada/presence", {"status": "online", "ttlMs": -1}, "$.ttlMs"),
        ("PUT", "/api/users/ada/presence", {"status": "online", "ttlMs": 10**400}, "$.ttlMs"),
        ("PUT", "/api/users/ada/presence", {"status": "online", "metadata": "x" * 1100}, "$.metadata"),
        ("PUT", "/api/users/ada/presence", {"status": "online", "until": 1}, "$.until"),
        ("PUT", "/api/users/a%0Ab/presence", {"status": "online"}, "user"),
        ("GET", "/api/channels?limit=0", None, "limit"),
        ("GET", "/api/channels?after=x", None, "after"),
        ("GET", "/api/channels?after=" + "A" * 4000, None, "after"),
        ("GET", "/api/channels/room:7/subscribers?after=WyJhIl0", None, "after"),
        ("GET", f"/api/channels/{'x' * 129}/subscribers", None, "channel"),
        ("GET", "/api/users/ada/channels?limit=1001", None, "limit"),
        ("GET", f"/api/users/{'x' * 129}/channels", None, "user"),
    ],
)
async def test_wrong_input_names_the_field(service: Service, method: str, path: str, body: Any, where: str) -> None:  # noqa: ANN401
    """400 with the path of the field."""
    status, problem, _ = await service.call("root", method, path, body)
    assert (status, problem["code"], problem["errors"][0]["path"]) == (400, "invalid_request", where)


async def test_a_body_of_metadata_is_bounded(service: Service) -> None:
    """A large one is refused before it is read as a whole; a deep one is refused, too."""
    path = "/api/users/ada/presence"
    status, problem, _ = await service.call("root", "PUT", path, {"status": "online", "metadata": "x" * 5000})
    assert (status, problem["code"]) == (413, "body_too_large")
    deep = b'{"status":"online","metadata":' + b"[" * 100 + b"]" * 100 + b"}"
    status, problem, _ = await service.call("root", "PUT", path, deep)
    assert (status, problem["code"]) == (400, "invalid_request")


async def test_random_input_is_answered_with_a_problem(service: Service) -> None:
    """Whatever is sent: a client's error with a code, never a failure of the service."""
    pick = random.Random(7)
    alphabet = string.printable + 'äß\u202e\x00😀\\"{}[]'

    def text(most: int = 12) -> str:
        return "".join(pick.choices(alphabet, k=pick.randrange(most)))

    values: list[Any] = [None, True, -1, 2**70, 1e308, [], {}, [[]], "online", "replay", {"epoch": "e", "offset": 1}]
    names = ["channel", "after", "mode", "presence", "status", "metadata", "ttlMs", "more"]
    for _ in range(300):
        method, path = pick.choice(ADMIN_CALLS)
        path = path.replace("ada", quote(text() or "a", safe="")).replace("room:7", quote(text() or "r", safe=""))
        body: Any = {name: pick.choice([*values, text()]) for name in pick.sample(names, pick.randrange(4))}
        if method == "GET":
            path, body = f"{path}?limit={quote(text())}&after={quote(text(40))}", None
        elif pick.random() < 0.2:
            body = text(40).encode()
        status, answer, _ = await service.call("root", method, path, body)
        assert status in {200, 400, 404, 410, 413}, (method, path, body, answer)
        assert status == 200 or answer["code"] != "internal_error"
