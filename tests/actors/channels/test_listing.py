"""Lists of channels, of their subscribers and of what a user follows."""

import pytest

from protocol.channels import ChannelList, GetSubscribers, ListChannels, Peer, SubscriberList
from protocol.errors import InvalidRequest
from protocol.users import GetUserChannels, UserChannels
from tests.actors.channels.bench import CHANNEL, TENANT, ChannelsBench, FakeSocket


def channels(bench: ChannelsBench, after: str = "", limit: int = 100, tenant: str = TENANT) -> ChannelList:
    """Return a page of the channels."""
    return bench.channels.of_tenant(ListChannels(tenant=tenant, after=after, limit=limit))


def subscribers(bench: ChannelsBench, after: Peer | None = None, limit: int = 100) -> SubscriberList:
    """Return a page of the channel's subscribers."""
    return bench.channels.subscribers(GetSubscribers(tenant=TENANT, channel=CHANNEL, after=after, limit=limit))


def followed(bench: ChannelsBench, user: str, after: str = "", limit: int = 100) -> UserChannels:
    """Return a page of the channels that a user follows."""
    return bench.channels.of_user(GetUserChannels(tenant=TENANT, user=user, after=after, limit=limit))


def test_channels_are_listed_by_name_page_by_page() -> None:
    """Each channel comes once, in the order of the names, and only those of the tenant."""
    bench = ChannelsBench()
    for number in (3, 1, 4, 0, 2):
        bench.publish(channel=f"room:{number}")
    names: list[str] = []
    more = True
    while more:
        page = channels(bench, names[-1] if names else "", limit=2)
        names += [item.name for item in page.items]
        more = page.more
    assert names == [f"room:{number}" for number in range(5)]
    assert channels(bench, tenant="t2").items == ()


def test_a_channel_says_how_large_it_is() -> None:
    """Followers are sockets; members need no socket; expired publications do not count."""
    bench, one, two = ChannelsBench(), FakeSocket(), FakeSocket()
    for socket in (one, two):
        bench.subscribe(socket, peer=Peer("ada", "phone"))
    bench.join(None, "robot")
    position = bench.publish().position
    (item,) = channels(bench).items
    assert (item.name, item.followers, item.members, item.publications) == (CHANNEL, 2, 1, 1)
    assert item.position == position
    bench.now += 301
    (item,) = channels(bench).items
    assert (item.publications, item.position) == (0, position)


@pytest.mark.parametrize(("limit", "count"), [(-5, 1), (0, 1), (10**9, 3)])
def test_a_limit_is_clamped(limit: int, count: int) -> None:
    """A page has at least one item, and a thousand at most."""
    bench = ChannelsBench()
    for number in range(3):
        bench.publish(channel=f"room:{number}")
    assert len(channels(bench, limit=limit).items) == count


def test_subscribers_are_all_that_follow_members_or_not() -> None:
    """A client with several sockets is one subscriber; the anonymous ones come first."""
    bench = ChannelsBench()
    sockets = [FakeSocket() for _ in range(4)]
    for socket, peer in zip(
        sockets, (Peer("bob", "c1"), Peer("ada", "phone"), Peer("ada", "phone"), Peer("", "x")), strict=True
    ):
        bench.subscribe(socket, peer=peer)
    bench.join(sockets[0], "c1", user="bob")
    bench.join(None, "robot")
    found = [(item.user, item.client, item.sockets, item.member) for item in subscribers(bench).items]
    assert found == [("", "x", 1, False), ("ada", "phone", 2, False), ("bob", "c1", 1, True)]
    assert bench.publish().subscribers == sum(item.sockets for item in subscribers(bench).items) == 4


def test_subscribers_come_page_by_page() -> None:
    """A page begins after the last client of the page before, also where that has left."""
    bench = ChannelsBench()
    sockets = {client: FakeSocket() for client in ("c", "a", "d", "b")}
    for client, socket in sockets.items():
        bench.subscribe(socket, peer=Peer("ada", client))
    first = subscribers(bench, limit=2)
    assert ([item.client for item in first.items], first.more) == (["a", "b"], True)
    bench.disconnect(sockets["b"])
    second = subscribers(bench, Peer("ada", "b"), limit=2)
    assert ([item.client for item in second.items], second.more) == (["c", "d"], False)


def test_an_unknown_channel_has_no_subscribers() -> None:
    """Asking creates no channel; a name has to be one."""
    bench = ChannelsBench()
    assert subscribers(bench).items == ()
    assert len(bench.channels) == 0
    with pytest.raises(InvalidRequest):
        bench.channels.subscribers(GetSubscribers(tenant=TENANT, channel=""))


def test_what_a_user_follows() -> None:
    """All channels of all the user's sockets, and whether one of these clients is a member."""
    bench, phone, laptop, other = ChannelsBench(), FakeSocket(), FakeSocket(), FakeSocket()
    for socket, peer in ((phone, Peer("ada", "phone")), (laptop, Peer("ada", "laptop")), (other, Peer("bob", "c"))):
        bench.subscribe(socket, peer=peer)
    bench.subscribe(laptop, peer=Peer("ada", "laptop"), channel="lobby")
    bench.subscribe(other, peer=Peer("bob", "c"), channel="attic")
    bench.join(laptop, "laptop")
    found = [(item.name, item.sockets, item.member) for item in followed(bench, "ada").items]
    assert found == [("lobby", 1, False), (CHANNEL, 2, True)]
    page = followed(bench, "ada", limit=1)
    assert ([item.name for item in page.items], page.more) == (["lobby"], True)
    assert [item.name for item in followed(bench, "ada", "lobby").items] == [CHANNEL]
    assert followed(bench, "nobody").items == ()
    bench.disconnect(laptop)
    assert [(item.name, item.sockets) for item in followed(bench, "ada").items] == [(CHANNEL, 1)]


def test_a_key_repeats_the_number_of_subscribers() -> None:
    """A repeated publication reached whom the first one reached."""
    bench = ChannelsBench()
    sockets = [FakeSocket(), FakeSocket()]
    for socket in sockets:
        bench.subscribe(socket)
    assert bench.publish(1, key="k").subscribers == 2
    bench.disconnect(sockets[0])
    again = bench.publish(1, key="k")
    assert (again.replayed, again.subscribers) == (True, 2)
    assert bench.publish(2).subscribers == 1
