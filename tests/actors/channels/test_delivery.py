"""Following a channel: replay, live, slow readers, and resuming."""

import json

import msgspec
import pytest

from actors.channels.limits import ChannelLimits
from actors.log.event_log import EventLog
from actors.requests.stream import RequestStream
from protocol.channels import MAX_DATA_BYTES, GetHistory, Peer, SubscribeChannel
from protocol.errors import IdempotencyKeyReused, InvalidRequest, Overloaded, UnrecoverablePosition
from protocol.events import Position, Started
from protocol.hub import Mode, Subscribe
from tests.actors.channels.bench import CHANNEL, TENANT, ChannelsBench, FakeSocket, limits_of, publication


def test_the_frames_of_an_acknowledgement_and_a_publication() -> None:
    """The frame has the channel, the offset, the event and the data; the acknowledgement has the position."""
    bench, socket = ChannelsBench(), FakeSocket()
    bench.subscribe(socket, ack_id=4)
    published = bench.publish({"x": 1}, event="typing")
    bench.settle()
    epoch = published.position.epoch
    assert socket.frames == [
        {"type": "ack", "id": 4, "channel": CHANNEL, "data": {"epoch": epoch, "offset": 0, "recovered": True}},
        {"type": "update", "channel": CHANNEL, "offset": 1, "event": "typing", "data": {"x": 1}},
    ]


def test_without_a_position_only_later_publications_come() -> None:
    """A new follower gets no earlier publication, and its acknowledgement has the position."""
    bench, socket = ChannelsBench(), FakeSocket()
    bench.publish()
    bench.subscribe(socket, ack_id=1)
    bench.publish()
    bench.settle()
    assert socket.offsets == [2]
    assert socket.frames[0]["data"]["offset"] == 1


def test_a_follower_resumes_at_its_position() -> None:
    """Everything after it comes, each with its own offset, and then live publications."""
    bench, socket = ChannelsBench(), FakeSocket()
    positions = [bench.publish(number).position for number in range(5)]
    bench.subscribe(socket, positions[1], ack_id=1)
    bench.publish(5)
    bench.settle()
    assert socket.offsets == [3, 4, 5, 6]
    assert socket.frames[0]["data"]["recovered"] is True


@pytest.mark.parametrize("lost", ["trimmed", "expired", "epoch"])
def test_a_lost_position_is_not_recovered(lost: str) -> None:
    """`recovered` is false, and later publications follow; a strict replay is refused."""
    bench, socket = ChannelsBench(limits=limits_of(3, ttl=10)), FakeSocket()
    position = bench.publish().position
    for _ in range(4):
        bench.publish()
    if lost == "expired":
        bench.now += 10
    elif lost == "epoch":
        position = Position("other", 5)
    bench.subscribe(socket, position, ack_id=1)
    bench.publish()
    bench.settle()
    assert socket.frames[0]["data"]["recovered"] is False
    assert socket.offsets == [6]
    with pytest.raises(UnrecoverablePosition):
        bench.subscribe(socket, position, mode="replay")


def test_the_last_position_outlives_its_history() -> None:
    """A follower that has everything misses nothing, however long ago that was, as long as the channel exists."""
    bench, socket, other = ChannelsBench(limits=limits_of(ttl=10)), FakeSocket(), FakeSocket()
    bench.subscribe(other)
    position = bench.publish().position
    bench.now += 100
    bench.channels.sweep()
    bench.subscribe(socket, position, ack_id=1)
    bench.publish()
    bench.settle()
    assert socket.frames[0]["data"]["recovered"] is True
    assert socket.offsets == [2]


def test_a_replay_without_a_position_has_all_that_is_held() -> None:
    """`recovered` says whether that is everything since the first publication."""
    bench, whole, rest = ChannelsBench(limits=limits_of(3)), FakeSocket(), FakeSocket()
    for _ in range(3):
        bench.publish()
    bench.subscribe(whole, mode="replay", ack_id=1)
    bench.settle()
    bench.publish()
    bench.subscribe(rest, mode="replay", ack_id=1)
    bench.settle()
    assert whole.offsets == [1, 2, 3, 4]
    assert rest.offsets == [2, 3, 4]
    assert [socket.frames[0]["data"]["recovered"] for socket in (whole, rest)] == [True, False]


