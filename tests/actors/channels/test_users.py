"""Users: subscribed from outside, and with a presence that was set."""

from typing import Any

import msgspec
import pytest

from actors.channels import overrides
from actors.channels.users import GRACE
from protocol.channels import Peer
from protocol.errors import InvalidRequest, Overloaded, UnrecoverablePosition
from protocol.events import Position
from protocol.users import GetStatus, SetPresence, SubscribeUser, UserStatus, UserSubscribed
from tests.actors.channels.bench import CHANNEL, TENANT, ChannelsBench, FakeSocket, publication


def subscribe(bench: ChannelsBench, user: str = "ada", **options: Any) -> UserSubscribed:  # noqa: ANN401
    """Subscribe a user's sockets."""
    message = SubscribeUser(user=user, **({"tenant": TENANT, "channel": CHANNEL} | options))
    return bench.channels.subscribe_user(message, bench.channels.sockets_to_subscribe(message))


def set_presence(bench: ChannelsBench, status: Any, metadata: object = None, **options: Any) -> UserStatus:  # noqa: ANN401
    """Set the user's presence."""
    raw = msgspec.Raw(msgspec.json.encode(metadata))
    fields = {"tenant": TENANT, "user": "ada"} | options
    return bench.channels.set_presence(SetPresence(status=status, metadata=raw, **fields))


def status(bench: ChannelsBench) -> UserStatus:
    """Return the user's status."""
    return bench.channels.status(GetStatus(tenant=TENANT, user="ada"))


def connect(bench: ChannelsBench, user: str = "ada", tenant: str = TENANT) -> FakeSocket:
    """Open a socket of a user."""
    socket = FakeSocket()
    bench.channels.opened(socket, tenant, user)
    return socket


def test_all_sockets_of_the_user_follow_and_are_told() -> None:
    """Each one gets an `ack` without an id before the first publication; other users and tenants get nothing."""
    bench = ChannelsBench()
    mine, others = [connect(bench), connect(bench)], [connect(bench, "bob"), connect(bench, tenant="t2")]
    epoch = bench.publish("before").position.epoch
    assert subscribe(bench) == UserSubscribed(sockets=2)
    assert bench.publish("after").subscribers == 2
    bench.settle()
    for socket in mine:
        ack, update = socket.frames
        data = {"epoch": epoch, "offset": 1, "recovered": True, "after": 1}
        assert ack == {"type": "ack", "channel": CHANNEL, "data": data}
        assert (update["offset"], update["data"]) == (2, "after")
    assert [socket.frames for socket in others] == [[], []]


def test_a_socket_that_follows_already_goes_on() -> None:
    """It gets no second `ack` and misses nothing, also if it is asked to begin elsewhere."""
    bench, socket = ChannelsBench(), FakeSocket()
    bench.subscribe(socket, peer=Peer("ada", "phone"))
    bench.publish(1)
    late = connect(bench)
    assert subscribe(bench, mode="replay") == subscribe(bench, mode="replay") == UserSubscribed(sockets=2)
    bench.publish(2)
    bench.settle()
    assert [frame["type"] for frame in socket.frames] == ["update", "update"]
    assert [frame["type"] for frame in late.frames] == ["ack", "update", "update"]


def test_a_position_is_resumed() -> None:
    """`after` and `mode` are those of the client's own frame."""
    bench = ChannelsBench()
    first = bench.publish(1).position
    bench.publish(2)
    socket = connect(bench)
    with pytest.raises(UnrecoverablePosition):
        subscribe(bench, after=Position(first.epoch, 3))
    with pytest.raises(UnrecoverablePosition):
        subscribe(bench, after=Position("other", 1), mode="replay")
    subscribe(bench, after=first)
    bench.settle()
    assert socket.frames[0]["data"] == {"epoch": first.epoch, "offset": 2, "recovered": True, "after": 1}
    assert socket.offsets == [2]


def test_presence_events_can_be_asked_for() -> None:
    """With `presence` the sockets get who joins."""
    bench = ChannelsBench()
    socket = connect(bench)
    subscribe(bench, presence=True)
    bench.join(None, "robot", user="bob")
    bench.settle()
    assert socket.presence_events == [("join", "robot")]


