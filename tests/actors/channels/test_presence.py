"""Who is in a channel, and who is online."""

import json
from typing import Any

import msgspec
import pytest

from actors.channels.channels import SWEEP_INTERVAL
from actors.channels.leases import LEASE
from actors.channels.limits import ChannelLimits
from actors.channels.presence import MAX_HOLDERS, MAX_MEMBERS
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
from tests.actors.channels.room import ROOM, TENANT, House, Link


def status(house: House, user: str = "ada") -> str:
    """Whether a user is online."""
    return house.channels.status(GetStatus(tenant=TENANT, user=user)).status


def watching(house: House) -> Link:
    """Return a socket that is told who comes and goes."""
    link = Link()
    house.subscribe(link, presence=True)
    house.settle()
    return link


def test_who_joins_is_told_to_who_wants_to_know() -> None:
    """Followers that asked for presence get the frame of the wire; others, and those outside, get nothing."""
    house, plain = House(), Link()
    watcher = watching(house)
    house.subscribe(plain)
    house.join(Link(), "c1", info={"name": "Ada"})
    house.settle()
    assert watcher.frames == [
        {
            "type": "presence",
            "channel": ROOM,
            "data": {"action": "join", "member": {"user": "ada", "client": "c1", "info": {"name": "Ada"}}},
        }
    ]
    assert plain.frames == []


def test_a_client_with_several_sockets_counts_once() -> None:
    """It leaves with the last of them."""
    house = House()
    watcher, tabs = watching(house), [Link(), Link()]
    for tab in tabs:
        house.join(tab, "c1")
    house.hang_up(tabs[0])
    house.settle()
    assert house.present == ["c1"]
    house.hang_up(tabs[1])
    house.settle()
    assert house.present == []
    assert watcher.comings == [("join", "c1"), ("leave", "c1")]


def test_other_clients_and_users_are_other_members() -> None:
    """A member is a user at a client."""
    house = House()
    for user, client in (("ada", "c1"), ("ada", "c2"), ("bob", "c1")):
        house.join(Link(), client, user=user)
    members = house.channels.members(GetPresence(tenant=TENANT, channel=ROOM))
    assert [(member.user, member.client) for member in members] == [("ada", "c1"), ("ada", "c2"), ("bob", "c1")]


def test_saying_something_else_is_an_update() -> None:
    """The same again is nothing."""
    house, link = House(), Link()
    watcher = watching(house)
    for mood in ("well", "well", "tired"):
        house.join(link, "c1", info={"mood": mood})
    house.settle()
    assert watcher.comings == [("join", "c1"), ("update", "c1")]
    (member,) = house.channels.members(GetPresence(tenant=TENANT, channel=ROOM))
    assert json.loads(bytes(member.info)) == {"mood": "tired"}


def test_a_socket_is_one_member() -> None:
    """Joining as another client, it is no longer the first; so one socket can't fill a room."""
    house, link = House(), Link()
    watcher = watching(house)
    house.join(link, "c1")
    house.join(link, "c2")
    house.settle()
    assert house.present == ["c2"]
    assert watcher.comings == [("join", "c1"), ("leave", "c1"), ("join", "c2")]
    assert not house.leave(link, "c1")
    assert house.leave(link, "c2")


def test_leaving_says_whether_one_was_there() -> None:
    """A second time it is nothing."""
    house, link = House(), Link()
    house.join(link, "c1")
    assert house.leave(link, "c1")
    assert not house.leave(link, "c1")
    assert not house.leave(Link(), "c1")
    assert house.present == []


def test_a_lease_without_a_socket_has_to_be_renewed() -> None:
    """Joining again renews it; without that the member is gone when it ends."""
    house = House()
    watcher = watching(house)
    house.join(None, "robot")
    house.now += LEASE - 1
    house.join(None, "robot")
    house.now += LEASE - 1
    house.channels.sweep()
    assert house.present == ["robot"]
    house.now += 1
    house.channels.sweep()
    house.settle()
    assert house.present == []
    assert watcher.comings == [("join", "robot"), ("leave", "robot")]


def test_a_socket_renews_as_long_as_it_is_open() -> None:
    """One whose end was never told is not there for longer than a lease."""
    house, link = House(), Link()
    house.join(link, "c1")
    for _ in range(10):
        house.now += SWEEP_INTERVAL * 3
        assert house.channels.sweep()
    assert house.present == ["c1"]
    link.closing = True
    house.now += LEASE
    house.channels.sweep()
    assert house.present == []


def test_a_reader_that_lags_is_told_who_is_there() -> None:
    """It gets what has happened, and where that is too much, the state."""
    house, slow = House(high_water=50), Link(reading=False)
    house.subscribe(slow, presence=True)
    house.join(Link(), "first", info="x" * 100)
    house.settle()
    for number in range(PRESENCE_EVENTS + 1):
        house.join(Link(), f"c{number}")
        house.settle()
    slow.take()
    house.fanout.poll()
    house.settle()
    slow.take()
    state = slow.frames[-1]["data"]
    assert state["action"] == "state"
    assert [member["client"] for member in state["members"]] == house.present


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
    join = Join(socket=Link(), tenant=TENANT, channel=ROOM, peer=Peer("ada", "c1"))
    with pytest.raises(InvalidRequest):
        House().channels.join(msgspec.structs.replace(join, **changes))


