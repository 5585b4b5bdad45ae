"""Channels through the hub."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from actors.channels.embedded import EmbeddedChannels
from actors.channels.leases import LEASE
from actors.channels.limits import ChannelLimits, HistoryLimits
from actors.channels.table import SWEEP_INTERVAL
from actors.runtime import Ref
from actors.runtime.testing import TestSystem
from actors.subscription_hub import BATCH, LOST_STATE, HubMessage, SubscriptionHub
from protocol.channels import (
    AckChannel,
    ChannelMessage,
    GetHistory,
    GetPresence,
    Join,
    Leave,
    Peer,
    SubscribeChannel,
    UnsubscribeChannel,
)
from protocol.errors import InvalidRequest, ShuttingDown, UnrecoverablePosition
from protocol.events import Position
from protocol.hub import DisconnectAll, GetHubStats, SocketClosed
from protocol.users import DisconnectUser, GetStatus, SocketOpened, UnsubscribeUser, UserMessage, UserSubscribed
from tests.actors.channels.bench import CHANNEL, TENANT, FakeSocket, newline

ADA, BOB = Peer("ada", "c1"), Peer("bob", "c2")
Hub = Ref[HubMessage | ChannelMessage | UserMessage]


@pytest.fixture
async def system() -> AsyncIterator[TestSystem]:
    """A system with a manual clock."""
    async with TestSystem() as system:
        yield system


@pytest.fixture
async def hub(system: TestSystem) -> Hub:
    """The hub, with a history of three publications."""
    limits = ChannelLimits(history=HistoryLimits(3))
    return system.spawn(lambda: SubscriptionHub(newline, channels=limits), name="hub")


@pytest.fixture
def channels(hub: Hub) -> EmbeddedChannels:
    """The tenant's channels in process."""
    return EmbeddedChannels(hub, tenant=TENANT)


async def follow(hub: Hub, socket: FakeSocket, peer: Peer = ADA, *, presence: bool = False) -> None:
    """Subscribe ``socket`` to the channel."""
    message = SubscribeChannel(socket=socket, tenant=TENANT, channel=CHANNEL, peer=peer, presence=presence)
    await hub.ask(message, timeout=1)


async def ack(hub: Hub, socket: FakeSocket, offset: int) -> None:
    """Acknowledge everything up to ``offset``."""
    await hub.tell(AckChannel(socket=socket, tenant=TENANT, channel=CHANNEL, offset=offset))


async def test_a_publisher_gets_the_acknowledgements(system: TestSystem, hub: Hub, channels: EmbeddedChannels) -> None:
    """It gets a reply as soon as all followers have acknowledged; acknowledgements are cumulative."""
    sockets = {ADA: FakeSocket(), BOB: FakeSocket()}
    for peer, socket in sockets.items():
        await follow(hub, socket, peer)
    first = asyncio.ensure_future(channels.publish(CHANNEL, "said", 1, ack=True))
    second = asyncio.ensure_future(channels.publish(CHANNEL, "said", 2, ack=True))
    await system.settle()
    await ack(hub, sockets[ADA], 2)
    await ack(hub, sockets[BOB], 1)
    assert (await first).acknowledged == (ADA, BOB)
    assert not second.done()
    await ack(hub, sockets[BOB], 2)
    published = await second
    assert (published.acknowledged, published.position.offset) == ((ADA, BOB), 2)


async def test_a_publisher_waits_until_its_timeout(system: TestSystem, hub: Hub, channels: EmbeddedChannels) -> None:
    """At its timeout it gets the acknowledgements so far."""
    sockets = {ADA: FakeSocket(), BOB: FakeSocket()}
    for peer, socket in sockets.items():
        await follow(hub, socket, peer)
    publishing = asyncio.ensure_future(channels.publish(CHANNEL, "said", ack=True, timeout=2))
    await system.settle()
    await ack(hub, sockets[BOB], 1)
    await system.advance(1.9)
    assert not publishing.done()
    await system.advance(0.2)
    assert (await publishing).acknowledged == (BOB,)
    await ack(hub, sockets[ADA], 1)
    await system.settle()


