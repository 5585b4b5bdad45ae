import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.delivery.fanout import STALL_LIMIT, Fanout
from actors.delivery.topic import PAGE_BYTES
from actors.log.event_log import EventLog
from actors.requests.stream import RequestStream
from actors.runtime import Ref, System
from actors.subscription_hub import HIGH_WATER, SubscriptionHub
from protocol.errors import Overloaded, ShuttingDown, UnrecoverablePosition
from protocol.events import AttemptFailed, Cancelled, Completed, Delta, Event, Position, Started, ToolCallDelta
from protocol.hub import (
    DisconnectAll,
    GetHubStats,
    HubStats,
    Mode,
    Socket,
    SocketClosed,
    Subscribe,
    Unsubscribe,
)

STARTED = Started(model="m", created=0)
COMPLETED = Completed(result=msgspec.Raw(b'{"text":""}'))
RESTART = AttemptFailed(provider="p", model="m", code="provider_error", restart=True)
EMPTY = HubStats(sockets=0, subscriptions=0, requests=0)


class Link:
    """A socket whose client takes what is written at once, or when it is told to."""

    def __init__(self, *, reading: bool = True) -> None:
        self.reading = reading
        self.held = b""
        self.writes: list[bytes] = []
        self.frames: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None
        self.news = asyncio.Event()

    def write(self, frames: bytes) -> None:
        assert self.closed is None
        self.writes.append(frames)
        self.held += frames
        self.news.set()
        if self.reading:
            self.take()

    @property
    def buffered(self) -> int:
        return len(self.held)

    def close(self, code: int, reason: str) -> None:
        self.closed = self.closed or (code, reason)

    def take(self) -> None:
        """Read everything."""
        lines, self.held = self.held.splitlines(), b""
        self.frames += [json.loads(line) for line in lines]

    @property
    def offsets(self) -> list[tuple[int, int]]:
        return [(frame.get("from", frame["offset"]), frame["offset"]) for frame in self.frames if "offset" in frame]


class Desk:
    """A fan-out with its loop and its clock in hand."""

    def __init__(self, *, high_water: int = 1000, max_subscriptions: int = 100) -> None:
        self.soon: list[Callable[[], None]] = []
        self.watches = 0
        self.now = 0.0
        self.fanout = Fanout(
            newline,
            high_water=high_water,
            max_subscriptions=max_subscriptions,
            clock=lambda: self.now,
            soon=self.soon.append,
            watch=self.watch,
        )

    def watch(self) -> None:
        self.watches += 1

    def tick(self) -> None:
        """Run what is due in this tick."""
        due, self.soon[:] = list(self.soon), []
        assert len(due) <= 1
        for call in due:
            call()

    def settle(self) -> None:
        """Run ticks until nothing is due."""
        while self.soon:
            self.tick()

    def subscribe(
        self,
        link: Socket,
        stream: RequestStream,
        after: Position | None = None,
        mode: Mode | None = None,
        ack_id: int | None = None,
    ) -> None:
        self.fanout.subscribe(Subscribe(socket=link, stream=stream, after=after, mode=mode, ack_id=ack_id))


def newline(payload: bytes) -> bytes:
    """Frame by a newline."""
    return payload + b"\n"


def stream_of(*events: Event, request_id: str = "req_1", max_bytes: int = 1 << 20) -> RequestStream:
    """Return a request's stream with these entries in its log."""
    log = EventLog(epoch="k3", max_bytes=max_bytes)
    if events:
        log.extend(events)
    return RequestStream(request_id, log)


def deltas(count: int) -> Iterator[Delta]:
    """Return as many pieces of text."""
    return (Delta(f"{number} ") for number in range(count))


# ----------------------------------------------------------------------------------------------------- subscribing


def test_the_acknowledgement_comes_first_and_each_replayed_frame_has_its_offset() -> None:
    """One write holds the ack and then the replay after the position."""
    desk, link, stream = Desk(), Link(), stream_of(STARTED, *deltas(4))
    desk.subscribe(link, stream, Position("k3", 2), ack_id=3)
    desk.settle()
    assert len(link.writes) == 1
    ack, *rest = link.frames
    assert ack == {
        "type": "ack",
        "id": 3,
        "requestId": "req_1",
        "data": {"epoch": "k3", "offset": 5, "state": "running", "recovered": True},
    }
    assert [frame["offset"] for frame in rest] == [3, 4, 5]


