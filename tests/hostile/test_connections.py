"""Clients that take connections and sockets: each takes its share, and a call always finds room."""

import asyncio
import errno
import json
import socket
from collections.abc import AsyncIterator
from typing import cast

import pytest
from structlog.testing import capture_logs

from actors.fair_shares import MAX_TENANTS
from service.server import acceptor
from service.websocket.transport import SocketTransport
from service.websocket.upgrade import SocketLimits, Sockets
from tests.service.bench import Service, open_service
from tests.service.server.test_connections import ASK, answer, dial, rest

KEY = "a-key-of-16-chars"
HEADERS = {"Authorization": f"Bearer {KEY}"}
CALL = ASK + b"\r\n"
KNOWN = ASK.replace(b"/health/live", b"/health") + f"Authorization: Bearer {KEY}\r\n\r\n".encode()
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
LIMIT = (4504).to_bytes(2, "big") + b"connection_limit"

End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with keys that takes three connections."""
    async with open_service(max_connections=3, api_keys=(KEY,)) as running:
        yield running


async def ask(end: End, request: bytes = CALL) -> str:
    """Send a request, and return the status line."""
    end[1].write(request)
    return await answer(end[0])


def leave(*ends: End) -> None:
    """Close connections."""
    for _, writer in ends:
        writer.close()


async def test_the_oldest_idle_connection_ends(service: Service) -> None:
    """A call finds room however many clients send nothing; the others stay."""
    first, second, third = [await dial(service) for _ in range(3)]
    assert await ask(first) == "http/1.1 200 ok"  # it has rested for less time than the second
    fourth = await dial(service)
    assert await ask(fourth) == "http/1.1 200 ok"
    assert await rest(second[0]) == b""
    for end in (first, third, fourth):
        assert await ask(end) == "http/1.1 200 ok"
    leave(first, second, third, fourth)


async def test_strangers_end_before_known_clients(service: Service) -> None:
    """Whoever has sent a valid key keeps the connection while strangers come."""
    known = await dial(service)
    assert await ask(known, KNOWN) == "http/1.1 200 ok"
    strangers = [await dial(service) for _ in range(2)]
    for _ in range(20):
        strangers.append(await dial(service))
        assert await ask(strangers[-1]) == "http/1.1 200 ok"
    assert await ask(known, KNOWN) == "http/1.1 200 ok"
    leave(known, *strangers)


async def test_where_every_connection_runs_a_call_a_new_one_is_told_so(service: Service) -> None:
    """503 in our form, with one line in the log; the running calls go on."""
    response = await service.post("/api/requests", {"messages": [{"role": "user", "content": "hi"}]}, **HEADERS)
    request_id = (await response.json())["requestId"]
    call = await service.call()
    assert service.client.connector is not None
    await service.client.connector.close()
    head = f"GET /api/requests/{request_id}/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    streams = [await dial(service) for _ in range(3)]
    for reader, writer in streams:
        writer.write(head.encode())
        await reader.readuntil(b"\r\n\r\n")
    with capture_logs() as lines:
        for _ in range(5):
            reader, writer = await dial(service)
            answered = await reader.read()
            assert answered.startswith(
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
            )
            problem = json.loads(answered.partition(b"\r\n\r\n")[2])
            assert (problem["code"], problem["status"]) == ("connection_limit", 503)
            assert problem["requestId"].encode() in answered
            writer.close()
    (line,) = [line for line in lines if line["event"] == "connections_full"]
    assert line["action"] == "refused"
    await call.say("still there")
    await call.end()
    for reader, _ in streams:
        assert b"still there" in await reader.readuntil(b"event: complete")
    leave(*streams)


async def test_a_connection_may_be_idle_for_so_long() -> None:
    """Between two calls as long as the setting says."""
    async with open_service(keep_alive_seconds=0.01) as service:
        end = await dial(service)
        assert await ask(end) == "http/1.1 200 ok"
        assert await rest(end[0]) == b""
        leave(end)


async def test_sockets_of_strangers_take_no_connection_from_a_call(service: Service) -> None:
    """The oldest is closed with 4504 although its call runs; one that has authenticated stays."""
    known = await service.client.ws_connect(f"{service.base}/ws")
    await known.send_json({"type": "authenticate", "id": 1, "token": KEY})
    assert (await known.receive_json())["type"] == "ack"
    strangers = [await dial(service) for _ in range(2)]
    for reader, writer in strangers:
        writer.write(UPGRADE)
        assert b"101 Switching" in await reader.readuntil(b"\r\n\r\n")
    caller = await dial(service)
    assert await ask(caller) == "http/1.1 200 ok"
    assert LIMIT in await rest(strangers[0][0])
    await known.send_json({"type": "ping", "id": 2})
    assert (await known.receive_json())["type"] == "pong"
    await known.close()
    leave(*strangers, caller)


class Full(socket.socket):
    """A listening socket for which no descriptor is left, so many times."""

    times = 1

    def accept(self) -> tuple[socket.socket, object]:
        if self.times:
            self.times -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_without_a_descriptor_accepting_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one line; the client that waits is served afterwards."""
    full = Full(socket.AF_INET, socket.SOCK_STREAM)
    full.bind(("127.0.0.1", 0))
    full.listen()
    full.settimeout(0)

    async def listen(_host: str, _port: int) -> list[socket.socket]:
        return [full]

    monkeypatch.setattr(acceptor, "listen", listen)
    monkeypatch.setattr(acceptor, "PAUSE", 0.01)
    with capture_logs() as lines:
        async with open_service() as service:
            end = await dial(service)
            assert await ask(end) == "http/1.1 200 ok"
            leave(end)
    paused = [line for line in lines if line["event"] == "accepting_paused"]
    assert [line["reason"] for line in paused] == ["Too many open files"]