async def test_a_publisher_without_followers_does_not_wait(channels: EmbeddedChannels) -> None:
    """Without followers the reply comes at once."""
    assert (await channels.publish(CHANNEL, "said", ack=True)).acknowledged == ()


async def test_a_publisher_does_not_wait_for_a_closed_socket(
    system: TestSystem, hub: Hub, channels: EmbeddedChannels
) -> None:
    """A closed socket can not acknowledge."""
    socket = FakeSocket()
    await follow(hub, socket)
    publishing = asyncio.ensure_future(channels.publish(CHANNEL, "said", ack=True))
    await system.settle()
    await hub.tell(SocketClosed(socket))
    assert (await publishing).acknowledged == ()


async def test_a_replayed_publication_has_its_acknowledgements(hub: Hub, channels: EmbeddedChannels) -> None:
    """Publishing again with the same key returns the acknowledgements."""
    socket = FakeSocket()
    await follow(hub, socket)
    await channels.publish(CHANNEL, "said", key="k")
    await ack(hub, socket, 1)
    again = await channels.publish(CHANNEL, "said", key="k", ack=True)
    assert (again.replayed, again.acknowledged) == (True, (ADA,))


async def test_history_and_members_in_process(hub: Hub, channels: EmbeddedChannels) -> None:
    """A program gets the history and the members, too."""
    for number in range(4):
        await channels.publish(CHANNEL, "said", number)
    history = await channels.history(CHANNEL)
    assert [publication.offset for publication in history.publications] == [2, 3, 4]
    with pytest.raises(UnrecoverablePosition):
        await channels.history(CHANNEL, after=Position(history.epoch, 0))
    await hub.ask(Join(socket=None, tenant=TENANT, channel=CHANNEL, peer=ADA), timeout=1)
    assert [member.user for member in await channels.members(CHANNEL)] == ["ada"]


async def test_a_dead_peer_disappears(system: TestSystem, hub: Hub) -> None:
    """A socket that is closing, and a member that does not renew, are gone after a lease and a sweep."""
    watcher, dead = FakeSocket(), FakeSocket()
    await follow(hub, watcher, BOB, presence=True)
    await hub.ask(Join(socket=dead, tenant=TENANT, channel=CHANNEL, peer=ADA), timeout=1)
    await hub.ask(Join(socket=None, tenant=TENANT, channel=CHANNEL, peer=Peer("robot", "r")), timeout=1)
    await system.advance(LEASE / 2)
    dead.closing = True
    await system.advance(LEASE + SWEEP_INTERVAL)
    assert await hub.ask(GetPresence(tenant=TENANT, channel=CHANNEL), timeout=1) == ()
    assert watcher.presence_events == [("join", "c1"), ("join", "r"), ("leave", "r"), ("leave", "c1")]


async def test_the_sweep_stops_without_channels(system: TestSystem, hub: Hub, channels: EmbeddedChannels) -> None:
    """It starts with the first channel and stops after the last one."""
    await channels.publish(CHANNEL, "said")
    assert (await hub.ask(GetHubStats(), timeout=1)).channels == 1
    await system.advance(310)
    assert (await hub.ask(GetHubStats(), timeout=1)).channels == 0
    await channels.publish(CHANNEL, "said")
    assert (await hub.ask(GetHubStats(), timeout=1)).channels == 1


async def test_the_other_messages(hub: Hub, channels: EmbeddedChannels) -> None:
    """Each gets its reply."""
    socket = FakeSocket()
    await hub.tell(SocketOpened(socket=socket, tenant=TENANT, user="ada"))
    await follow(hub, socket)
    join = Join(socket=socket, tenant=TENANT, channel=CHANNEL, peer=ADA)
    await hub.ask(join, timeout=1)
    status = await hub.ask(GetStatus(tenant=TENANT, user="ada"), timeout=1)
    assert (status.status, status.sockets, status.since is not None) == ("online", 1, True)
    assert await hub.ask(Leave(socket=socket, tenant=TENANT, channel=CHANNEL, peer=ADA), timeout=1)
    assert await hub.ask(UnsubscribeChannel(socket=socket, tenant=TENANT, channel=CHANNEL), timeout=1)
    await follow(hub, socket)
    assert await hub.ask(UnsubscribeUser(tenant=TENANT, user="ada", channel=CHANNEL), timeout=1) == 1
    assert await hub.ask(DisconnectUser(tenant=TENANT, user="ada"), timeout=1) == 1
    assert socket.closed == (4503, "disconnected")
    found = await hub.ask(GetHistory(tenant=TENANT, channel=CHANNEL), timeout=1)
    assert found.publications == ()