def test_a_subscription_before_the_first_entry_waits_for_it() -> None:
    """A pending request acknowledges offset 0, which is a position to come back to."""
    desk, link, stream = Desk(), Link(), stream_of()
    desk.subscribe(link, stream, ack_id=1)
    desk.settle()
    assert link.frames[0]["data"] == {"epoch": "k3", "offset": 0, "state": "pending", "recovered": True}
    again = Link()
    desk.subscribe(again, stream, Position("k3", 0))
    stream.log.append(STARTED)
    desk.settle()
    assert link.offsets == again.offsets == [(1, 1)]


def test_a_resume_that_breaks_off_before_an_event_has_lost_nothing() -> None:
    """The acknowledgement has the position that was asked for, so a client that has had nothing else has that."""
    desk, stream, position = Desk(), stream_of(STARTED, Delta("a"), Delta("b")), Position("k3", 3)
    for _ in range(3):
        link = Link()
        desk.subscribe(link, stream, position, ack_id=1)
        desk.settle()
        (ack,) = link.frames
        position = Position(ack["data"]["epoch"], ack["data"]["offset"])
        desk.fanout.leave(link)
    link = Link()
    desk.subscribe(link, stream, position)
    stream.log.append(Delta("c"), COMPLETED)
    desk.settle()
    assert link.offsets == [(4, 4), (5, 5)]


def test_a_client_without_an_id_gets_no_acknowledgement() -> None:
    """The plain protocol has updates and an end."""
    desk, link, stream = Desk(), Link(), stream_of(STARTED, Delta("x"), COMPLETED)
    desk.subscribe(link, stream)
    desk.settle()
    assert [frame["type"] for frame in link.frames] == ["update", "update", "complete"]


@pytest.mark.parametrize("end", [COMPLETED, Cancelled()])
def test_a_finished_request_replays_with_its_end_and_leaves_nothing(end: Event) -> None:
    """A late subscriber gets the end too, and then the subscription is over."""
    desk, link, stream = Desk(), Link(), stream_of(STARTED, Delta("x"), end)
    desk.subscribe(link, stream, ack_id=1)
    desk.settle()
    assert link.offsets == [(1, 1), (2, 2), (3, 3)]
    assert link.frames[0]["data"]["state"] == ("completed" if end is COMPLETED else "cancelled")
    assert (desk.fanout.stats(), stream.followers) == (EMPTY, 0)


def test_who_has_the_end_already_gets_the_state_only() -> None:
    """Resuming behind the terminal entry repeats nothing."""
    desk, link, stream = Desk(), Link(), stream_of(STARTED, COMPLETED)
    desk.subscribe(link, stream, Position("k3", 2), ack_id=1)
    desk.settle()
    assert [frame["type"] for frame in link.frames] == ["ack"]
    assert (desk.fanout.stats(), stream.followers) == (EMPTY, 0)


@pytest.mark.parametrize("after", [Position("other", 1), Position("k3", 1), None])
def test_a_position_that_is_lost_says_so_and_gets_a_snapshot(after: Position | None) -> None:
    """A foreign epoch, or an offset that fell off the ring: not recovered, then all content at once."""
    desk, link, stream = Desk(), Link(), stream_of(STARTED, *deltas(20), max_bytes=1000)
    desk.subscribe(link, stream, after, ack_id=1)
    stream.log.append(COMPLETED)
    desk.settle()
    ack, snapshot, end = link.frames
    assert ack["data"]["recovered"] is False
    assert (snapshot["snapshot"], snapshot["epoch"], snapshot["offset"]) == (True, "k3", 21)
    assert snapshot["data"]["text"] == "".join(delta.text for delta in deltas(20))
    assert (end["type"], end["offset"]) == ("complete", 22)


@pytest.mark.parametrize(
    ("after", "mode"),
    [
        (Position("other", 1), "replay"),
        (Position("k3", 1), "replay"),
        (None, "replay"),
        (Position("k3", 22), None),
        (Position("k3", 22), "live"),
        (Position("k3", 22), "snapshot"),
    ],
)
def test_a_position_that_can_not_be_had_is_refused(after: Position | None, mode: Mode | None) -> None:
    """A replay of what is gone, and whatever lies beyond the end; the old subscription is as it was."""
    desk, link, stream = Desk(), Link(), stream_of(STARTED, *deltas(20), max_bytes=1000)
    desk.subscribe(link, stream, mode="live")
    with pytest.raises(UnrecoverablePosition):
        desk.subscribe(link, stream, after, mode, ack_id=1)
    stream.log.append(Delta("x"))
    desk.settle()
    assert link.offsets == [(22, 22)]


