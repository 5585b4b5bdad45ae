"""Channels through the actor that holds them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from actors.channels.channels import SWEEP_INTERVAL
from actors.channels.embedded import EmbeddedChannels
from actors.channels.leases import LEASE
from actors.channels.limits import ChannelLimits, HistoryLimits
from actors.runtime import Ref
from actors.runtime.testing import TestSystem
from actors.subscription_hub import LOST_STATE, HubMessage, SubscriptionHub
from protocol.channels import (
    AckChannel,
    ChannelMessage,
    DisconnectUser,
    GetHistory,
    GetPresence,
    GetStatus,
    Join,
    Leave,
    Peer,
    SocketOpened,
    SubscribeChannel,
    UnsubscribeChannel,
    UnsubscribeUser,
)
from protocol.errors import InvalidRequest, UnrecoverablePosition
from protocol.events import Position
from protocol.hub import GetHubStats, SocketClosed
from tests.actors.channels.room import ROOM, TENANT, Link, newline

ADA, BOB = Peer("ada", "c1"), Peer("bob", "c2")
Hub = Ref[HubMessage | ChannelMessage]


@pytest.fixture
async def system() -> AsyncIterator[TestSystem]:
    """A system with a clock in hand."""
    async with TestSystem() as system:
        yield system


@pytest.fixture
async def hub(system: TestSystem) -> Hub:
    """The hub, with a history of three."""
    limits = ChannelLimits(history=HistoryLimits(3))
    return system.spawn(lambda: SubscriptionHub(newline, channels=limits), name="hub")


@pytest.fixture
def channels(hub: Hub) -> EmbeddedChannels:
    """The tenant's channels, as a program has them."""
    return EmbeddedChannels(hub, tenant=TENANT)


async def follow(hub: Hub, link: Link, peer: Peer = ADA, *, presence: bool = False) -> None:
    """Let ``link`` follow the room."""
    message = SubscribeChannel(socket=link, tenant=TENANT, channel=ROOM, peer=peer, presence=presence)
    await hub.ask(message, timeout=1)


async def ack(hub: Hub, link: Link, offset: int) -> None:
    """Say that ``link`` has everything up to ``offset``."""
    await hub.tell(AckChannel(socket=link, tenant=TENANT, channel=ROOM, offset=offset))


async def test_a_publisher_learns_who_has_it(system: TestSystem, hub: Hub, channels: EmbeddedChannels) -> None:
    """As soon as everybody who follows has said so, cumulatively."""
    links = {ADA: Link(), BOB: Link()}
    for peer, link in links.items():
        await follow(hub, link, peer)
    first = asyncio.ensure_future(channels.publish(ROOM, "said", 1, ack=True))
    second = asyncio.ensure_future(channels.publish(ROOM, "said", 2, ack=True))
    await system.settle()
    await ack(hub, links[ADA], 2)
    await ack(hub, links[BOB], 1)
    assert (await first).acknowledged == (ADA, BOB)
    assert not second.done()
    await ack(hub, links[BOB], 2)
    published = await second
    assert (published.acknowledged, published.position.offset) == ((ADA, BOB), 2)


async def test_a_publisher_waits_no_longer_than_it_said(
    system: TestSystem, hub: Hub, channels: EmbeddedChannels
) -> None:
    """It learns who has it by then; nobody is a good answer."""
    links = {ADA: Link(), BOB: Link()}
    for peer, link in links.items():
        await follow(hub, link, peer)
    publishing = asyncio.ensure_future(channels.publish(ROOM, "said", ack=True, timeout=2))
    await system.settle()
    await ack(hub, links[BOB], 1)
    await system.advance(1.9)
    assert not publishing.done()
    await system.advance(0.2)
    assert (await publishing).acknowledged == (BOB,)
    await ack(hub, links[ADA], 1)
    await system.settle()


async def test_nobody_to_wait_for_is_no_wait(channels: EmbeddedChannels) -> None:
    """Where nobody follows the reply comes at once."""
    assert (await channels.publish(ROOM, "said", ack=True)).acknowledged == ()


async def test_who_leaves_is_not_waited_for(system: TestSystem, hub: Hub, channels: EmbeddedChannels) -> None:
    """A socket that is gone will not acknowledge."""
    link = Link()
    await follow(hub, link)
    publishing = asyncio.ensure_future(channels.publish(ROOM, "said", ack=True))
    await system.settle()
    await hub.tell(SocketClosed(link))
    assert (await publishing).acknowledged == ()