@pytest.mark.parametrize("mode", [None, "replay", "live"])
def test_a_position_beyond_the_end_is_refused(mode: Mode | None) -> None:
    """It is refused in every mode."""
    bench = ChannelsBench()
    epoch = bench.publish().position.epoch
    with pytest.raises(UnrecoverablePosition):
        bench.subscribe(FakeSocket(), Position(epoch, 2), mode=mode)


def test_a_channel_has_no_snapshot() -> None:
    """The mode is refused."""
    with pytest.raises(InvalidRequest):
        ChannelsBench().subscribe(FakeSocket(), mode="snapshot")


def test_readers_share_bytes_and_get_one_write_a_tick() -> None:
    """All publications of a tick, in any number of channels, are one write per socket; each frame is built once."""
    bench, sockets = ChannelsBench(), [FakeSocket(), FakeSocket(), FakeSocket()]
    for socket in sockets:
        bench.subscribe(socket)
        bench.subscribe(socket, channel="room:8")
    bench.settle()
    for channel in (CHANNEL, "room:8", CHANNEL):
        bench.publish(channel=channel)
    bench.tick()
    assert [len(socket.writes) for socket in sockets] == [1, 1, 1]
    assert not bench.soon
    bench.publish()
    bench.tick()
    assert sockets[0].writes[-1] is sockets[1].writes[-1] is sockets[2].writes[-1]


def test_one_write_a_tick_holds_across_requests_and_channels() -> None:
    """A socket that follows both gets one write per tick for both."""
    bench, socket, log = ChannelsBench(), FakeSocket(), EventLog(epoch="k3")
    bench.fanout.subscribe(Subscribe(socket=socket, stream=RequestStream("req_1", log)))
    bench.subscribe(socket)
    bench.publish()
    log.append(Started(model="m", created=0))
    bench.tick()
    assert len(socket.writes) == 1
    assert {frame.get("channel") or frame["requestId"] for frame in socket.frames} == {CHANNEL, "req_1"}


def test_a_slow_reader_catches_up() -> None:
    """Above the high-water mark nothing is written; after it has drained, every publication comes."""
    bench, socket = ChannelsBench(high_water=100), FakeSocket(reading=False)
    bench.subscribe(socket)
    bench.publish("y" * 200)
    bench.settle()
    written = len(socket.writes)
    for number in range(20):
        bench.publish(number)
        bench.settle()
    assert len(socket.writes) == written
    socket.take()
    bench.fanout.check_lagging()
    bench.settle()
    socket.take()
    assert socket.offsets == list(range(1, 22))


def test_a_slow_reader_that_falls_out_of_the_history_is_closed() -> None:
    """Publications can't be merged: the socket is closed with 4008."""
    bench, socket, quick = ChannelsBench(high_water=100, limits=limits_of(5)), FakeSocket(reading=False), FakeSocket()
    bench.subscribe(socket)
    bench.subscribe(quick)
    bench.publish("y" * 200)
    bench.settle()
    for number in range(10):
        bench.publish(number)
        bench.settle()
    socket.take()
    bench.fanout.check_lagging()
    bench.settle()
    assert socket.closed == (4008, "slow_consumer")
    assert socket.offsets == [1]
    assert quick.offsets == list(range(1, 12))


def test_a_burst_beyond_the_history_reaches_readers_that_keep_up() -> None:
    """Publications of one tick are delivered before they are trimmed."""
    bench, socket, late = ChannelsBench(high_water=1 << 20, limits=limits_of(4)), FakeSocket(), FakeSocket()
    bench.subscribe(socket)
    for number in range(3):
        bench.publish(number)
    bench.settle()
    bench.subscribe(late, mode="replay")
    for number in range(50):
        bench.publish(number)
    bench.settle()
    assert socket.offsets == late.offsets == list(range(1, 54))
    assert socket.closed is late.closed is None


def test_what_expires_within_a_tick_is_delivered_first() -> None:
    """A reader that has just subscribed gets it."""
    bench, socket = ChannelsBench(limits=limits_of(ttl=10)), FakeSocket()
    bench.publish()
    bench.subscribe(socket, mode="replay")
    bench.now += 10
    bench.channels.sweep()
    bench.publish()
    bench.settle()
    assert socket.offsets == [1, 2]
    assert socket.closed is None