def test_live_begins_with_what_comes_next() -> None:
    """Nothing of the past, but a finished request's end."""
    desk, link, late, stream = Desk(), Link(), Link(), stream_of(STARTED, *deltas(3))
    desk.subscribe(link, stream, mode="live")
    desk.settle()
    stream.log.append(COMPLETED)
    desk.settle()
    desk.subscribe(late, stream, mode="live")
    desk.settle()
    assert link.offsets == late.offsets == [(5, 5)]


def test_a_snapshot_and_then_live() -> None:
    """One merged frame, then each entry."""
    desk, link, stream = Desk(), Link(), stream_of(STARTED, Delta("a"), Delta("b"))
    desk.subscribe(link, stream, mode="snapshot")
    desk.settle()
    stream.log.append(Delta("c"))
    desk.settle()
    assert [frame["data"] for frame in link.frames] == [{"text": "ab"}, {"delta": "c"}]


def test_a_second_subscription_replaces_the_first() -> None:
    """The same request twice on one socket is one subscription, from the newer position."""
    desk, link, stream = Desk(), Link(), stream_of(STARTED, Delta("a"))
    desk.subscribe(link, stream)
    desk.subscribe(link, stream, Position("k3", 1))
    desk.settle()
    assert link.offsets == [(2, 2)]
    assert desk.fanout.stats() == HubStats(sockets=1, subscriptions=1, requests=1)


def test_a_socket_has_a_limit_of_subscriptions() -> None:
    """One more is refused with ``connection_limit``; replacing one is not one more."""
    desk, link = Desk(max_subscriptions=1), Link()
    first = stream_of(request_id="req_1")
    desk.subscribe(link, first)
    desk.subscribe(link, first)
    with pytest.raises(Overloaded) as raised:
        desk.subscribe(link, stream_of(request_id="req_2"))
    assert raised.value.code == "connection_limit"


# --------------------------------------------------------------------------------------------------------- delivery


def test_one_write_a_socket_and_tick() -> None:
    """Whatever happens to however many requests in a tick goes out in one write, shared by those at the same place."""
    desk, links = Desk(), [Link(), Link()]
    streams = [stream_of(STARTED, request_id="req_1"), stream_of(STARTED, request_id="req_2")]
    for link in links:
        for stream in streams:
            desk.subscribe(link, stream, mode="live")
    desk.settle()
    for stream in streams:
        stream.log.append(Delta("a"))
        stream.log.append(Delta("b"), Delta("c"))
    desk.tick()
    assert [len(link.writes) for link in links] == [1, 1]
    assert len(links[0].frames) == 6
    assert not desk.soon


class LostLink(Link):
    """A socket whose connection is lost, before anybody was told."""

    def write(self, frames: bytes) -> None:
        raise RuntimeError("unable to perform operation: the handler is closed")

    def close(self, code: int, reason: str) -> None:
        raise RuntimeError("unable to perform operation: the handler is closed")


def test_a_connection_that_is_lost_costs_the_others_nothing() -> None:
    """Neither a frame of what is followed nor a farewell."""
    desk, stream = Desk(), stream_of(STARTED)
    links = [Link(), LostLink(), Link()]
    for link in links:
        desk.subscribe(link, stream)
    desk.settle()
    assert desk.fanout.stats().sockets == 2
    desk.subscribe(LostLink(), stream, mode="live")
    stream.log.append(Delta("x"))
    assert desk.fanout.goodbye("shutdown", 8.0) == 2
    assert [link.offsets for link in links] == [[(1, 1), (2, 2)], [], [(1, 1), (2, 2)]]
    assert [link.closed for link in links] == [(1000, "shutdown"), None, (1000, "shutdown")]


def test_readers_at_the_same_place_share_their_bytes() -> None:
    """A frame for a thousand sockets is one object."""
    desk, links, stream = Desk(), [Link() for _ in range(3)], stream_of(STARTED)
    for link in links:
        desk.subscribe(link, stream)
    desk.settle()
    assert links[0].writes[0] is links[1].writes[0] is links[2].writes[0]


def test_a_long_replay_goes_out_page_by_page() -> None:
    """No write is much larger than a page, and nothing is merged for a client that keeps up."""
    desk, link = Desk(), Link()
    stream = stream_of(STARTED, *(Delta("x" * 10_000) for _ in range(30)))
    desk.subscribe(link, stream)
    desk.tick()
    assert 1 < len(link.frames) < 10
    desk.settle()
    assert link.offsets == [(offset, offset) for offset in range(1, 32)]
    assert max(map(len, link.writes)) < PAGE_BYTES + 5000


