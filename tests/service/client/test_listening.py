"""Listening to channels, through a proxy that aborts connections, and against a scripted socket."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from protocol.errors import AccessDenied, IdempotencyKeyReused, InvalidRequest, ShuttingDown, UnrecoverablePosition
from protocol.events import Position
from protocol.users import UnsubscribeUser
from service.auth.keys import digest_of
from service.client import Client
from service.client.listening import ChannelEvent, Gap, Listening, Message, Presence
from service.websocket.upgrade import SOCKETS
from tests.cutting_proxy import CuttingProxy
from tests.service.bench import open_service

ROOM = "room:7"
MANY = 600
FILLER = "ш" * 100


def data_of(heard: ChannelEvent) -> Any:  # noqa: ANN401 - JSON
    """Return a message's data; other events fail the test."""
    assert isinstance(heard, Message), heard
    return heard.data


async def begin(listening: Listening, client: Client) -> None:
    """Wait until the subscription is active; it has got one message then."""
    first = asyncio.ensure_future(anext(listening))
    await until(lambda: listening.position is not None)
    await client.publish(ROOM, "begin", 0)
    assert data_of(await first) == 0


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what is looked at has no event
            await asyncio.sleep(0)


async def until_over(listening: Listening) -> None:
    """Listen to the end."""
    async for _ in listening:
        pass


# ------------------------------------------------------------------------------------------- against the real service


@pytest.mark.parametrize("seed", range(3))
async def test_cut_anywhere_every_message_is_heard_once(seed: int) -> None:
    """Across a hundred aborted connections of listener and publisher, each message arrives once and in order."""
    chance = random.Random(seed)
    room = asyncio.Semaphore(300)
    cuts = ([chance.randrange(200, 2500) for _ in range(100)] for _ in range(2))

    async def publish(client: Client) -> None:
        for number in range(MANY):
            await room.acquire()
            await client.publish(ROOM, "said", {"n": number, "filler": FILLER})

    async with (
        open_service() as service,
        CuttingProxy(service.base, next(cuts)) as near,
        CuttingProxy(service.base, next(cuts)) as far,
        Client(near.url, base=0.0) as listener,
        Client(far.url, base=0.0) as publisher,
        listener.listen(ROOM) as listening,
        asyncio.TaskGroup() as tasks,
    ):
        await begin(listening, publisher)
        tasks.create_task(publish(publisher))
        for number in range(MANY):
            heard = await anext(listening)
            assert isinstance(heard, Message)
            assert (heard.data["n"], heard.offset) == (number, number + 2)
            room.release()
        assert near.connections > 80
        assert far.connections > 30


async def test_a_history_that_was_trimmed_is_one_gap() -> None:
    """A listener that reconnects too late gets one ``Gap``, then the following messages."""
    async with (
        open_service(channel_history_entries=5) as service,
        CuttingProxy(service.base) as proxy,
        Client(proxy.url, base=0.0) as client,
        client.listen(ROOM) as listening,
    ):
        await begin(listening, client)
        proxy.cut()
        for number in range(20):
            position = (await client.publish(ROOM, "said", number)).position
        assert await anext(listening) == Gap(position=position)
        assert listening.position == position
        await client.publish(ROOM, "said", "new")
        proxy.cut()
        await client.publish(ROOM, "said", "newer")
        assert [data_of(await anext(listening)) for _ in range(2)] == ["new", "newer"]


async def test_a_service_that_was_replaced_is_a_gap() -> None:
    """A new epoch is a ``Gap``, even with lower offsets."""
    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(open_service())
        proxy = await stack.enter_async_context(CuttingProxy(old.base))
        client = await stack.enter_async_context(Client(proxy.url, base=0.0))
        listening = client.listen(ROOM)
        await begin(listening, client)
        proxy.target = (await stack.enter_async_context(open_service())).base
        proxy.cut()
        gap = await anext(listening)
        assert isinstance(gap, Gap)
        assert gap.position.offset == 0
        await client.publish(ROOM, "said", "new")
        assert data_of(await anext(listening)) == "new"


async def test_a_position_beyond_the_end_is_a_gap() -> None:
    """A position that the service refuses is dropped with a ``Gap``, then messages arrive."""
    async with open_service() as service, Client(service.base, base=0.0) as client:
        first = (await client.publish(ROOM, "said", "a")).position
        listening = client.listen(ROOM, after=Position(first.epoch, 99))
        assert await anext(listening) == Gap(position=first)
        await client.publish(ROOM, "said", "b")
        assert data_of(await anext(listening)) == "b"