def test_slow_readers_do_not_break_up_the_ticks_of_others() -> None:
    """Where all readers of a channel are slow, its publications do not cause extra deliveries."""
    bench, slow, other = ChannelsBench(high_water=100, limits=limits_of(3)), FakeSocket(reading=False), FakeSocket()
    bench.subscribe(slow)
    bench.subscribe(other, channel="room:8")
    bench.publish("y" * 200)
    bench.settle()
    written = len(other.writes)
    for _ in range(30):
        bench.publish()
        bench.publish(channel="room:8")
    bench.settle()
    assert len(other.offsets) == 30
    assert len(other.writes) - written <= 30 / 3


def test_a_history_is_bounded_in_bytes() -> None:
    """The newest publication is always held."""
    bench = ChannelsBench(limits=limits_of(1000, size=5000))
    for _ in range(100):
        bench.publish("x" * 1000)
    history = bench.channels.history(GetHistory(tenant=TENANT, channel=CHANNEL))
    assert [publication.offset for publication in history.publications] == [100]


def test_all_histories_are_bounded_together() -> None:
    """The histories with the oldest last publication are dropped; present readers have got them."""
    bench, socket = ChannelsBench(limits=ChannelLimits(size=20_000)), FakeSocket()
    bench.subscribe(socket, channel="room:0")
    for number in range(10):
        bench.publish("x" * 2000, channel=f"room:{number}")
    bench.settle()
    held = [
        len(bench.channels.history(GetHistory(tenant=TENANT, channel=f"room:{number}")).publications)
        for number in range(10)
    ]
    assert held == [0] * 6 + [1] * 4
    assert socket.offsets == [1]


def test_channels_are_limited_in_number() -> None:
    """One more removes the channel with the oldest last publication, unless it is in use."""
    bench, socket = ChannelsBench(limits=ChannelLimits(channels=2)), FakeSocket()
    bench.subscribe(socket, channel="room:1")
    bench.publish(channel="room:1")
    epochs = [bench.publish(channel=name).position.epoch for name in ("room:2", "room:3", "room:2")]
    assert epochs[2] != epochs[0]
    bench.subscribe(FakeSocket(), channel="room:2")
    with pytest.raises(Overloaded) as raised:
        bench.publish(channel="room:3")
    assert raised.value.retry_after
    bench.settle()
    assert socket.offsets == [1]
    assert len(bench.channels) == 2


def test_idle_channels_are_removed() -> None:
    """A sweep removes channels without users and history; after the last one it stops."""
    bench = ChannelsBench()
    bench.publish()
    assert bench.channels.sweep()
    bench.now += 301
    assert not bench.channels.sweep()
    assert len(bench.channels) == 0
    bench.publish()
    assert bench.sweeps_started == 2


def test_tenants_share_no_channel() -> None:
    """The same name is another channel for another tenant."""
    bench, socket = ChannelsBench(), FakeSocket()
    bench.channels.subscribe(SubscribeChannel(socket=socket, tenant="t2", channel=CHANNEL))
    bench.publish()
    bench.settle()
    assert socket.offsets == []


def test_a_second_subscription_replaces_the_first() -> None:
    """It begins at the newer position, and each publication comes once."""
    bench, socket = ChannelsBench(), FakeSocket()
    position = bench.publish().position
    bench.subscribe(socket)
    bench.publish()
    bench.subscribe(socket, position)
    bench.settle()
    bench.publish()
    bench.settle()
    assert socket.offsets == [2, 3]


def test_unsubscribing_leaves_nothing() -> None:
    """Unsubscribed or closed: nothing more is sent, and nothing is held."""
    bench, socket, other = ChannelsBench(), FakeSocket(), FakeSocket()
    bench.subscribe(socket, presence=True)
    bench.subscribe(other, presence=True)
    assert bench.channels.unsubscribe(socket, (TENANT, CHANNEL))
    assert not bench.channels.unsubscribe(socket, (TENANT, CHANNEL))
    bench.disconnect(other)
    bench.publish()
    bench.settle()
    assert socket.offsets == other.offsets == []
    assert bench.fanout.stats().subscriptions == 0


def test_a_key_publishes_once() -> None:
    """The second time returns the first position, until the key expires; other content is refused."""
    bench, socket = ChannelsBench(), FakeSocket()
    bench.subscribe(socket)
    first, again = bench.publish(1, key="k"), bench.publish(1, key="k")
    assert (again.position, again.replayed) == (first.position, True)
    with pytest.raises(IdempotencyKeyReused):
        bench.publish(2, key="k")
    bench.now += 300
    assert not bench.publish(1, key="k").replayed
    bench.settle()
    assert socket.offsets == [1, 2]