def test_a_slow_reader_costs_an_integer_and_then_gets_one_merged_update() -> None:
    """Above the mark nothing is written; when it has drained, what it missed comes as one frame."""
    desk, link, stream = Desk(high_water=100), Link(reading=False), stream_of(STARTED)
    desk.subscribe(link, stream)
    desk.settle()
    stream.log.append(Delta("y" * 200))
    desk.settle()
    written = len(link.writes)
    for delta in deltas(50):
        stream.log.append(delta)
        desk.settle()
    assert (len(link.writes), desk.watches) == (written, 1)
    assert desk.fanout.poll()
    link.take()
    assert not desk.fanout.poll()
    desk.settle()
    link.take()
    assert link.offsets[-1] == (3, 52)
    assert link.frames[-1]["data"] == {"delta": "".join(delta.text for delta in deltas(50))}
    stream.log.append(Delta("live again"))
    desk.settle()
    link.take()
    assert link.offsets[-1] == (53, 53)


def test_a_slow_reader_that_fell_off_the_ring_gets_a_snapshot() -> None:
    """Memory stays bounded: the ring goes on without the reader."""
    desk, link, stream = Desk(high_water=100), Link(reading=False), stream_of(STARTED, max_bytes=2000)
    desk.subscribe(link, stream)
    stream.log.append(Delta("y" * 200))
    desk.settle()
    stream.log.extend(deltas(100))
    desk.settle()
    link.take()
    desk.fanout.poll()
    desk.settle()
    link.take()
    assert link.frames[-1]["snapshot"] is True
    assert link.frames[-1]["data"]["text"] == "y" * 200 + "".join(delta.text for delta in deltas(100))


def test_a_reader_that_does_not_move_is_closed() -> None:
    """After a while without progress the socket is closed as slow; progress, however small, starts the time anew."""
    desk, link, other, stream = Desk(high_water=100), Link(reading=False), Link(), stream_of(Delta("y" * 400))
    desk.subscribe(link, stream)
    desk.subscribe(other, stream)
    desk.settle()
    stream.log.append(Delta("z"))
    desk.settle()
    desk.now = STALL_LIMIT - 1
    link.held = link.held[1:]
    assert desk.fanout.poll()
    desk.now = STALL_LIMIT + 1
    assert desk.fanout.poll()
    desk.now = 2 * STALL_LIMIT
    assert not desk.fanout.poll()
    assert link.closed == (4008, "slow_consumer")
    assert other.closed is None
    assert desk.fanout.stats().sockets == 1


def test_a_change_of_one_request_does_not_wake_the_readers_of_another() -> None:
    """What is not news to a socket is no write."""
    desk, link, other = Desk(), Link(), Link()
    streams = [stream_of(STARTED, request_id="req_1"), stream_of(STARTED, request_id="req_2")]
    desk.subscribe(link, streams[0])
    desk.subscribe(other, streams[1])
    desk.settle()
    streams[0].log.append(Delta("a"))
    desk.settle()
    assert (len(link.writes), len(other.writes)) == (2, 1)


def test_a_request_cut_short_ends_its_own_readers_only() -> None:
    """Two requests share a log: cancelling one is the end for its followers, and nothing to the other's."""
    log = EventLog(epoch="k3")
    mine, theirs = RequestStream("req_1", log), RequestStream("req_2", log)
    desk, link, other = Desk(), Link(), Link()
    desk.subscribe(link, mine)
    desk.subscribe(other, theirs)
    log.append(STARTED, Delta("a"))
    desk.settle()
    mine.cut(Cancelled())
    log.append(Delta("b"), COMPLETED)
    desk.settle()
    assert [frame["type"] for frame in link.frames] == ["update", "update", "error"]
    assert [frame["type"] for frame in other.frames] == ["update", "update", "update", "complete"]


def test_leaving_leaves_nothing() -> None:
    """Unsubscribing, or the socket's end, takes the listener off and forgets what was to be sent."""
    desk, link, stream = Desk(), Link(), stream_of(STARTED)
    desk.subscribe(link, stream)
    assert desk.fanout.unsubscribe(link, "req_1")
    assert not desk.fanout.unsubscribe(link, "req_1")
    assert (desk.fanout.stats(), stream.followers) == (EMPTY, 0)
    desk.subscribe(link, stream, ack_id=1)
    desk.fanout.leave(link)
    desk.fanout.leave(link)
    desk.settle()
    assert (desk.fanout.stats(), stream.followers, link.writes) == (EMPTY, 0, [])


