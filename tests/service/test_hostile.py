"""Slow, greedy and lost clients: each costs a bounded number of bytes, and does not affect the others."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from actors import subscription_hub
from actors.delivery import fanout
from actors.delivery.topic import PAGE_BYTES
from actors.subscription_hub import HIGH_WATER, MAX_SUBSCRIPTIONS
from protocol.hub import GetHubStats
from protocol.requests import GetRequest
from service.websocket import reader, upgrade
from service.websocket.transport import Later, SocketTransport
from tests.contracts.delivery.wires import messages
from tests.contracts.delivery.world import Content
from tests.service.bench import Service, open_service
from tests.service.websocket.test_fuzz import CLOSE, HANDSHAKE, TEXT, frame

SMALL: Final = 4096  # bytes that the kernel keeps for a connection, or as few as it can
BOUND: Final = HIGH_WATER + PAGE_BYTES + PAGE_BYTES // 8
READERS: Final = 80
SLEEPERS: Final = 20
PIECE: Final = "x" * 1000
PIECES: Final = 150  # fewer bytes than a log keeps one by one


class Gauge(SocketTransport):
    """A connection on the server that records its largest buffer."""

    seen: list["Gauge"]
    narrow: bool
    __slots__ = ("peak",)

    def __init__(self, transport: asyncio.Transport, later: Later, heartbeat: float) -> None:
        super().__init__(transport, later, heartbeat)
        self.peak = 0
        if self.narrow:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        write = self.write

        def measured(frames: bytes) -> None:
            write(frames)
            self.peak = max(self.peak, self.buffered)

        self.write = measured
        self.seen.append(self)


class Peer:
    """A client that reads only when the test says so."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.content = Content()
        self.last = 0
        self.frames: list[dict[str, Any]] = []
        self.code: int | None = None
        self._kept = b""
        self._loop = asyncio.get_running_loop()
        self._end = socket.socket()

    async def connect(self) -> "Peer":
        """Open a socket."""
        self._end.setblocking(False)
        self._end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        await self._loop.sock_connect(self._end, ("127.0.0.1", self.service.port))
        await self._loop.sock_sendall(self._end, HANDSHAKE.encode())
        while b"\r\n\r\n" not in self._kept:
            self._kept += await self._loop.sock_recv(self._end, SMALL)
        self._kept = self._kept.partition(b"\r\n\r\n")[2]
        return self

    async def say(self, **said: Any) -> None:  # noqa: ANN401 - JSON
        """Send a frame."""
        await self._loop.sock_sendall(self._end, frame(TEXT, json.dumps(said).encode()))

    async def follow(self, request_id: str, epoch: str = "") -> "Peer":
        """Follow a request from this client's position."""
        place = {"after": {"epoch": epoch, "offset": self.last}} if epoch else {}
        await self.say(type="subscribe", requestId=request_id, **place)
        return self

    async def read(self) -> None:
        """Read to the end of the request or connection; checks that each event comes once."""
        while not self.content.ended and self.code is None:
            data = await self._loop.sock_recv(self._end, 1 << 16)
            found, self._kept = messages(self._kept + data)
            for opcode, payload in found:
                if opcode == CLOSE:
                    self.code = int.from_bytes(payload[:2], "big")
                elif opcode == TEXT:
                    self._take(json.loads(payload))
            assert data or self.code is not None, "it was cut off"

    def half_close(self) -> None:
        """Half-close the connection."""
        self._end.shutdown(socket.SHUT_WR)

    def leave(self) -> None:
        """Close the connection."""
        self._end.close()

    def _take(self, said: dict[str, Any]) -> None:
        assert said.get("snapshot") or said.get("from", said["offset"]) == self.last + 1
        self.last = said["offset"]
        self.frames.append(said)
        self.content.take(said)


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """A service with a scripted gateway, whose connections record their buffers."""
    Gauge.seen, Gauge.narrow = [], True
    monkeypatch.setattr(upgrade, "SocketTransport", Gauge)
    async with open_service() as running:
        yield running


async def until_idle(service: Service, sockets: int = 0) -> None:
    """Wait until so many sockets have subscriptions."""
    async with asyncio.timeout(10):
        while (await service.container.hub.ask(GetHubStats(), timeout=5)).sockets != sockets:
            pass