async def test_a_replayed_publication_knows_who_has_it(hub: Hub, channels: EmbeddedChannels) -> None:
    """Publishing again with the same key asks again who has it."""
    link = Link()
    await follow(hub, link)
    await channels.publish(ROOM, "said", key="k")
    await ack(hub, link, 1)
    again = await channels.publish(ROOM, "said", key="k", ack=True)
    assert (again.replayed, again.acknowledged) == (True, (ADA,))


async def test_history_and_members_in_process(hub: Hub, channels: EmbeddedChannels) -> None:
    """A program looks back and sees who is there, too."""
    for number in range(4):
        await channels.publish(ROOM, "said", number)
    history = await channels.history(ROOM)
    assert [publication.offset for publication in history.publications] == [2, 3, 4]
    with pytest.raises(UnrecoverablePosition):
        await channels.history(ROOM, after=Position(history.epoch, 0))
    await hub.ask(Join(socket=None, tenant=TENANT, channel=ROOM, peer=ADA), timeout=1)
    assert [member.user for member in await channels.members(ROOM)] == ["ada"]


async def test_a_dead_peer_disappears(system: TestSystem, hub: Hub) -> None:
    """A socket whose end nobody told, and a member that does not renew, are gone after a lease and a sweep."""
    watcher, dead = Link(), Link()
    await follow(hub, watcher, BOB, presence=True)
    await hub.ask(Join(socket=dead, tenant=TENANT, channel=ROOM, peer=ADA), timeout=1)
    await hub.ask(Join(socket=None, tenant=TENANT, channel=ROOM, peer=Peer("robot", "r")), timeout=1)
    await system.advance(LEASE / 2)
    dead.closing = True
    await system.advance(LEASE + SWEEP_INTERVAL)
    assert await hub.ask(GetPresence(tenant=TENANT, channel=ROOM), timeout=1) == ()
    assert watcher.comings == [("join", "c1"), ("join", "r"), ("leave", "r"), ("leave", "c1")]


async def test_the_sweep_rests_when_there_is_nothing(system: TestSystem, hub: Hub, channels: EmbeddedChannels) -> None:
    """It begins with the first word and ends when the last channel is forgotten."""
    await channels.publish(ROOM, "said")
    assert (await hub.ask(GetHubStats(), timeout=1)).channels == 1
    await system.advance(310)
    assert (await hub.ask(GetHubStats(), timeout=1)).channels == 0
    await channels.publish(ROOM, "said")
    assert (await hub.ask(GetHubStats(), timeout=1)).channels == 1


async def test_the_other_messages(hub: Hub, channels: EmbeddedChannels) -> None:
    """Each is answered by what it is about."""
    link = Link()
    await hub.tell(SocketOpened(socket=link, tenant=TENANT, user="ada"))
    await follow(hub, link)
    join = Join(socket=link, tenant=TENANT, channel=ROOM, peer=ADA)
    await hub.ask(join, timeout=1)
    status = await hub.ask(GetStatus(tenant=TENANT, user="ada"), timeout=1)
    assert (status.status, status.sockets, status.since is not None) == ("online", 1, True)
    assert await hub.ask(Leave(socket=link, tenant=TENANT, channel=ROOM, peer=ADA), timeout=1)
    assert await hub.ask(UnsubscribeChannel(socket=link, tenant=TENANT, channel=ROOM), timeout=1)
    await follow(hub, link)
    assert await hub.ask(UnsubscribeUser(tenant=TENANT, user="ada", channel=ROOM), timeout=1) == 1
    assert await hub.ask(DisconnectUser(tenant=TENANT, user="ada"), timeout=1) == 1
    assert link.closed == (4503, "disconnected")
    found = await hub.ask(GetHistory(tenant=TENANT, channel=ROOM), timeout=1)
    assert found.publications == ()


async def test_what_can_not_be_is_a_reply(hub: Hub, channels: EmbeddedChannels) -> None:
    """The hub lives on."""
    with pytest.raises(InvalidRequest):
        await channels.publish("", "said")
    with pytest.raises(InvalidRequest):
        await channels.publish(ROOM, "said", ack=True, timeout=1000)
    await channels.publish(ROOM, "said")


async def test_a_hub_that_ends_sends_everybody_away(system: TestSystem, hub: Hub) -> None:
    """Who follows, who is a member and who is only connected: each has to say again what it is."""
    follower, member, connected = Link(), Link(), Link()
    await follow(hub, follower)
    await hub.ask(Join(socket=member, tenant=TENANT, channel=ROOM, peer=Peer("", "c3")), timeout=1)
    await hub.tell(SocketOpened(socket=connected, tenant=TENANT, user="eve"))
    await system.settle()
    await system.stop(hub)
    assert {link.closed for link in (follower, member, connected)} == {(LOST_STATE, "insufficient state")}
