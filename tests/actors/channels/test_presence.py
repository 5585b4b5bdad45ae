"""Who is in a channel, and who is online."""

import json
from typing import Any

import msgspec
import pytest

from actors.channels.leases import LEASE
from actors.channels.presence import MAX_HOLDERS, MAX_MEMBERS
from actors.channels.table import SWEEP_INTERVAL, ChannelLimits
from actors.channels.topics import PRESENCE_EVENTS
from actors.channels.users import GRACE
from protocol.channels import (
    MAX_INFO_BYTES,
    DisconnectUser,
    GetPresence,
    GetStatus,
    Join,
    Peer,
    UnsubscribeUser,
)
from protocol.errors import InvalidRequest, Overloaded
from tests.actors.channels.bench import CHANNEL, TENANT, ChannelsBench, FakeSocket


def status(bench: ChannelsBench, user: str = "ada") -> str:
    """Whether a user is online."""
    return bench.channels.status(GetStatus(tenant=TENANT, user=user)).status


def watching(bench: ChannelsBench) -> FakeSocket:
    """Return a socket that is told who comes and goes."""
    socket = FakeSocket()
    bench.subscribe(socket, presence=True)
    bench.settle()
    return socket


def test_who_joins_is_told_to_who_wants_to_know() -> None:
    """Followers that asked for presence get the frame of the wire; others, and those outside, get nothing."""
    bench, plain = ChannelsBench(), FakeSocket()
    watcher = watching(bench)
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
    """It leaves with the last of them."""
    bench = ChannelsBench()
    watcher, tabs = watching(bench), [FakeSocket(), FakeSocket()]
    for tab in tabs:
        bench.join(tab, "c1")
    bench.hang_up(tabs[0])
    bench.settle()
    assert bench.present == ["c1"]
    bench.hang_up(tabs[1])
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


def test_saying_something_else_is_an_update() -> None:
    """The same again is nothing."""
    bench, socket = ChannelsBench(), FakeSocket()
    watcher = watching(bench)
    for mood in ("well", "well", "tired"):
        bench.join(socket, "c1", info={"mood": mood})
    bench.settle()
    assert watcher.presence_events == [("join", "c1"), ("update", "c1")]
    (member,) = bench.channels.members(GetPresence(tenant=TENANT, channel=CHANNEL))
    assert json.loads(bytes(member.info)) == {"mood": "tired"}


def test_a_socket_is_one_member() -> None:
    """Joining as another client, it is no longer the first; so one socket can't fill a room."""
    bench, socket = ChannelsBench(), FakeSocket()
    watcher = watching(bench)
    bench.join(socket, "c1")
    bench.join(socket, "c2")
    bench.settle()
    assert bench.present == ["c2"]
    assert watcher.presence_events == [("join", "c1"), ("leave", "c1"), ("join", "c2")]
    assert not bench.leave(socket, "c1")
    assert bench.leave(socket, "c2")


def test_leaving_says_whether_one_was_there() -> None:
    """A second time it is nothing."""
    bench, socket = ChannelsBench(), FakeSocket()
    bench.join(socket, "c1")
    assert bench.leave(socket, "c1")
    assert not bench.leave(socket, "c1")
    assert not bench.leave(FakeSocket(), "c1")
    assert bench.present == []


def test_a_lease_without_a_socket_has_to_be_renewed() -> None:
    """Joining again renews it; without that the member is gone when it ends."""
    bench = ChannelsBench()
    watcher = watching(bench)
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
    """One whose end was never told is not there for longer than a lease."""
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


def test_a_reader_that_lags_is_told_who_is_there() -> None:
    """It gets what has happened, and where that is too much, the state."""
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
def test_a_member_that_can_not_be(changes: dict[str, Any]) -> None:
    """A client needs a name, and what it says is bounded and can be read by everybody."""
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
    """Where there is no room for a channel, nobody is in it."""
    bench = ChannelsBench(limits=ChannelLimits(channels=1))
    bench.subscribe(FakeSocket(), channel="room:8")
    with pytest.raises(Overloaded):
        bench.join(FakeSocket(), "c1")
    assert bench.present == []
    assert status(bench) == "offline"


def test_a_user_is_online_with_a_socket_and_for_a_moment_after() -> None:
    """A page that is loaded again is no news."""
    bench, socket = ChannelsBench(), FakeSocket()
    assert status(bench) == "offline"
    bench.channels.opened(socket, TENANT, "ada")
    bench.hang_up(socket)
    bench.now += GRACE - 1
    assert status(bench) == "online"
    bench.now += 1
    assert status(bench) == "offline"
    bench.channels.sweep()
    assert status(bench) == "offline"


def test_a_membership_holds_a_user_online() -> None:
    """Also without a socket, as long as its lease is."""
    bench = ChannelsBench()
    bench.join(None, "robot")
    assert status(bench) == "online"
    bench.now += LEASE
    bench.channels.sweep()
    bench.now += GRACE
    assert status(bench) == "offline"


def test_a_socket_that_authenticates_again_is_its_new_users() -> None:
    """Whoever it was before is gone; following as nobody in particular changes nothing."""
    bench, socket = ChannelsBench(), FakeSocket()
    bench.channels.opened(socket, TENANT, "ada")
    bench.channels.opened(socket, TENANT, "bob")
    bench.subscribe(socket)
    bench.now += GRACE
    assert (status(bench), status(bench, "bob")) == ("offline", "online")


def test_users_of_other_tenants_are_others() -> None:
    """A name means something within a tenant."""
    bench = ChannelsBench()
    bench.channels.opened(FakeSocket(), "t2", "ada")
    assert status(bench) == "offline"


def test_a_user_is_disconnected() -> None:
    """Every socket is told not to come back by itself and closed with 4503; the others are as they were."""
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
        farewell = socket.frames[-1]
        assert farewell["type"] == "disconnect"
        assert (farewell["data"]["code"], farewell["data"]["reconnect"]) == (4503, False)
    assert watcher.presence_events[-2:] == [("leave", "c0"), ("leave", "c1")]
    assert other.offsets == [1]
    assert bench.channels.disconnect(DisconnectUser(tenant=TENANT, user="ada")) == 0


def test_a_user_is_taken_out_of_a_channel() -> None:
    """As a follower and as a member; the socket stays, and what else it follows goes on."""
    bench, socket, other = ChannelsBench(), FakeSocket(), FakeSocket()
    bench.subscribe(socket, peer=Peer("ada", "c1"))
    bench.subscribe(socket, peer=Peer("ada", "c1"), channel="room:8")
    bench.subscribe(other, peer=Peer("bob", "c2"))
    bench.join(socket, "c1")
    bench.join(None, "robot")
    bench.join(other, "c2", user="bob")
    bench.settle()
    assert bench.expel("ada") == 1
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


def test_everything_goes_when_everybody_has_gone() -> None:
    """No channel, no user and no subscription is left, and nothing is swept any more."""
    bench, socket = ChannelsBench(), FakeSocket()
    bench.channels.opened(socket, TENANT, "ada")
    bench.subscribe(socket, presence=True, peer=Peer("ada", "c1"))
    bench.join(socket, "c1")
    bench.publish(key="k")
    bench.settle()
    bench.hang_up(socket)
    bench.now += 301
    assert not bench.channels.sweep()
    assert len(bench.channels) == 0
    stats = bench.fanout.stats()
    assert (stats.sockets, stats.subscriptions) == (0, 0)