async def test_some_never_read_among_many_that_do(service: Service) -> None:
    """Clients that read get every piece; the buffers of the others are bounded, and they get the rest in few frames."""
    request_id = await service.submit()
    call = await service.call()
    sleepers = [await (await Peer(service).connect()).follow(request_id) for _ in range(SLEEPERS)]
    Gauge.narrow = False
    readers = [await (await Peer(service).connect()).follow(request_id) for _ in range(READERS)]
    await until_idle(service, SLEEPERS + READERS)
    reading = asyncio.gather(*(reader.read() for reader in readers))
    for _ in range(PIECES):
        await call.say(PIECE)
    await call.end()
    await reading
    assert max(gauge.peak for gauge in Gauge.seen) <= BOUND
    assert (await service.container.hub.ask(GetHubStats(), timeout=5)).sockets == SLEEPERS
    await asyncio.gather(*(sleeper.read() for sleeper in sleepers))
    for peer in readers + sleepers:
        assert (peer.content.text, peer.content.ended) == (PIECE * PIECES, "complete")
        peer.leave()
    assert all(any("from" in said for said in sleeper.frames) for sleeper in sleepers)
    assert (
        max(gauge.peak for gauge in Gauge.seen) <= BOUND + 2 * len(PIECE) * PIECES
    )  # the end has the whole text, also as a part
    await until_idle(service)


async def test_one_that_never_reads_is_closed_and_comes_back(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stalled client is closed with 4008 after its time, and has the same text after a reconnect."""
    monkeypatch.setattr(fanout, "STALL_LIMIT", 0.0)
    monkeypatch.setattr(subscription_hub, "LAG_INTERVAL", 0.001)
    request_id = await service.submit()
    call = await service.call()
    handle = await service.container.router.ask(GetRequest(request_id), timeout=5)
    peer = await (await Peer(service).connect()).follow(request_id)
    await service.until_followers(request_id, 1)
    for _ in range(PIECES):
        await call.say(PIECE)
    await until_idle(service)
    await peer.read()
    assert peer.code == 4008
    assert 0 < peer.last < PIECES
    again = Peer(service)
    again.last, again.content = peer.last, peer.content
    await (await again.connect()).follow(request_id, handle.stream.epoch)
    monkeypatch.setattr(fanout, "STALL_LIMIT", 30.0)
    await service.until_followers(request_id, 1)
    await call.end()
    await again.read()
    assert (again.content.text, again.content.ended) == (PIECE * PIECES, "complete")
    peer.leave()
    again.leave()


async def test_answers_that_are_not_read_can_not_be_asked_for(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that sends commands and reads no answers is not read from above a limit."""
    monkeypatch.setattr(reader, "BURST", 1e9)
    peer = await Peer(service).connect()
    asking = asyncio.ensure_future(_ask_for_ever(peer))
    (gauge,) = Gauge.seen
    async with asyncio.timeout(10):
        while not gauge.paused:
            await service.container.hub.ask(GetHubStats(), timeout=5)
    assert gauge.peak <= BOUND
    asking.cancel()
    peer.leave()


async def _ask_for_ever(peer: Peer) -> None:
    while True:
        await peer.say(type="ping", id="x" * 128)


async def test_thousands_of_subscriptions(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket has at most a thousand subscriptions; closing it removes all of them."""
    monkeypatch.setattr(reader, "BURST", 1e9)
    many = MAX_SUBSCRIPTIONS + 20
    async with service.client.ws_connect(f"{service.base}/ws") as line:
        for number in range(many):
            await line.send_json({"type": "subscribe", "id": number, "channel": f"room:{number}"})
        said = [await line.receive_json() for _ in range(many)]
        assert [answer["type"] for answer in said] == ["ack"] * MAX_SUBSCRIPTIONS + ["error"] * 20
        assert {answer["error"]["code"] for answer in said[MAX_SUBSCRIPTIONS:]} == {"connection_limit"}
        assert (await service.container.hub.ask(GetHubStats(), timeout=5)).subscriptions == MAX_SUBSCRIPTIONS
    await until_idle(service)


async def test_one_that_says_that_nothing_more_will_come(service: Service) -> None:
    """A half-closed connection is closed: the hub removes it, and the request goes on."""
    request_id = await service.submit()
    call = await service.call()
    peer = await (await Peer(service).connect()).follow(request_id)
    await service.until_followers(request_id, 1)
    peer.half_close()
    await until_idle(service)
    assert not call.cancelled.is_set()
    await call.end()
    peer.leave()
