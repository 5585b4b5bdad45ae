"""Following a channel: replay, live, slow, and back again."""

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
from tests.actors.channels.room import ROOM, TENANT, House, Link, holding, publication


def test_a_publication_goes_out_as_the_wire_says() -> None:
    """The frame has the channel, the offset, the event and the data; the acknowledgement has the position."""
    house, link = House(), Link()
    house.subscribe(link, ack_id=4)
    published = house.publish({"x": 1}, event="typing")
    house.settle()
    epoch = published.position.epoch
    assert link.frames == [
        {"type": "ack", "id": 4, "channel": ROOM, "data": {"epoch": epoch, "offset": 0, "recovered": True}},
        {"type": "update", "channel": ROOM, "offset": 1, "event": "typing", "data": {"x": 1}},
    ]


def test_without_a_position_only_what_comes_is_heard() -> None:
    """Who enters a room does not hear what was said before, and knows where it is."""
    house, link = House(), Link()
    house.publish()
    house.subscribe(link, ack_id=1)
    house.publish()
    house.settle()
    assert link.offsets == [2]
    assert link.frames[0]["data"]["offset"] == 1


def test_a_position_is_gone_on_from() -> None:
    """Everything after it, each with its own offset, and then live."""
    house, link = House(), Link()
    positions = [house.publish(number).position for number in range(5)]
    house.subscribe(link, positions[1], ack_id=1)
    house.publish(5)
    house.settle()
    assert link.offsets == [3, 4, 5, 6]
    assert link.frames[0]["data"]["recovered"] is True


@pytest.mark.parametrize("lost", ["trimmed", "expired", "epoch"])
def test_a_position_that_is_lost_says_so(lost: str) -> None:
    """It is not recovered, and what follows is live; a strict replay is refused."""
    house, link = House(limits=holding(3, ttl=10)), Link()
    position = house.publish().position
    for _ in range(4):
        house.publish()
    if lost == "expired":
        house.now += 10
    elif lost == "epoch":
        position = Position("other", 5)
    house.subscribe(link, position, ack_id=1)
    house.publish()
    house.settle()
    assert link.frames[0]["data"]["recovered"] is False
    assert link.offsets == [6]
    with pytest.raises(UnrecoverablePosition):
        house.subscribe(link, position, mode="replay")


def test_a_position_whose_past_has_expired_is_still_one() -> None:
    """Who has everything misses nothing, however long ago it was, as long as the channel lives."""
    house, link, other = House(limits=holding(ttl=10)), Link(), Link()
    house.subscribe(other)
    position = house.publish().position
    house.now += 100
    house.channels.sweep()
    house.subscribe(link, position, ack_id=1)
    house.publish()
    house.settle()
    assert link.frames[0]["data"]["recovered"] is True
    assert link.offsets == [2]


def test_a_replay_without_a_position_is_all_that_is_held() -> None:
    """And it says whether that is all there was."""
    house, whole, rest = House(limits=holding(3)), Link(), Link()
    for _ in range(3):
        house.publish()
    house.subscribe(whole, mode="replay", ack_id=1)
    house.settle()
    house.publish()
    house.subscribe(rest, mode="replay", ack_id=1)
    house.settle()
    assert whole.offsets == [1, 2, 3, 4]
    assert rest.offsets == [2, 3, 4]
    assert [link.frames[0]["data"]["recovered"] for link in (whole, rest)] == [True, False]


@pytest.mark.parametrize("mode", [None, "replay", "live"])
def test_a_position_beyond_the_end_was_never_given(mode: Mode | None) -> None:
    """It is refused in every mode."""
    house = House()
    epoch = house.publish().position.epoch
    with pytest.raises(UnrecoverablePosition):
        house.subscribe(Link(), Position(epoch, 2), mode=mode)


def test_a_channel_has_no_snapshot() -> None:
    """To ask for one is a mistake."""
    with pytest.raises(InvalidRequest):
        House().subscribe(Link(), mode="snapshot")