def test_members_and_their_sockets_are_limited() -> None:
    """One more is refused."""
    house = House()
    for number in range(MAX_MEMBERS):
        house.join(Link(), f"c{number}")
    with pytest.raises(Overloaded):
        house.join(Link(), "one more")
    for _ in range(MAX_HOLDERS - 1):
        house.join(Link(), "c0")
    with pytest.raises(Overloaded):
        house.join(Link(), "c0")


def test_a_refused_member_leaves_nothing() -> None:
    """Where there is no room for a channel, nobody is in it."""
    house = House(limits=ChannelLimits(channels=1))
    house.subscribe(Link(), channel="room:8")
    with pytest.raises(Overloaded):
        house.join(Link(), "c1")
    assert house.present == []
    assert status(house) == "offline"


def test_a_user_is_online_with_a_socket_and_for_a_moment_after() -> None:
    """A page that is loaded again is no news."""
    house, link = House(), Link()
    assert status(house) == "offline"
    house.channels.opened(link, TENANT, "ada")
    house.hang_up(link)
    house.now += GRACE - 1
    assert status(house) == "online"
    house.now += 1
    assert status(house) == "offline"
    house.channels.sweep()
    assert status(house) == "offline"


def test_a_membership_holds_a_user_online() -> None:
    """Also without a socket, as long as its lease is."""
    house = House()
    house.join(None, "robot")
    assert status(house) == "online"
    house.now += LEASE
    house.channels.sweep()
    house.now += GRACE
    assert status(house) == "offline"


def test_a_socket_that_authenticates_again_is_its_new_users() -> None:
    """Whoever it was before is gone; following as nobody in particular changes nothing."""
    house, link = House(), Link()
    house.channels.opened(link, TENANT, "ada")
    house.channels.opened(link, TENANT, "bob")
    house.subscribe(link)
    house.now += GRACE
    assert (status(house), status(house, "bob")) == ("offline", "online")


def test_users_of_other_tenants_are_others() -> None:
    """A name means something within a tenant."""
    house = House()
    house.channels.opened(Link(), "t2", "ada")
    assert status(house) == "offline"


def test_a_user_is_disconnected() -> None:
    """Every socket is told not to come back by itself and closed with 4503; the others are as they were."""
    house, watcher, links, other = House(), Link(), [Link(), Link()], Link()
    house.subscribe(watcher, presence=True)
    house.subscribe(other, peer=Peer("bob", "c9"))
    for number, link in enumerate(links):
        house.subscribe(link, peer=Peer("ada", f"c{number}"))
        house.join(link, f"c{number}")
    house.settle()
    assert house.channels.disconnect(DisconnectUser(tenant=TENANT, user="ada")) == 2
    house.publish()
    house.settle()
    for link in links:
        assert link.closed == (4503, "disconnected")
        farewell = link.frames[-1]
        assert farewell["type"] == "disconnect"
        assert (farewell["data"]["code"], farewell["data"]["reconnect"]) == (4503, False)
    assert watcher.comings[-2:] == [("leave", "c0"), ("leave", "c1")]
    assert other.offsets == [1]
    assert house.channels.disconnect(DisconnectUser(tenant=TENANT, user="ada")) == 0


def test_a_user_is_taken_out_of_a_channel() -> None:
    """As a follower and as a member; the socket stays, and what else it follows goes on."""
    house, link, other = House(), Link(), Link()
    house.subscribe(link, peer=Peer("ada", "c1"))
    house.subscribe(link, peer=Peer("ada", "c1"), channel="room:8")
    house.subscribe(other, peer=Peer("bob", "c2"))
    house.join(link, "c1")
    house.join(None, "robot")
    house.join(other, "c2", user="bob")
    house.settle()
    assert house.expel("ada") == 1
    house.publish()
    house.publish(channel="room:8")
    house.settle()
    error, update = link.frames
    assert (error["type"], error["channel"], error["terminal"]) == ("error", ROOM, True)
    assert error["error"]["code"] == "unsubscribed"
    assert update["channel"] == "room:8"
    assert other.offsets == [1]
    assert house.present == ["c2"]
    assert link.closed is None
    unknown = UnsubscribeUser(tenant=TENANT, user="ada", channel="room:9")
    assert house.channels.unsubscribe_user(unknown) == 0


def test_everything_goes_when_everybody_has_gone() -> None:
    """No channel, no user and no subscription is left, and nothing is swept any more."""
    house, link = House(), Link()
    house.channels.opened(link, TENANT, "ada")
    house.subscribe(link, presence=True, peer=Peer("ada", "c1"))
    house.join(link, "c1")
    house.publish(key="k")
    house.settle()
    house.hang_up(link)
    house.now += 301
    assert not house.channels.sweep()
    assert len(house.channels) == 0
    stats = house.fanout.stats()
    assert (stats.sockets, stats.subscriptions) == (0, 0)
