"""Members of a channel, and online users."""

import json
from typing import Any

import msgspec
import pytest

from actors.channels.leases import LEASE
from actors.channels.limits import ChannelLimits
from actors.channels.presence import MAX_HOLDERS, MAX_MEMBERS
from actors.channels.table import SWEEP_INTERVAL
from actors.channels.topics import PRESENCE_EVENTS
from actors.channels.users import GRACE
from protocol.channels import MAX_INFO_BYTES, GetPresence, Join, Peer
from protocol.errors import InvalidRequest, Overloaded
from protocol.users import DisconnectUser, GetStatus, UnsubscribeUser
from tests.actors.channels.bench import CHANNEL, TENANT, ChannelsBench, FakeSocket


def status(bench: ChannelsBench, user: str = "ada") -> str:
    """Return a user's status."""
    return bench.channels.status(GetStatus(tenant=TENANT, user=user)).status


def watcher_of(bench: ChannelsBench) -> FakeSocket:
    """Return a socket that gets presence events."""
    socket = FakeSocket()
    bench.subscribe(socket, presence=True)
    bench.settle()
    return socket


def test_followers_with_presence_get_the_event() -> None:
    """Followers with `presence` get the event; other followers get nothing."""
    bench, plain = ChannelsBench(), FakeSocket()
    watcher = watcher_of(bench)
    bench.subscribe(plain)
    bench.join(FakeSocket(), "c1", info={"name": "Ada"})
    bench.settle()
    assert watcher.frames == [
        {
            "type": "presence",
            "channel": CHANNEL,
            "data": {"action": "join", "member": {"user": "ada", "client": "c1", "info": {"name": "Ada"}}},
        }
    ]
    assert plain.frames == []


def test_a_client_with_several_sockets_counts_once() -> None:
    """It leaves with the last one."""
    bench = ChannelsBench()
    watcher, tabs = watcher_of(bench), [FakeSocket(), FakeSocket()]
    for tab in tabs:
        bench.join(tab, "c1")
    bench.disconnect(tabs[0])
    bench.settle()
    assert bench.present == ["c1"]
    bench.disconnect(tabs[1])
    bench.settle()
    assert bench.present == []
    assert watcher.presence_events == [("join", "c1"), ("leave", "c1")]


def test_other_clients_and_users_are_other_members() -> None:
    """A member is a user at a client."""
    bench = ChannelsBench()
    for user, client in (("ada", "c1"), ("ada", "c2"), ("bob", "c1")):
        bench.join(FakeSocket(), client, user=user)
    members = bench.channels.members(GetPresence(tenant=TENANT, channel=CHANNEL))
    assert [(member.user, member.client) for member in members] == [("ada", "c1"), ("ada", "c2"), ("bob", "c1")]


def test_new_info_is_an_update() -> None:
    """The same info again is no event."""
    bench, socket = ChannelsBench(), FakeSocket()
    watcher = watcher_of(bench)
    for mood in ("well", "well", "tired"):
        bench.join(socket, "c1", info={"mood": mood})
    bench.settle()
    assert watcher.presence_events == [("join", "c1"), ("update", "c1")]
    (member,) = bench.channels.members(GetPresence(tenant=TENANT, channel=CHANNEL))
    assert json.loads(bytes(member.info)) == {"mood": "tired"}


def test_a_socket_is_one_member() -> None:
    """When it joins as another client it leaves as the first one, so one socket can't fill a channel."""
    bench, socket = ChannelsBench(), FakeSocket()
    watcher = watcher_of(bench)
    bench.join(socket, "c1")
    bench.join(socket, "c2")
    bench.settle()
    assert bench.present == ["c2"]
    assert watcher.presence_events == [("join", "c1"), ("leave", "c1"), ("join", "c2")]
    assert not bench.leave(socket, "c1")
    assert bench.leave(socket, "c2")


def test_leaving_returns_whether_there_was_a_lease() -> None:
    """Leaving twice is no error."""
    bench, socket = ChannelsBench(), FakeSocket()
    bench.join(socket, "c1")
    assert bench.leave(socket, "c1")
    assert not bench.leave(socket, "c1")
    assert not bench.leave(FakeSocket(), "c1")
    assert bench.present == []