def test_readers_share_bytes_and_get_one_write_a_tick() -> None:
    """Whatever was published in a tick, in however many channels, is one write; the frames are built once."""
    house, links = House(), [Link(), Link(), Link()]
    for link in links:
        house.subscribe(link)
        house.subscribe(link, channel="room:8")
    house.settle()
    for channel in (ROOM, "room:8", ROOM):
        house.publish(channel=channel)
    house.tick()
    assert [len(link.writes) for link in links] == [1, 1, 1]
    assert not house.soon
    house.publish()
    house.tick()
    assert links[0].writes[-1] is links[1].writes[-1] is links[2].writes[-1]


def test_one_write_a_tick_holds_across_requests_and_channels() -> None:
    """A socket that follows both gets what a tick brings of both in one write."""
    house, link, log = House(), Link(), EventLog(epoch="k3")
    house.fanout.subscribe(Subscribe(socket=link, stream=RequestStream("req_1", log)))
    house.subscribe(link)
    house.publish()
    log.append(Started(model="m", created=0))
    house.tick()
    assert len(link.writes) == 1
    assert {frame.get("channel") or frame["requestId"] for frame in link.frames} == {ROOM, "req_1"}


def test_a_slow_reader_is_a_cursor_and_catches_up() -> None:
    """Above the mark nothing is written; when it has drained, everything comes one by one."""
    house, link = House(high_water=100), Link(reading=False)
    house.subscribe(link)
    house.publish("y" * 200)
    house.settle()
    written = len(link.writes)
    for number in range(20):
        house.publish(number)
        house.settle()
    assert len(link.writes) == written
    link.take()
    house.fanout.poll()
    house.settle()
    link.take()
    assert link.offsets == list(range(1, 22))


def test_a_slow_reader_that_falls_out_of_the_history_is_closed() -> None:
    """Publications can't be merged: 4008, and it comes back at its position to hear that it is lost."""
    house, link, quick = House(high_water=100, limits=holding(5)), Link(reading=False), Link()
    house.subscribe(link)
    house.subscribe(quick)
    house.publish("y" * 200)
    house.settle()
    for number in range(10):
        house.publish(number)
        house.settle()
    link.take()
    house.fanout.poll()
    house.settle()
    assert link.closed == (4008, "slow_consumer")
    assert link.offsets == [1]
    assert quick.offsets == list(range(1, 12))


def test_a_burst_beyond_the_history_reaches_who_keeps_up() -> None:
    """What a tick publishes goes out before it is trimmed: nobody is lost who had no chance."""
    house, link, late = House(high_water=1 << 20, limits=holding(4)), Link(), Link()
    house.subscribe(link)
    for number in range(3):
        house.publish(number)
    house.settle()
    house.subscribe(late, mode="replay")
    for number in range(50):
        house.publish(number)
    house.settle()
    assert link.offsets == late.offsets == list(range(1, 54))
    assert link.closed is late.closed is None


def test_what_expires_within_a_tick_goes_out_first() -> None:
    """Who has just come back is not lost to the clock."""
    house, link = House(limits=holding(ttl=10)), Link()
    house.publish()
    house.subscribe(link, mode="replay")
    house.now += 10
    house.channels.sweep()
    house.publish()
    house.settle()
    assert link.offsets == [1, 2]
    assert link.closed is None


def test_slow_readers_do_not_break_up_the_ticks_of_others() -> None:
    """Where all who read a channel are slow there is nothing to hand over, however much is published in it."""
    house, slow, other = House(high_water=100, limits=holding(3)), Link(reading=False), Link()
    house.subscribe(slow)
    house.subscribe(other, channel="room:8")
    house.publish("y" * 200)
    house.settle()
    written = len(other.writes)
    for _ in range(30):
        house.publish()
        house.publish(channel="room:8")
    house.settle()
    assert len(other.offsets) == 30
    assert len(other.writes) - written <= 30 / 3