def test_the_socket_keeps_the_clients_name() -> None:
    """Publishers see the name that the client has in another channel, or none."""
    bench, named = ChannelsBench(), FakeSocket()
    bench.subscribe(named, peer=Peer("ada", "phone"), channel="lobby")
    unnamed = connect(bench)
    subscribe(bench)
    offset = bench.publish().position.offset
    bench.settle()
    receipt = bench.channels.open_receipt(publication(), offset)
    for socket in (named, unnamed):
        bench.channels.acked(socket, (TENANT, CHANNEL), offset)
    assert list(receipt.acknowledged) == [Peer("ada", "phone"), Peer("ada", "")]


def test_a_full_socket_is_counted_and_the_others_follow() -> None:
    """A socket with as many subscriptions as it may have is refused."""
    bench, full = ChannelsBench(), FakeSocket()
    for number in range(100):
        bench.subscribe(full, peer=Peer("ada", "full"), channel=f"many:{number}")
    connect(bench)
    assert subscribe(bench) == UserSubscribed(sockets=1, refused=1)


def test_nobody_is_subscribed_where_nobody_is_there() -> None:
    """Without a socket no channel is made; an invalid subscription is refused all the same."""
    bench = ChannelsBench()
    assert subscribe(bench) == UserSubscribed(sockets=0)
    assert len(bench.channels) == 0
    for options in ({"channel": ""}, {"channel": "x" * 129}, {"mode": "snapshot"}, {"user": ""}):
        with pytest.raises(InvalidRequest):
            subscribe(bench, **options)


def test_unsubscribing_undoes_it() -> None:
    """The socket gets a terminal `unsubscribed`, and nothing after it."""
    bench = ChannelsBench()
    socket = connect(bench)
    subscribe(bench)
    assert bench.unsubscribe_user("ada") == 1
    bench.publish()
    bench.settle()
    assert [frame["type"] for frame in socket.frames] == ["ack", "error"]
    assert bench.unsubscribe_user("ada") == 0


def test_a_presence_that_is_set_counts_instead_of_the_sockets() -> None:
    """Online without a socket, offline with one; its metadata is shown; at its end the sockets count again."""
    bench = ChannelsBench()
    assert set_presence(bench, "online", {"device": "watch"}, ttl=60.0) == status(bench)
    found = status(bench)
    assert (found.status, found.sockets, bytes(found.metadata)) == ("online", 0, b'{"device":"watch"}')
    assert found.since is not None
    assert found.until is not None
    assert found.until - found.since == pytest.approx(60.0, abs=0.1)
    connect(bench)
    assert set_presence(bench, "offline", ttl=10.0).status == "offline"
    assert status(bench).sockets == 1
    bench.now += 10
    found = status(bench)
    assert (found.status, found.until, bytes(found.metadata)) == ("online", None, b"null")


def test_a_status_that_goes_on_keeps_its_begin() -> None:
    """Setting the same status again renews it, and changes its metadata."""
    bench = ChannelsBench()
    first = set_presence(bench, "online", 1)
    again = set_presence(bench, "online", 2)
    assert (again.since, bytes(again.metadata)) == (first.since, b"2")
    assert set_presence(bench, "offline").since != first.since


def test_a_ttl_of_nothing_ends_it() -> None:
    """The sockets count at once."""
    bench = ChannelsBench()
    set_presence(bench, "online")
    assert set_presence(bench, "online", ttl=0.0).status == "offline"


def test_it_goes_with_the_sweep() -> None:
    """Nothing is kept of it after its end, and the sweep stops."""
    bench = ChannelsBench()
    set_presence(bench, "online", ttl=GRACE)
    assert bench.sweeps_started == 1
    assert bench.channels.sweep()
    bench.now += GRACE
    assert not bench.channels.sweep()


@pytest.mark.parametrize(
    "options",
    [
        {"user": ""},
        {"user": "a\nb"},
        {"ttl": -1.0},
        {"ttl": 86_401.0},
        {"ttl": float("nan")},
        {"metadata": "x" * 1023},
    ],
)
def test_an_invalid_presence_is_refused(options: dict[str, Any]) -> None:
    """Names, times and sizes are bounded."""
    with pytest.raises(InvalidRequest):
        set_presence(ChannelsBench(), "online", **options)


def test_the_number_of_set_presences_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the bound only known users are set, until others have ended."""
    monkeypatch.setattr(overrides, "MAX_OVERRIDES", 2)
    bench = ChannelsBench()
    for user in ("a", "b", "a"):
        set_presence(bench, "online", user=user, ttl=5.0)
    with pytest.raises(Overloaded):
        set_presence(bench, "online", user="c")
    bench.now += 5
    assert set_presence(bench, "online", user="c").status == "online"
