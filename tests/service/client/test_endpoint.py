"""Credentials: keys, tokens that are replaced when they expire, and refused ones."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from protocol.channels import MAX_DATA_BYTES
from protocol.errors import AccessDenied, InvalidRequest, Unreachable
from service.client import Client, endpoint
from service.client.endpoint import Key
from service.client.listening import Message
from tests.service.bench import Service, open_service
from tests.service.issuer import SECRET, claims, sign

ROOM = "room:7"
API_KEY = "a-key-of-the-tests"


def token(seconds: float) -> str:
    """Return a token that expires in so many seconds."""
    return sign(claims(exp=time.time() + seconds, channels=["room:*"]))


class Issued:
    """Returns one token after the other, then the last one repeatedly."""

    def __init__(self, *tokens: str) -> None:
        self.asked = 0
        self._tokens = tokens

    def __call__(self) -> str:
        """Return the next one."""
        self.asked += 1
        return self._tokens[min(self.asked, len(self._tokens)) - 1]


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service that accepts a key, and tokens until they expire."""
    async with open_service(api_keys=(API_KEY,), jwt_secret=SECRET, jwt_leeway_seconds=0) as running:
        yield running


async def asynchronous() -> str:
    """Return the key, as a coroutine."""
    return API_KEY


@pytest.mark.parametrize("key", [API_KEY, lambda: API_KEY, asynchronous])
async def test_a_key_or_what_returns_one(service: Service, key: Key) -> None:
    """Every call of a client has the key."""
    async with Client(service.base, key=key) as client:
        first = (await client.publish(ROOM, "said", "a")).position
        await client.publish(ROOM, "said", "b")
        heard = await anext(client.listen(ROOM, after=first))
        assert isinstance(heard, Message)
        assert heard.data == "b"


async def test_a_token_that_has_expired_is_replaced(service: Service) -> None:
    """A call and a connection that are refused with one token are retried with the next, without a delay."""
    async with Client(service.base, key=(issued := Issued(token(-60), token(600)))) as client:
        first = (await client.publish(ROOM, "said", "a")).position
        assert issued.asked == 2
    async with Client(service.base, key=(issued := Issued(token(-60), token(600)))) as client:
        await client.publish(ROOM, "said", "b")
        issued.asked = 0
        assert isinstance(await anext(client.listen(ROOM, after=first)), Message)
        assert issued.asked == 2


async def test_a_token_that_expires_meanwhile_is_replaced(service: Service) -> None:
    """A listener whose token expires reconnects with the next one, and misses nothing."""
    issued = Issued(token(0.3), token(600))
    async with (
        Client(service.base, key=token(600)) as publisher,
        Client(service.base, key=issued, base=0.0) as client,
        client.listen(ROOM, after=(await publisher.publish(ROOM, "said", 0)).position) as listening,
    ):
        number = 0
        while issued.asked < 2:
            number += 1
            await publisher.publish(ROOM, "said", number)
            heard = await anext(listening)
            assert isinstance(heard, Message)
            assert heard.data == number


@asynccontextmanager
async def scripted(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """Serve a socket; yields the address."""
    app = web.Application()
    app.router.add_get("/ws", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_each_connection_asks_for_a_token() -> None:
    """A socket that is closed because its token has ended (4005) is opened again with another one."""
    seen = []

    async def serve(request: web.Request) -> web.WebSocketResponse:
        seen.append(request.headers["Authorization"])
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        data = {"epoch": "e", "offset": 0, "recovered": True}
        await socket.send_json({"type": "ack", "id": 1, "channel": ROOM, "data": data})
        if len(seen) < 3:
            await socket.close(code=4005)
        else:
            await socket.send_json({"type": "update", "channel": ROOM, "offset": 1, "event": "said", "data": 1})
        await socket.receive()
        return socket

    async with scripted(serve) as address, Client(address, key=Issued("1", "2", "3"), base=0.0) as client:
        await anext(client.listen(ROOM))
    assert seen == ["Bearer 1", "Bearer 2", "Bearer 3"]


async def test_a_loop_that_takes_its_time_is_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing is read, the service's ping is not answered, but the client sends its own."""
    monkeypatch.setattr(endpoint, "HEARTBEAT", 0.05)
    pinged = asyncio.Event()

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        await socket.receive()
        for frame in ({"type": "ack", "data": {"epoch": "e"}}, {"type": "update", "offset": 1, "event": "said"}):
            await socket.send_json({"id": 1, "channel": ROOM, "data": 1} | frame)
        await socket.ping()
        while (await socket.receive()).type is not WSMsgType.PING:
            pass
        pinged.set()
        return socket

    async with scripted(serve) as address, Client(address) as client, client.listen(ROOM) as listening:
        await anext(listening)
        await pinged.wait()


async def test_tokens_that_are_all_refused(service: Service) -> None:
    """Two refusals in a row are raised; without a replaceable token, the first one."""
    for key, asked in ((Issued(token(-60)), 2), (token(-60), 0)):
        async with Client(service.base, key=key) as client:
            with pytest.raises(AccessDenied) as raised:
                await client.presence(ROOM)
            assert raised.value.code == "token_expired"
            assert not isinstance(key, Issued) or key.asked == asked
            with pytest.raises(AccessDenied) as raised:
                await anext(client.listen(ROOM))
            assert raised.value.problem.status == 401
            assert not isinstance(key, Issued) or key.asked == 2 * asked


async def test_nobody_has_a_token(service: Service) -> None:
    """The function's exception is raised; a lost connection is retried within the patience."""

    def broken() -> str:
        raise LookupError("signed out")

    def unreachable() -> str:
        raise ConnectionRefusedError

    async with Client(service.base, key=broken) as client:
        for attempt in (client.presence(ROOM), client.state("r")):
            with pytest.raises(LookupError):
                await attempt
        with pytest.raises(LookupError):
            await anext(client.listen(ROOM))
    async with Client(service.base, key=unreachable, call_patience=0.0) as client:
        with pytest.raises(Unreachable):
            await client.presence(ROOM)
        with pytest.raises(Unreachable):
            await anext(client.listen(ROOM))


async def test_a_large_body_is_sent_in_pieces(service: Service) -> None:
    """A body that is far too large gets the service's error, like one that is slightly too large."""
    async with Client(service.base, key=API_KEY) as client:
        for size in (MAX_DATA_BYTES, 3_000_000):
            with pytest.raises(InvalidRequest) as raised:
                await client.publish(ROOM, "said", "x" * size)
            assert raised.value.problem.status == 413


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        (web.json_response({"code": "origin_not_allowed", "detail": "the very reason"}, status=403), "the very reason"),
        (web.Response(text="<html>no</html>", status=403), "(403)"),
        (web.Response(text="hello"), "(403)"),
        (None, "(403)"),
    ],
)
async def test_a_refused_upgrade_is_raised_with_its_reason(reason: web.Response | None, says: str) -> None:
    """A plain call of the same address has the reason; a proxy that says nothing leaves the status."""

    async def socket(request: web.Request) -> web.Response:
        if "Upgrade" in request.headers:
            return web.Response(text="refused", status=403)
        if reason is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        assert request.headers["Authorization"] == f"Bearer {API_KEY}"
        return reason

    app = web.Application()
    app.router.add_get("/ws", socket)
    async with TestServer(app) as server, Client(str(server.make_url("/")), key=API_KEY) as client:
        with pytest.raises(AccessDenied) as refused:
            await anext(client.listen(ROOM))
    assert says in refused.value.detail