class Ended:
    """A socket that notes with which code it was ended."""

    def __init__(self) -> None:
        self.code = 0

    def end(self, code: int, _reason: str) -> None:
        self.code = code


def new() -> SocketTransport:
    """Return a socket."""
    return cast("SocketTransport", Ended())


def code(socket: SocketTransport) -> int:
    """Return with which code a socket was ended; 0 for none."""
    return cast("Ended", socket).code


def test_strangers_take_no_socket_from_a_tenant() -> None:
    """A tenant takes the place of the oldest stranger where all are taken, and strangers those of strangers."""
    sockets = Sockets(SocketLimits(total=4, strangers=3, strangers_per_address=3))
    strangers = [new() for _ in range(5)]
    assert all(sockets.add(stranger, None, "192.0.2.1") for stranger in strangers)
    assert [code(stranger) for stranger in strangers] == [4504, 4504, 0, 0, 0]
    known = [new() for _ in range(4)]
    assert all(sockets.add(one, "acme") for one in known)
    assert [code(stranger) for stranger in strangers] == [4504] * 5
    assert not sockets.add(new(), "acme")
    assert len(sockets) == 4
    for one in known + strangers:
        sockets.discard(one)
    assert len(sockets) == sockets.shares.total == sockets.strangers.held == 0


def test_one_address_has_a_bound_of_strangers() -> None:
    """It takes its own places, and none of others; a /64 network is one address."""
    sockets = Sockets(SocketLimits(total=100, strangers=100, strangers_per_address=2))
    other = new()
    assert sockets.add(other, None, "192.0.2.1")
    mine = [new() for _ in range(5)]
    for number, one in enumerate(mine):
        assert sockets.add(one, None, f"2001:db8::{number + 1}")
    assert [code(one) for one in mine] == [4504] * 3 + [0, 0]
    assert code(other) == 0


def test_a_tenant_leaves_the_floors_of_others() -> None:
    """One tenant's sockets never take the last ones; who authenticates takes a place of the tenant's."""
    total = 4 * MAX_TENANTS
    sockets = Sockets(SocketLimits(total=total, strangers=10, strangers_per_address=10))
    taken = 0
    while sockets.add(new(), "greedy"):
        taken += 1
    assert taken < total
    stranger = new()
    assert sockets.add(stranger, None, "192.0.2.1")
    assert sockets.authenticated(stranger, "modest")
    assert sockets.shares.held("modest") == 1
    assert sockets.strangers.held == 0
    late = new()
    assert sockets.add(late, None, "192.0.2.1")
    assert not sockets.authenticated(late, "greedy")
    assert code(late) == 0


async def test_a_port_of_a_name_with_two_addresses_is_bound_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An address that this machine lacks is passed over; none at all is a failure."""
    absent = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.0.2.1", 0))
    present = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0))
    found = [absent, present]

    async def resolved(*_: object, **__: object) -> list[object]:
        return list(found)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolved)
    (listener,) = await acceptor.listen("any", 0)
    listener.close()
    found.remove(present)
    with pytest.raises(OSError, match="Cannot assign"):
        await acceptor.listen("any", 0)


def test_a_client_knows_the_refusal() -> None:
    """It is one whole response."""
    head, _, body = acceptor.refusal().partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body)["code"] == acceptor.CODE