def test_a_lease_without_a_socket_has_to_be_renewed() -> None:
    """Joining again renews it; otherwise the member leaves when it expires."""
    bench = ChannelsBench()
    watcher = watcher_of(bench)
    bench.join(None, "robot")
    bench.now += LEASE - 1
    bench.join(None, "robot")
    bench.now += LEASE - 1
    bench.channels.sweep()
    assert bench.present == ["robot"]
    bench.now += 1
    bench.channels.sweep()
    bench.settle()
    assert bench.present == []
    assert watcher.presence_events == [("join", "robot"), ("leave", "robot")]


def test_a_socket_renews_as_long_as_it_is_open() -> None:
    """A closing socket holds its member for a lease at most."""
    bench, socket = ChannelsBench(), FakeSocket()
    bench.join(socket, "c1")
    for _ in range(10):
        bench.now += SWEEP_INTERVAL * 3
        assert bench.channels.sweep()
    assert bench.present == ["c1"]
    socket.closing = True
    bench.now += LEASE
    bench.channels.sweep()
    assert bench.present == []


def test_a_lagging_reader_gets_the_list_of_members() -> None:
    """It gets the missed events, or the list of members where these are too many."""
    bench, slow = ChannelsBench(high_water=50), FakeSocket(reading=False)
    bench.subscribe(slow, presence=True)
    bench.join(FakeSocket(), "first", info="x" * 100)
    bench.settle()
    for number in range(PRESENCE_EVENTS + 1):
        bench.join(FakeSocket(), f"c{number}")
        bench.settle()
    slow.take()
    bench.fanout.check_lagging()
    bench.settle()
    slow.take()
    state = slow.frames[-1]["data"]
    assert state["action"] == "state"
    assert [member["client"] for member in state["members"]] == bench.present


@pytest.mark.parametrize(
    "changes",
    [
        {"peer": Peer("ada", "")},
        {"peer": Peer("ada", "x" * 129)},
        {"peer": Peer("a\nda", "c1")},
        {"info": msgspec.Raw(b'"' + b"x" * MAX_INFO_BYTES + b'"')},
        {"info": msgspec.Raw(b'"\xff"')},
        {"info": msgspec.Raw(b"[" * 100 + b"]" * 100)},
        {"channel": ""},
    ],
)
def test_an_invalid_member_is_refused(changes: dict[str, Any]) -> None:
    """A client needs a name, and its info is bounded JSON in UTF-8."""
    join = Join(socket=FakeSocket(), tenant=TENANT, channel=CHANNEL, peer=Peer("ada", "c1"))
    with pytest.raises(InvalidRequest):
        ChannelsBench().channels.join(msgspec.structs.replace(join, **changes))


def test_members_and_their_sockets_are_limited() -> None:
    """One more is refused."""
    bench = ChannelsBench()
    for number in range(MAX_MEMBERS):
        bench.join(FakeSocket(), f"c{number}")
    with pytest.raises(Overloaded):
        bench.join(FakeSocket(), "one more")
    for _ in range(MAX_HOLDERS - 1):
        bench.join(FakeSocket(), "c0")
    with pytest.raises(Overloaded):
        bench.join(FakeSocket(), "c0")


def test_a_refused_member_leaves_nothing() -> None:
    """Where one more channel is refused, there is no member and no online user."""
    bench = ChannelsBench(limits=ChannelLimits(channels=1))
    bench.subscribe(FakeSocket(), channel="room:8")
    with pytest.raises(Overloaded):
        bench.join(FakeSocket(), "c1")
    assert bench.present == []
    assert status(bench) == "offline"


def test_a_user_is_online_with_a_socket_and_for_the_grace_period() -> None:
    """The grace period hides a page reload."""
    bench, socket = ChannelsBench(), FakeSocket()
    assert status(bench) == "offline"
    bench.channels.opened(socket, TENANT, "ada")
    bench.disconnect(socket)
    bench.now += GRACE - 1
    assert status(bench) == "online"
    bench.now += 1
    assert status(bench) == "offline"
    bench.channels.sweep()
    assert status(bench) == "offline"