async def test_users_and_lists_in_process(hub: Hub, channels: EmbeddedChannels) -> None:
    """A program subscribes a user and sees who follows what; each method is one message to the hub."""
    socket = FakeSocket()
    await hub.tell(SocketOpened(socket=socket, tenant=TENANT, user="ada"))
    await channels.publish(CHANNEL, "said", 1)
    assert await channels.subscribe("ada", CHANNEL, mode="replay") == UserSubscribed(sockets=1)
    assert (await channels.publish(CHANNEL, "said", 2)).subscribers == 1
    assert [item.name for item in (await channels.channels()).items] == [CHANNEL]
    assert [item.user for item in (await channels.subscribers(CHANNEL)).items] == ["ada"]
    assert (await channels.subscribers(CHANNEL, after=Peer("ada"))).items == ()
    assert [item.name for item in (await channels.channels_of("ada")).items] == [CHANNEL]
    assert await channels.unsubscribe("ada", CHANNEL) == 1
    found = await channels.set_presence("ada", "offline", {"why": "asleep"}, ttl=5.0)
    assert found == await channels.status("ada")
    assert (found.status, bytes(found.metadata)) == ("offline", b'{"why":"asleep"}')
    assert [frame["type"] for frame in socket.frames] == ["ack", "update", "update", "error"]


async def test_a_user_with_many_sockets_is_subscribed_in_batches(hub: Hub, channels: EmbeddedChannels) -> None:
    """Each socket once, however many there are."""
    sockets = [FakeSocket() for _ in range(2 * BATCH + 1)]
    for socket in sockets:
        await hub.ask(SubscribeChannel(socket=socket, tenant=TENANT, channel="lobby", peer=ADA), timeout=1)
    assert await channels.subscribe("ada", CHANNEL) == UserSubscribed(sockets=len(sockets))
    assert (await channels.publish(CHANNEL, "said")).subscribers == len(sockets)


async def test_nobody_is_subscribed_while_the_hub_closes(hub: Hub, channels: EmbeddedChannels) -> None:
    """Its sockets are being closed."""
    await hub.tell(SocketOpened(socket=FakeSocket(), tenant=TENANT, user="ada"))
    await hub.ask(DisconnectAll(), timeout=1)
    with pytest.raises(ShuttingDown):
        await channels.subscribe("ada", CHANNEL)


async def test_an_invalid_publication_is_refused(hub: Hub, channels: EmbeddedChannels) -> None:
    """The error is a reply, and the hub goes on."""
    with pytest.raises(InvalidRequest):
        await channels.publish("", "said")
    with pytest.raises(InvalidRequest):
        await channels.publish(CHANNEL, "said", ack=True, timeout=1000)
    await channels.publish(CHANNEL, "said")


async def test_a_hub_that_ends_closes_all_sockets(system: TestSystem, hub: Hub) -> None:
    """Followers, members and connected sockets are closed: each has to subscribe again."""
    follower, member, connected = FakeSocket(), FakeSocket(), FakeSocket()
    await follow(hub, follower)
    await hub.ask(Join(socket=member, tenant=TENANT, channel=CHANNEL, peer=Peer("", "c3")), timeout=1)
    await hub.tell(SocketOpened(socket=connected, tenant=TENANT, user="eve"))
    await system.settle()
    await system.stop(hub)
    assert {socket.closed for socket in (follower, member, connected)} == {(LOST_STATE, "insufficient state")}