def test_a_broken_socket_does_not_starve_the_others() -> None:
    """A fault in one delivery is raised for all to see, and the rest goes out with the next tick."""
    desk, other = Desk(), Link()

    class Broken(Link):
        @property
        def buffered(self) -> int:
            raise RuntimeError("broken")

    bad, good = stream_of(STARTED, request_id="req_1"), stream_of(STARTED, request_id="req_2")
    desk.subscribe(other, good)
    desk.subscribe(Broken(), bad)
    with pytest.raises(RuntimeError, match="broken"):
        desk.tick()
    desk.settle()
    assert other.offsets == [(1, 1)]


# --------------------------------------------------------------------------------------------------- the great test


class Client:
    """Puts an answer together by the rules of the wire, over one link after another."""

    def __init__(self) -> None:
        self.text = ""
        self.calls: dict[int, str] = {}
        self.last = 0
        self.ends = 0
        self.epoch = "k3"
        self.link = Link()

    def read(self) -> None:
        """Take in what has come; a gap or a repetition is an error."""
        self.link.take()
        for frame in self.link.frames:
            self._apply(frame)
        self.link.frames.clear()

    def _apply(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "ack":
            return
        data = frame.get("data", {})
        assert not self.ends
        if frame.get("snapshot"):
            assert frame["offset"] >= self.last
            self.text, self.calls = data["text"], {}
        else:
            assert frame.get("from", frame["offset"]) == self.last + 1
        self.last = frame["offset"]
        if data.get("attemptFailed", {}).get("restart"):
            self.text, self.calls = "", {}
        self.text += data.get("delta", "")
        for call in [*data.get("toolCalls", []), *([data["toolCall"]] if "toolCall" in data else [])]:
            self.calls[call["index"]] = self.calls.get(call["index"], "") + call["arguments"]
        self.ends += frame["type"] in {"complete", "error"}


CONTENT = st.one_of(
    st.builds(
        lambda text, times: Delta(text * times), st.text(min_size=1, max_size=3), st.sampled_from([1, 1, 1, 9000])
    ),
    st.builds(lambda text: ToolCallDelta(index=0, arguments=text), st.text(max_size=3)),
    st.just(RESTART),
)
STEP = st.one_of(
    st.tuples(st.just("append"), st.lists(CONTENT, min_size=1, max_size=4)),
    st.tuples(st.sampled_from(["join", "join snapshot", "tick", "poll"]), st.none()),
    st.tuples(st.sampled_from(["cut", "stall", "read", "resume"]), st.integers(0, 7)),
)


@given(
    steps=st.lists(STEP, max_size=60),
    ring=st.sampled_from([1, 700, 3000, 1 << 20]),
    high_water=st.sampled_from([1, 300, 70_000]),
    end=st.sampled_from([COMPLETED, Cancelled()]),
)
def test_every_client_puts_the_same_answer_together(
    steps: list[tuple[str, Any]], ring: int, high_water: int, end: Event
) -> None:
    """Whatever the cuts, stalls, rings and marks: exactly the text, no gap, no duplicate, one end, and no residue."""
    stream, desk, clients = stream_of(max_bytes=ring), Desk(high_water=high_water), [Client()]
    desk.subscribe(clients[0].link, stream)
    stream.log.append(STARTED)
    for step, argument in steps:
        if step == "append":
            stream.log.extend(argument)
        elif step.startswith("join"):
            clients.append(Client())
            desk.subscribe(clients[-1].link, stream, mode="snapshot" if "snapshot" in step else None, ack_id=1)
        elif step == "tick":
            desk.tick()
        elif step == "poll":
            desk.fanout.poll()
        else:
            _move(desk, stream, clients[argument % len(clients)], step)
    stream.log.append(end)
    late = Client()
    desk.subscribe(late.link, stream)
    for client in [*clients, late]:
        client.link.reading = True
        client.link.take()
    for _ in range(1000):
        if desk.fanout.stats() == EMPTY:
            break
        desk.fanout.poll()
        desk.settle()
    whole = stream.snapshot()
    for client in [*clients, late]:
        client.read()
        assert (client.last, client.ends) == (stream.offset, 1)
        assert client.text == whole.text
        assert "".join(client.calls.values()) == "".join(call.arguments for call in whole.tool_calls)
        assert client.link.closed is None
    assert (desk.fanout.stats(), stream.followers, desk.soon) == (EMPTY, 0, [])


def _move(desk: Desk, stream: RequestStream, client: Client, step: str) -> None:
    if step == "cut":
        if client.link.reading:
            client.read()
        desk.fanout.leave(client.link)
        client.link = Link()
        desk.subscribe(client.link, stream, Position(client.epoch, client.last) if client.last else None)
    elif step == "stall":
        client.read()
        client.link.reading = False
    elif step == "read":
        client.read()
    else:
        client.read()
        client.link.reading = True


# --------------------------------------------------------------------------------------------------------- the actor


async def written(link: Link, writes: int) -> None:
    """Wait until a socket has been written to so many times."""
    while len(link.writes) < writes:
        link.news.clear()
        await link.news.wait()


def spawn(
    system: System, *, high_water: int = HIGH_WATER
) -> "Ref[Subscribe | Unsubscribe | SocketClosed | DisconnectAll | GetHubStats]":
    """Start a hub."""
    return system.spawn(lambda: SubscriptionHub(newline, high_water=high_water), name="hub")


async def test_the_actor_delivers() -> None:
    """Subscribe, follow, unsubscribe and close, through the mailbox."""
    async with System() as system:
        hub, link, stream = spawn(system), Link(), stream_of(STARTED)
        await hub.ask(Subscribe(socket=link, stream=stream, ack_id=1), timeout=5)
        stream.log.append(Delta("a"))
        await written(link, 2)
        assert link.offsets == [(1, 1), (2, 2)]
        assert await hub.ask(GetHubStats(), timeout=5) == HubStats(sockets=1, subscriptions=1, requests=1)
        assert await hub.ask(Unsubscribe(socket=link, request_id="req_1"), timeout=5)
        await hub.ask(Subscribe(socket=link, stream=stream), timeout=5)
        await hub.tell(SocketClosed(link))
        assert await hub.ask(GetHubStats(), timeout=5) == EMPTY
        with pytest.raises(UnrecoverablePosition):
            await hub.ask(Subscribe(socket=link, stream=stream, after=Position("k3", 9)), timeout=5)


async def test_the_actor_looks_after_a_lagging_socket() -> None:
    """A socket that has drained goes on, with nobody else's doing."""
    async with System() as system:
        hub, link, stream = spawn(system, high_water=100), Link(reading=False), stream_of(Delta("y" * 400))
        await hub.ask(Subscribe(socket=link, stream=stream), timeout=5)
        await written(link, 1)
        stream.log.append(Delta("a"), Delta("b"))
        await asyncio.sleep(0)
        link.reading = True
        link.take()
        await written(link, 2)
        assert link.offsets == [(1, 1), (2, 3)]


async def test_goodbye_is_staggered() -> None:
    """Every socket gets its own time to come back, and nobody is let in any more."""
    async with System() as system:
        hub, links, stream = spawn(system), [Link() for _ in range(4)], stream_of(STARTED)
        for link in links:
            await hub.ask(Subscribe(socket=link, stream=stream, mode="live"), timeout=5)
        stream.log.append(Delta("last words"))
        assert await hub.ask(DisconnectAll(spread=8.0), timeout=5) == 4
        for index, link in enumerate(links):
            *_, words, farewell = link.frames
            assert words["data"] == {"delta": "last words"}
            assert farewell["type"] == "disconnect"
            assert 2000 * index <= farewell["data"].pop("delayMs") <= 2000 * (index + 1)
            assert farewell["data"] == {"code": 4001, "reason": "shutdown", "reconnect": True}
            assert link.closed == (1000, "shutdown")
        assert stream.followers == 0
        with pytest.raises(ShuttingDown):
            await hub.ask(Subscribe(socket=Link(), stream=stream), timeout=5)


async def test_a_hub_that_goes_lets_its_sockets_go() -> None:
    """A socket whose subscriptions are lost is closed: its client subscribes anew and does not wait for ever."""
    link, stream = Link(), stream_of(STARTED)
    async with System() as system:
        await spawn(system).ask(Subscribe(socket=link, stream=stream), timeout=5)
    assert link.closed == (4010, "insufficient state")
    assert stream.followers == 0


def test_bounds_are_checked() -> None:
    """A bound that bounds nothing is refused when the hub is made."""
    with pytest.raises(ValueError, match="high_water must be positive, got 0"):
        SubscriptionHub(newline, high_water=0)
    with pytest.raises(ValueError, match="max_subscriptions must be positive, got -1"):
        SubscriptionHub(newline, max_subscriptions=-1)