async def test_from_a_position_on() -> None:
    """The history is read page by page, and a listener continues after any of its messages."""
    async with open_service() as service, Client(service.base) as client:
        assert (await client.history("room/ü %2F")).messages == ()
        for number in range(5):
            await client.publish("room/ü %2F", "said", number)
        page = await client.history("room/ü %2F", limit=3)
        assert [(message.event, message.data, message.offset) for message in page.messages] == [
            ("said", 0, 1),
            ("said", 1, 2),
            ("said", 2, 3),
        ]
        assert page.messages[0].at is not None
        last = await client.history("room/ü %2F", after=page.next, limit=3)
        assert [message.data for message in last.messages] == [3, 4]
        assert last.next is None
        listening = client.listen("room/ü %2F", after=page.messages[2].position)
        assert [data_of(await anext(listening)) for _ in range(2)] == [3, 4]
        assert listening.position == last.position
        with pytest.raises(UnrecoverablePosition):
            await client.history("room/ü %2F", after=Position("another", 1))


async def test_a_publication_is_made_once() -> None:
    """The same key is the same message; with other content it is refused, and so is a message that is too large."""
    async with open_service() as service, Client(service.base) as client:
        first = await client.publish(ROOM, "said", "a", key="k")
        assert await client.publish(ROOM, "said", "a", key="k") == first
        assert first.subscribers == 0
        with pytest.raises(IdempotencyKeyReused):
            await client.publish(ROOM, "said", "b", key="k")
        for size in (40_000, 5_000_000):
            with pytest.raises(InvalidRequest):
                await client.publish(ROOM, "said", "x" * size)
        assert (await client.publish(ROOM, "said", "b")).position.offset == first.position.offset + 1


async def test_who_is_there() -> None:
    """With ``presence`` a listener gets the members, joins and leaves; after a reconnect, the members again."""
    async with (
        open_service() as service,
        CuttingProxy(service.base) as proxy,
        Client(proxy.url, base=0.0) as watcher,
        Client(service.base) as guest,
    ):
        watching = watcher.listen(ROOM, presence=True)
        assert await anext(watching) == Presence(action="state")
        for info in ({"name": "Ada"}, {"name": "Ann"}):
            present = guest.listen(ROOM, member=info, client="phone")
            stepping = asyncio.ensure_future(anext(present))
            joined = await anext(watching)
            assert isinstance(joined, Presence)
            assert joined.action == "join"
            assert joined.member is not None
            assert (joined.member.client, joined.member.info) == ("phone", info)
            assert await watcher.presence(ROOM) == (joined.member,)
            proxy.cut()
            assert await anext(watching) == Presence(action="state", members=(joined.member,))
            await present.aclose()
            with pytest.raises(StopAsyncIteration):
                await stepping
            left = await anext(watching)
            assert left == Presence(action="leave", member=joined.member)
        assert await watcher.presence(ROOM) == ()


async def test_who_has_not_the_right_is_told(tmp_path: Path) -> None:
    """A wrong key, a key without the right, and being unsubscribed: each raises its ``AccessDenied``."""
    file = tmp_path / "tidegate.toml"
    file.write_text(
        f'[keys.ada]\nhash = "{digest_of("ada").hex()}"\ntenant = "acme"\nchannels = [{{ pattern = "{ROOM}" }}]\n',
        encoding="utf-8",
    )
    async with open_service(routes_file=file) as service:
        async with Client(service.base, key="wrong") as client:
            attempts: list[Awaitable[object]] = [client.publish(ROOM, "said"), client.presence(ROOM)]
            for attempt in (*attempts, anext(client.listen(ROOM))):
                with pytest.raises(AccessDenied) as raised:
                    await attempt
                assert raised.value.code == "unauthenticated"
        async with Client(service.base, key="ada") as client:
            attempts = [client.publish("other", "said"), client.history("other")]
            for attempt in (*attempts, anext(client.listen("other"))):
                with pytest.raises(AccessDenied) as raised:
                    await attempt
                assert raised.value.code == "channel_denied"
            listening = client.listen(ROOM)
            await begin(listening, client)
            await service.container.hub.ask(UnsubscribeUser(tenant="acme", user="ada", channel=ROOM), timeout=5)
            with pytest.raises(AccessDenied) as raised:
                await until_over(listening)
            assert raised.value.code == "unsubscribed"
            assert [heard async for heard in listening] == []