def test_a_history_is_bounded_in_bytes() -> None:
    """The newest is always held."""
    house = House(limits=holding(1000, size=5000))
    for _ in range(100):
        house.publish("x" * 1000)
    history = house.channels.history(GetHistory(tenant=TENANT, channel=ROOM))
    assert [publication.offset for publication in history.publications] == [100]


def test_all_histories_are_bounded_together() -> None:
    """Those that were silent for longest go, and who was there had them."""
    house, link = House(limits=ChannelLimits(size=20_000)), Link()
    house.subscribe(link, channel="room:0")
    for number in range(10):
        house.publish("x" * 2000, channel=f"room:{number}")
    house.settle()
    held = [
        len(house.channels.history(GetHistory(tenant=TENANT, channel=f"room:{number}")).publications)
        for number in range(10)
    ]
    assert held == [0] * 6 + [1] * 4
    assert link.offsets == [1]


def test_channels_are_limited_in_number() -> None:
    """For one more the one that was silent for longest goes, unless somebody uses it."""
    house, link = House(limits=ChannelLimits(channels=2)), Link()
    house.subscribe(link, channel="room:1")
    house.publish(channel="room:1")
    epochs = [house.publish(channel=name).position.epoch for name in ("room:2", "room:3", "room:2")]
    assert epochs[2] != epochs[0]
    house.subscribe(Link(), channel="room:2")
    with pytest.raises(Overloaded) as raised:
        house.publish(channel="room:3")
    assert raised.value.retry_after
    house.settle()
    assert link.offsets == [1]
    assert len(house.channels) == 2


def test_channels_are_forgotten_when_idle() -> None:
    """A sweep drops those that nobody uses and in which nothing is held; with the last of them it rests."""
    house = House()
    house.publish()
    assert house.channels.sweep()
    house.now += 301
    assert not house.channels.sweep()
    assert len(house.channels) == 0
    house.publish()
    assert house.watches == 2


def test_tenants_share_no_channel() -> None:
    """The same name is another channel for another tenant."""
    house, link = House(), Link()
    house.channels.subscribe(SubscribeChannel(socket=link, tenant="t2", channel=ROOM))
    house.publish()
    house.settle()
    assert link.offsets == []


def test_a_second_subscription_replaces_the_first() -> None:
    """From the newer position, once."""
    house, link = House(), Link()
    position = house.publish().position
    house.subscribe(link)
    house.publish()
    house.subscribe(link, position)
    house.settle()
    house.publish()
    house.settle()
    assert link.offsets == [2, 3]


def test_leaving_ends_it() -> None:
    """Unsubscribed, or gone: nothing comes any more and nothing is kept."""
    house, link, other = House(), Link(), Link()
    house.subscribe(link, presence=True)
    house.subscribe(other, presence=True)
    assert house.channels.unsubscribe(link, (TENANT, ROOM))
    assert not house.channels.unsubscribe(link, (TENANT, ROOM))
    house.hang_up(other)
    house.publish()
    house.settle()
    assert link.offsets == other.offsets == []
    assert house.fanout.stats().subscriptions == 0


def test_a_key_publishes_once() -> None:
    """The second time is the first one's place, for some minutes; other content under it is refused."""
    house, link = House(), Link()
    house.subscribe(link)
    first, again = house.publish(1, key="k"), house.publish(1, key="k")
    assert (again.position, again.replayed) == (first.position, True)
    with pytest.raises(IdempotencyKeyReused):
        house.publish(2, key="k")
    house.now += 300
    assert not house.publish(1, key="k").replayed
    house.settle()
    assert link.offsets == [1, 2]