@pytest.mark.parametrize("name", ["", "x" * 129, "room\n7", "room\x007"])
def test_a_channel_has_a_name(name: str) -> None:
    """1 to 128 printable characters."""
    bench = ChannelsBench()
    with pytest.raises(InvalidRequest):
        bench.publish(channel=name)
    with pytest.raises(InvalidRequest):
        bench.subscribe(FakeSocket(), channel=name)


def test_a_publication_is_bounded() -> None:
    """Too large, without an event, or with too long a wait: refused."""
    bench = ChannelsBench()
    with pytest.raises(InvalidRequest) as raised:
        bench.publish("x" * MAX_DATA_BYTES)
    assert raised.value.code == "publication_too_large"
    for event in ("", "x" * 65):
        with pytest.raises(InvalidRequest):
            bench.publish(event=event)
    with pytest.raises(InvalidRequest):
        bench.channels.publish(msgspec.structs.replace(publication(), wait=61.0))


def test_history_comes_in_pages() -> None:
    """Up to a limit after a position, and whether there are more."""
    bench = ChannelsBench()
    positions = [bench.publish(number).position for number in range(5)]
    page = bench.channels.history(GetHistory(tenant=TENANT, channel=CHANNEL, after=positions[0], limit=2))
    assert [(entry.offset, json.loads(bytes(entry.data))) for entry in page.publications] == [(2, 1), (3, 2)]
    assert (page.epoch, page.offset, page.more) == (positions[0].epoch, 5, True)
    page = bench.channels.history(GetHistory(tenant=TENANT, channel=CHANNEL, after=positions[4]))
    assert (page.publications, page.more) == ((), False)
    with pytest.raises(UnrecoverablePosition):
        bench.channels.history(GetHistory(tenant=TENANT, channel=CHANNEL, after=Position("other", 0)))


def test_a_look_up_creates_no_channel() -> None:
    """A look-up creates no channel."""
    bench = ChannelsBench()
    assert bench.channels.history(GetHistory(tenant=TENANT, channel=CHANNEL)).epoch == ""
    with pytest.raises(UnrecoverablePosition):
        bench.channels.history(GetHistory(tenant=TENANT, channel=CHANNEL, after=Position("k3", 0)))
    assert bench.present == []
    assert len(bench.channels) == 0


def test_acknowledgements_are_counted() -> None:
    """Acknowledgements are cumulative; one beyond the end or of another socket does not count."""
    bench, one, two, stranger = ChannelsBench(), FakeSocket(), FakeSocket(), FakeSocket()
    bench.subscribe(one, peer=Peer("ada", "c1"))
    bench.subscribe(two, peer=Peer("bob", "c2"))
    message = publication()
    offset = bench.channels.publish(message).position.offset
    bench.publish()
    receipt, done = bench.channels.open_receipt(message, offset), []
    receipt.when_done(lambda: done.append(bench.channels.close_receipt(message, receipt)))
    bench.channels.acked(stranger, (TENANT, CHANNEL), 1)
    bench.channels.acked(one, (TENANT, CHANNEL), 99)
    assert receipt.outstanding == {one, two}
    bench.channels.acked(one, (TENANT, CHANNEL), 2)
    assert not done
    bench.disconnect(two)
    assert done == [(Peer("ada", "c1"),)]


def test_a_resumed_position_acknowledges() -> None:
    """A position to resume from counts as an acknowledgement."""
    bench, socket, again = ChannelsBench(), FakeSocket(), FakeSocket()
    bench.subscribe(socket, peer=Peer("ada", "c1"))
    message = publication()
    position = bench.channels.publish(message).position
    receipt = bench.channels.open_receipt(message, position.offset)
    bench.disconnect(socket)
    bench.subscribe(again, position, peer=Peer("ada", "c1"))
    receipt.close()
    assert bench.channels.close_receipt(message, receipt) == (Peer("ada", "c1"),)


@pytest.mark.parametrize("data", [b'"\xff"', b"[" * 65 + b"]" * 65, b"{", b"", b"[" * 10_000 + b"]" * 10_000])
def test_data_that_readers_can_not_parse_is_refused(data: bytes) -> None:
    """Not UTF-8, not JSON, or nested too deeply: it could break the readers."""
    with pytest.raises(InvalidRequest):
        ChannelsBench().channels.publish(msgspec.structs.replace(publication(), data=msgspec.Raw(data)))