async def test_leaving_leaves_nothing() -> None:
    """Closing a listener in any way leaves no task and no socket; a running iteration ends."""

    async def sleep(_seconds: float) -> None:
        raise AssertionError("nobody waits to come back")

    async with open_service() as service:
        sockets = service.app[SOCKETS]
        before = asyncio.all_tasks()
        async with Client(service.base, sleep=sleep) as client:
            async with client.listen(ROOM) as listening:
                await begin(listening, client)
                assert len(sockets) == 1
            await until(lambda: len(sockets) == 0)
            listening = client.listen(ROOM)
            cancelled = asyncio.ensure_future(until_over(listening))
            await until(lambda: listening.position is not None)
            cancelled.cancel()
            await asyncio.wait([cancelled])
            await listening.aclose()
            assert isinstance(await anext(client.listen(ROOM, presence=True)), Presence)
            await until(lambda: len(sockets) == 0)
            others = [client.listen(ROOM) for _ in range(120)]
            ends = [asyncio.ensure_future(until_over(other)) for other in others]
            await until(lambda: all(other.position is not None for other in others))
            assert len(sockets) == 120
            early = asyncio.ensure_future(until_over(client.listen(ROOM)))
            await asyncio.sleep(0)
        await asyncio.gather(*ends, early)
        await until(lambda: len(sockets) == 0)
        await until(lambda: asyncio.all_tasks() <= before)


# ----------------------------------------------------------------------------------------- against a scripted socket


class ScriptedChannel:
    """Answers the n-th connection with the n-th row of frames; a number closes the socket with that code."""

    def __init__(self, *rows: Sequence[dict[str, Any] | int]) -> None:
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
                await socket.send_str(json.dumps({"channel": ROOM} | frame))
        async for _ in socket:
            pass
        return socket

    @asynccontextmanager
    async def heard(self, **options: Any) -> AsyncIterator[Listening]:  # noqa: ANN401 - the client's own
        """Serve, and listen from after offset 1 on."""
        app = web.Application()
        app.router.add_get("/ws", self.serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            address = f"http://127.0.0.1:{runner.addresses[0][1]}"
            async with Client(address, **{"base": 0.0, **options}) as client:
                yield client.listen(ROOM, after=Position("e", 1))
        finally:
            await runner.cleanup()


def ack(offset: int, *, epoch: str = "e", recovered: bool = True) -> dict[str, Any]:
    """An acknowledgement of the subscription."""
    return {"type": "ack", "id": 1, "data": {"epoch": epoch, "offset": offset, "recovered": recovered}}


def said(offset: int) -> dict[str, Any]:
    """A message whose data is its offset."""
    return {"type": "update", "offset": offset, "event": "said", "data": offset}


async def test_what_comes_twice_is_heard_once() -> None:
    """A message at or below the last offset is dropped, and so is a frame of another channel."""
    other = said(4) | {"channel": "other"}
    async with ScriptedChannel([ack(4), said(1), said(2), other, said(2), said(3), said(1), said(4)]).heard() as heard:
        assert [data_of(await anext(heard)) for _ in range(3)] == [2, 3, 4]


async def test_an_offset_that_is_missing_is_fetched() -> None:
    """The listener reconnects at its last offset, and gets the missing messages."""
    channel = ScriptedChannel([ack(4), said(2), said(4)], [ack(4), said(3), said(4)])
    async with channel.heard() as heard:
        assert [data_of(await anext(heard)) for _ in range(3)] == [2, 3, 4]
    assert channel.subscribed[1]["after"] == {"epoch": "e", "offset": 2}
    first, second = (frame["client"] for frame in channel.subscribed)
    assert first
    assert first == second


async def test_garbage_is_a_lost_connection() -> None:
    """A malformed frame ends the connection, not the listener."""
    broken = {"type": "update", "offset": "three", "event": "said", "data": 3}
    async with ScriptedChannel([ack(4), said(2), broken], [ack(4), said(3)]).heard() as heard:
        assert [data_of(await anext(heard)) for _ in range(2)] == [2, 3]


@pytest.mark.parametrize("code", [1000, 1001, 1011, 4001, 4005, 4008, 4012])
async def test_codes_after_which_it_comes_back(code: int) -> None:
    """After a close code below 4500 the listener reconnects."""
    async with ScriptedChannel([ack(1), said(2), code], [ack(2), said(3)]).heard() as heard:
        assert [data_of(await anext(heard)) for _ in range(2)] == [2, 3]


async def test_the_server_says_when_to_come_back_and_when_not() -> None:
    """A ``disconnect`` frame has the delay, or is final; a close code from 4500 on is final."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    bye = {"type": "disconnect", "data": {"code": 4001, "reason": "shutdown", "reconnect": True, "delayMs": 7000}}
    out = {"type": "disconnect", "data": {"code": 4503, "reason": "forced", "reconnect": False, "delayMs": 0}}
    async with ScriptedChannel([ack(1), bye, 1000], [ack(1), said(2), out]).heard(sleep=sleep) as heard:
        assert data_of(await anext(heard)) == 2
        with pytest.raises(ShuttingDown):
            await anext(heard)
    assert waits == [7.0]
    async with ScriptedChannel([ack(1), 4503]).heard() as heard:
        with pytest.raises(AccessDenied) as raised:
            await anext(heard)
        assert raised.value.code == "disconnected"