@pytest.mark.parametrize("name", ["", "x" * 129, "room\n7", "room\x007"])
def test_a_channel_has_a_name(name: str) -> None:
    """1 to 128 printable characters."""
    house = House()
    with pytest.raises(InvalidRequest):
        house.publish(channel=name)
    with pytest.raises(InvalidRequest):
        house.subscribe(Link(), channel=name)


def test_a_publication_is_bounded() -> None:
    """Too large, without an event, with too long a wait: refused."""
    house = House()
    with pytest.raises(InvalidRequest) as raised:
        house.publish("x" * MAX_DATA_BYTES)
    assert raised.value.code == "publication_too_large"
    for event in ("", "x" * 65):
        with pytest.raises(InvalidRequest):
            house.publish(event=event)
    with pytest.raises(InvalidRequest):
        house.channels.publish(msgspec.structs.replace(publication(), wait=61.0))


def test_history_comes_in_pages() -> None:
    """Up to so many after a position, and whether there are more."""
    house = House()
    positions = [house.publish(number).position for number in range(5)]
    page = house.channels.history(GetHistory(tenant=TENANT, channel=ROOM, after=positions[0], limit=2))
    assert [(entry.offset, json.loads(bytes(entry.data))) for entry in page.publications] == [(2, 1), (3, 2)]
    assert (page.epoch, page.offset, page.more) == (positions[0].epoch, 5, True)
    page = house.channels.history(GetHistory(tenant=TENANT, channel=ROOM, after=positions[4]))
    assert (page.publications, page.more) == ((), False)
    with pytest.raises(UnrecoverablePosition):
        house.channels.history(GetHistory(tenant=TENANT, channel=ROOM, after=Position("other", 0)))


def test_nothing_is_known_of_a_channel_without_a_word() -> None:
    """To look makes no channel."""
    house = House()
    assert house.channels.history(GetHistory(tenant=TENANT, channel=ROOM)).epoch == ""
    with pytest.raises(UnrecoverablePosition):
        house.channels.history(GetHistory(tenant=TENANT, channel=ROOM, after=Position("k3", 0)))
    assert house.present == []
    assert len(house.channels) == 0


def test_who_has_it_is_known() -> None:
    """Acknowledgements are cumulative, and neither what was never published nor a stranger's count."""
    house, one, two, stranger = House(), Link(), Link(), Link()
    house.subscribe(one, peer=Peer("ada", "c1"))
    house.subscribe(two, peer=Peer("bob", "c2"))
    message = publication()
    offset = house.channels.publish(message).position.offset
    house.publish()
    receipt, done = house.channels.expect(message, offset), []
    receipt.then(lambda: done.append(house.channels.settle(message, receipt)))
    house.channels.acked(stranger, (TENANT, ROOM), 1)
    house.channels.acked(one, (TENANT, ROOM), 99)
    assert receipt.outstanding == {one, two}
    house.channels.acked(one, (TENANT, ROOM), 2)
    assert not done
    house.hang_up(two)
    assert done == [(Peer("ada", "c1"),)]


def test_who_comes_back_with_it_has_it() -> None:
    """A position to go on from says as much as an acknowledgement."""
    house, link, again = House(), Link(), Link()
    house.subscribe(link, peer=Peer("ada", "c1"))
    message = publication()
    position = house.channels.publish(message).position
    receipt = house.channels.expect(message, position.offset)
    house.hang_up(link)
    house.subscribe(again, position, peer=Peer("ada", "c1"))
    receipt.close()
    assert house.channels.settle(message, receipt) == (Peer("ada", "c1"),)


@pytest.mark.parametrize("data", [b'"\xff"', b"[" * 65 + b"]" * 65, b"{", b"", b"[" * 10_000 + b"]" * 10_000])
def test_what_not_everybody_could_read_is_refused(data: bytes) -> None:
    """Not UTF-8, not JSON, or too deep for a client: one publisher can't break the readers."""
    with pytest.raises(InvalidRequest):
        House().channels.publish(msgspec.structs.replace(publication(), data=msgspec.Raw(data)))