def test_a_membership_holds_a_user_online() -> None:
    """Also without a socket, as long as the lease lasts."""
    bench = ChannelsBench()
    bench.join(None, "robot")
    assert status(bench) == "online"
    bench.now += LEASE
    bench.channels.sweep()
    bench.now += GRACE
    assert status(bench) == "offline"


def test_a_socket_that_authenticates_again_belongs_to_the_new_user() -> None:
    """The former user is offline; a subscription without a user changes nothing."""
    bench, socket = ChannelsBench(), FakeSocket()
    bench.channels.opened(socket, TENANT, "ada")
    bench.channels.opened(socket, TENANT, "bob")
    bench.subscribe(socket)
    bench.now += GRACE
    assert (status(bench), status(bench, "bob")) == ("offline", "online")


def test_users_of_other_tenants_are_others() -> None:
    """The same name in another tenant is another user."""
    bench = ChannelsBench()
    bench.channels.opened(FakeSocket(), "t2", "ada")
    assert status(bench) == "offline"


def test_a_user_is_disconnected() -> None:
    """Every socket gets `reconnect: false` and is closed with 4503; other users are not affected."""
    bench, watcher, sockets, other = ChannelsBench(), FakeSocket(), [FakeSocket(), FakeSocket()], FakeSocket()
    bench.subscribe(watcher, presence=True)
    bench.subscribe(other, peer=Peer("bob", "c9"))
    for number, socket in enumerate(sockets):
        bench.subscribe(socket, peer=Peer("ada", f"c{number}"))
        bench.join(socket, f"c{number}")
    bench.settle()
    assert bench.channels.disconnect(DisconnectUser(tenant=TENANT, user="ada")) == 2
    bench.publish()
    bench.settle()
    for socket in sockets:
        assert socket.closed == (4503, "disconnected")
        last_frame = socket.frames[-1]
        assert last_frame["type"] == "disconnect"
        assert (last_frame["data"]["code"], last_frame["data"]["reconnect"]) == (4503, False)
    assert watcher.presence_events[-2:] == [("leave", "c0"), ("leave", "c1")]
    assert other.offsets == [1]
    assert bench.channels.disconnect(DisconnectUser(tenant=TENANT, user="ada")) == 0


def test_a_user_is_unsubscribed() -> None:
    """Subscriptions and memberships end; the socket stays open with its other subscriptions."""
    bench, socket, other = ChannelsBench(), FakeSocket(), FakeSocket()
    bench.subscribe(socket, peer=Peer("ada", "c1"))
    bench.subscribe(socket, peer=Peer("ada", "c1"), channel="room:8")
    bench.subscribe(other, peer=Peer("bob", "c2"))
    bench.join(socket, "c1")
    bench.join(None, "robot")
    bench.join(other, "c2", user="bob")
    bench.settle()
    assert bench.unsubscribe_user("ada") == 1
    bench.publish()
    bench.publish(channel="room:8")
    bench.settle()
    error, update = socket.frames
    assert (error["type"], error["channel"], error["terminal"]) == ("error", CHANNEL, True)
    assert error["error"]["code"] == "unsubscribed"
    assert update["channel"] == "room:8"
    assert other.offsets == [1]
    assert bench.present == ["c2"]
    assert socket.closed is None
    unknown = UnsubscribeUser(tenant=TENANT, user="ada", channel="room:9")
    assert bench.channels.unsubscribe_user(unknown) == 0


def test_nothing_is_left_after_the_last_socket() -> None:
    """No channel, user or subscription is left, and the sweep stops."""
    bench, socket = ChannelsBench(), FakeSocket()
    bench.channels.opened(socket, TENANT, "ada")
    bench.subscribe(socket, presence=True, peer=Peer("ada", "c1"))
    bench.join(socket, "c1")
    bench.publish(key="k")
    bench.settle()
    bench.disconnect(socket)
    bench.now += 301
    assert not bench.channels.sweep()
    assert len(bench.channels) == 0
    stats = bench.fanout.stats()
    assert (stats.sockets, stats.subscriptions) == (0, 0)
