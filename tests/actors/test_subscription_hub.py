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
from protocol.channels import ChannelMessage, SubscribeChannel
from protocol.errors import Overloaded, ShuttingDown, UnrecoverablePosition
from protocol.events import AttemptFailed, Cancelled, Completed, Delta, Event, Failed, Position, Started, ToolCallDelta
from protocol.hub import (
    DisconnectAll,
    DisconnectIdle,
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


class FakeSocket:
    """A socket whose client reads everything at once, or when it is told to."""

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


class FanoutBench:
    """A fan-out on a loop and a clock that the test controls."""

    def __init__(self, *, high_water: int = 1000, max_subscriptions: int = 100) -> None:
        self.soon: list[Callable[[], None]] = []
        self.lags = 0
        self.now = 0.0
        self.fanout = Fanout(
            newline,
            high_water=high_water,
            max_subscriptions=max_subscriptions,
            clock=lambda: self.now,
            call_soon=self.soon.append,
            on_lag=self.on_lag,
        )

    def on_lag(self) -> None:
        self.lags += 1

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
        socket: Socket,
        stream: RequestStream,
        after: Position | None = None,
        mode: Mode | None = None,
        ack_id: int | None = None,
    ) -> None:
        self.fanout.subscribe(Subscribe(socket=socket, stream=stream, after=after, mode=mode, ack_id=ack_id))


def newline(payload: bytes) -> bytes:
    """Frame by a newline."""
    return payload + b"\n"


def stream_of(*events: Event, request_id: str = "req_1", max_bytes: int = 1 << 20) -> RequestStream:
    """Return a stream with these entries in its log."""
    log = EventLog(epoch="k3", max_bytes=max_bytes)
    if events:
        log.extend(events)
    return RequestStream(request_id, log)


def deltas(count: int) -> Iterator[Delta]:
    """Return this many pieces of text."""
    return (Delta(f"{number} ") for number in range(count))


# ----------------------------------------------------------------------------------------------------- subscribing


def test_the_acknowledgement_comes_first_and_each_replayed_frame_has_its_offset() -> None:
    """One write has the acknowledgement and then the replay after the position."""
    bench, socket, stream = FanoutBench(), FakeSocket(), stream_of(STARTED, *deltas(4))
    bench.subscribe(socket, stream, Position("k3", 2), ack_id=3)
    bench.settle()
    assert len(socket.writes) == 1
    ack, *rest = socket.frames
    assert ack == {
        "type": "ack",
        "id": 3,
        "requestId": "req_1",
        "data": {"epoch": "k3", "offset": 5, "state": "running", "recovered": True},
    }
    assert [frame["offset"] for frame in rest] == [3, 4, 5]


def test_a_subscription_before_the_first_entry_waits_for_it() -> None:
    """A pending request acknowledges offset 0, a position to resume from."""
    bench, socket, stream = FanoutBench(), FakeSocket(), stream_of()
    bench.subscribe(socket, stream, ack_id=1)
    bench.settle()
    assert socket.frames[0]["data"] == {"epoch": "k3", "offset": 0, "state": "pending", "recovered": True}
    again = FakeSocket()
    bench.subscribe(again, stream, Position("k3", 0))
    stream.log.append(STARTED)
    bench.settle()
    assert socket.offsets == again.offsets == [(1, 1)]


def test_a_resume_that_breaks_off_before_an_event_has_lost_nothing() -> None:
    """The acknowledgement has the position of the subscription, for a client that gets nothing else."""
    bench, stream, position = FanoutBench(), stream_of(STARTED, Delta("a"), Delta("b")), Position("k3", 3)
    for _ in range(3):
        socket = FakeSocket()
        bench.subscribe(socket, stream, position, ack_id=1)
        bench.settle()
        (ack,) = socket.frames
        position = Position(ack["data"]["epoch"], ack["data"]["offset"])
        bench.fanout.remove(socket)
    socket = FakeSocket()
    bench.subscribe(socket, stream, position)
    stream.log.append(Delta("c"), COMPLETED)
    bench.settle()
    assert socket.offsets == [(4, 4), (5, 5)]


def test_a_client_without_an_id_gets_no_acknowledgement() -> None:
    """Without an id there are only updates and an end."""
    bench, socket, stream = FanoutBench(), FakeSocket(), stream_of(STARTED, Delta("x"), COMPLETED)
    bench.subscribe(socket, stream)
    bench.settle()
    assert [frame["type"] for frame in socket.frames] == ["update", "update", "complete"]


@pytest.mark.parametrize("end", [COMPLETED, Cancelled()])
def test_a_finished_request_replays_with_its_end_and_leaves_nothing(end: Event) -> None:
    """A late subscriber gets the end, too, and then the subscription is over."""
    bench, socket, stream = FanoutBench(), FakeSocket(), stream_of(STARTED, Delta("x"), end)
    bench.subscribe(socket, stream, ack_id=1)
    bench.settle()
    assert socket.offsets == [(1, 1), (2, 2), (3, 3)]
    assert socket.frames[0]["data"]["state"] == ("completed" if end is COMPLETED else "cancelled")
    assert (bench.fanout.stats(), stream.followers) == (EMPTY, 0)


def test_resuming_after_the_end_gets_the_acknowledgement_only() -> None:
    """Resuming after the terminal entry repeats nothing."""
    bench, socket, stream = FanoutBench(), FakeSocket(), stream_of(STARTED, COMPLETED)
    bench.subscribe(socket, stream, Position("k3", 2), ack_id=1)
    bench.settle()
    assert [frame["type"] for frame in socket.frames] == ["ack"]
    assert (bench.fanout.stats(), stream.followers) == (EMPTY, 0)


def test_a_position_of_another_epoch_gets_a_snapshot() -> None:
    """`recovered` is false, and a snapshot follows."""
    bench, socket, stream = FanoutBench(), FakeSocket(), stream_of(STARTED, *deltas(20), max_bytes=1000)
    bench.subscribe(socket, stream, Position("other", 1), ack_id=1)
    stream.log.append(COMPLETED)
    bench.settle()
    ack, snapshot, end = socket.frames
    assert ack["data"]["recovered"] is False
    assert (snapshot["snapshot"], snapshot["epoch"], snapshot["offset"]) == (True, "k3", 21)
    assert snapshot["data"]["text"] == "".join(delta.text for delta in deltas(20))
    assert (end["type"], end["offset"]) == ("complete", 22)


@pytest.mark.parametrize("after", [Position("k3", 1), None])
def test_packed_entries_are_replayed(after: Position | None) -> None:
    """However small the log's budget: `recovered` is true, and each entry follows."""
    bench, socket, stream = (
        FanoutBench(high_water=10_000),
        FakeSocket(),
        stream_of(STARTED, *deltas(20), max_bytes=1000),
    )
    bench.subscribe(socket, stream, after, ack_id=1)
    stream.log.append(COMPLETED)
    bench.settle()
    ack, *frames = socket.frames
    assert ack["data"]["recovered"] is True
    assert [frame["offset"] for frame in frames] == list(range(2 if after else 1, 23))
    assert not any("from" in frame or "snapshot" in frame for frame in frames)


@pytest.mark.parametrize(
    ("after", "mode"),
    [
        (Position("other", 1), "replay"),
        (Position("k3", 22), None),
        (Position("k3", 22), "live"),
        (Position("k3", 22), "snapshot"),
    ],
)
def test_an_unrecoverable_position_is_refused(after: Position | None, mode: Mode | None) -> None:
    """A replay from another epoch, and a position beyond the end; the old subscription stays."""
    bench, socket, stream = FanoutBench(), FakeSocket(), stream_of(STARTED, *deltas(20), max_bytes=1000)
    bench.subscribe(socket, stream, mode="live")
    with pytest.raises(UnrecoverablePosition):
        bench.subscribe(socket, stream, after, mode, ack_id=1)
    stream.log.append(Delta("x"))
    bench.settle()
    assert socket.offsets == [(22, 22)]


def test_live_begins_with_the_next_entry() -> None:
    """No earlier entry, except a finished request's end."""
    bench, socket, late, stream = FanoutBench(), FakeSocket(), FakeSocket(), stream_of(STARTED, *deltas(3))
    bench.subscribe(socket, stream, mode="live")
    bench.settle()
    stream.log.append(COMPLETED)
    bench.settle()
    bench.subscribe(late, stream, mode="live")
    bench.settle()
    assert socket.offsets == late.offsets == [(5, 5)]


def test_a_snapshot_and_then_live() -> None:
    """One merged frame, then each entry."""
    bench, socket, stream = FanoutBench(), FakeSocket(), stream_of(STARTED, Delta("a"), Delta("b"))
    bench.subscribe(socket, stream, mode="snapshot")
    bench.settle()
    stream.log.append(Delta("c"))
    bench.settle()
    assert [frame["data"] for frame in socket.frames] == [
        {"text": "ab", "parts": [{"type": "text", "text": "ab"}]},
        {"delta": "c"},
    ]


def test_a_second_subscription_replaces_the_first() -> None:
    """The same request twice on one socket is one subscription, at the newer position."""
    bench, socket, stream = FanoutBench(), FakeSocket(), stream_of(STARTED, Delta("a"))
    bench.subscribe(socket, stream)
    bench.subscribe(socket, stream, Position("k3", 1))
    bench.settle()
    assert socket.offsets == [(2, 2)]
    assert bench.fanout.stats() == HubStats(sockets=1, subscriptions=1, requests=1)


def test_a_socket_has_a_limit_of_subscriptions() -> None:
    """One more is refused with ``connection_limit``; a replacement is not one more."""
    bench, socket = FanoutBench(max_subscriptions=1), FakeSocket()
    first = stream_of(request_id="req_1")
    bench.subscribe(socket, first)
    bench.subscribe(socket, first)
    with pytest.raises(Overloaded) as raised:
        bench.subscribe(socket, stream_of(request_id="req_2"))
    assert raised.value.code == "connection_limit"


# --------------------------------------------------------------------------------------------------------- delivery


def test_one_write_a_socket_and_tick() -> None:
    """All entries of all requests in a tick are one write per socket."""
    bench, sockets = FanoutBench(), [FakeSocket(), FakeSocket()]
    streams = [stream_of(STARTED, request_id="req_1"), stream_of(STARTED, request_id="req_2")]
    for socket in sockets:
        for stream in streams:
            bench.subscribe(socket, stream, mode="live")
    bench.settle()
    for stream in streams:
        stream.log.append(Delta("a"))
        stream.log.append(Delta("b"), Delta("c"))
    bench.tick()
    assert [len(socket.writes) for socket in sockets] == [1, 1]
    assert len(sockets[0].frames) == 6
    assert not bench.soon


class LostSocket(FakeSocket):
    """A socket whose connection is lost, before ``SocketClosed``."""

    def write(self, frames: bytes) -> None:
        raise RuntimeError("unable to perform operation: the handler is closed")

    def close(self, code: int, reason: str) -> None:
        raise RuntimeError("unable to perform operation: the handler is closed")


def test_a_connection_that_is_lost_costs_the_others_nothing() -> None:
    """The other sockets get their frames and the disconnect frame."""
    bench, stream = FanoutBench(), stream_of(STARTED)
    sockets = [FakeSocket(), LostSocket(), FakeSocket()]
    for socket in sockets:
        bench.subscribe(socket, stream)
    bench.settle()
    assert bench.fanout.stats().sockets == 2
    bench.subscribe(LostSocket(), stream, mode="live")
    stream.log.append(Delta("x"))
    assert bench.fanout.disconnect_all("shutdown", 8.0) == 2
    assert [socket.offsets for socket in sockets] == [[(1, 1), (2, 2)], [], [(1, 1), (2, 2)]]
    assert [socket.closed for socket in sockets] == [(1000, "shutdown"), None, (1000, "shutdown")]


def test_readers_with_the_same_cursor_share_their_bytes() -> None:
    """A frame for a thousand sockets is one object."""
    bench, sockets, stream = FanoutBench(), [FakeSocket() for _ in range(3)], stream_of(STARTED)
    for socket in sockets:
        bench.subscribe(socket, stream)
    bench.settle()
    assert sockets[0].writes[0] is sockets[1].writes[0] is sockets[2].writes[0]


def test_a_long_replay_goes_out_page_by_page() -> None:
    """No write is much larger than a page, and nothing is merged for a client that keeps up."""
    bench, socket = FanoutBench(), FakeSocket()
    stream = stream_of(STARTED, *(Delta("x" * 10_000) for _ in range(30)))
    bench.subscribe(socket, stream)
    bench.tick()
    assert 1 < len(socket.frames) < 10
    bench.settle()
    assert socket.offsets == [(offset, offset) for offset in range(1, 32)]
    assert max(map(len, socket.writes)) < PAGE_BYTES + 5000


def test_a_slow_reader_costs_an_integer_and_then_gets_one_merged_update() -> None:
    """Above the high-water mark nothing is written; after it has drained, it gets what it missed in one frame."""
    bench, socket, stream = FanoutBench(high_water=100), FakeSocket(reading=False), stream_of(STARTED)
    bench.subscribe(socket, stream)
    bench.settle()
    stream.log.append(Delta("y" * 200))
    bench.settle()
    written = len(socket.writes)
    for delta in deltas(50):
        stream.log.append(delta)
        bench.settle()
    assert (len(socket.writes), bench.lags) == (written, 1)
    assert bench.fanout.check_lagging()
    socket.take()
    assert not bench.fanout.check_lagging()
    bench.settle()
    socket.take()
    assert socket.offsets[-1] == (3, 52)
    assert socket.frames[-1]["data"] == {"delta": "".join(delta.text for delta in deltas(50))}
    stream.log.append(Delta("live again"))
    bench.settle()
    socket.take()
    assert socket.offsets[-1] == (53, 53)


def test_a_slow_reader_of_packed_entries_gets_them_merged() -> None:
    """However many entries it has missed and the log has packed: it goes on from its place, in few frames."""
    bench, socket, stream = FanoutBench(high_water=100), FakeSocket(reading=False), stream_of(STARTED, max_bytes=2000)
    bench.subscribe(socket, stream)
    stream.log.append(Delta("y" * 200))
    bench.settle()
    stream.log.extend(deltas(100))
    bench.settle()
    socket.take()
    bench.fanout.check_lagging()
    bench.settle()
    socket.take()
    assert socket.offsets == [(1, 1), (2, 2), (3, 102)]
    assert socket.frames[-1]["data"]["delta"] == "".join(delta.text for delta in deltas(100))


def test_a_reader_without_progress_is_closed() -> None:
    """A socket without progress for some time is closed as slow; any progress restarts that time."""
    bench, socket, other, stream = (
        FanoutBench(high_water=100),
        FakeSocket(reading=False),
        FakeSocket(),
        stream_of(Delta("y" * 400)),
    )
    bench.subscribe(socket, stream)
    bench.subscribe(other, stream)
    bench.settle()
    stream.log.append(Delta("z"))
    bench.settle()
    bench.now = STALL_LIMIT - 1
    socket.held = socket.held[1:]
    assert bench.fanout.check_lagging()
    bench.now = STALL_LIMIT + 1
    assert bench.fanout.check_lagging()
    bench.now = 2 * STALL_LIMIT
    assert not bench.fanout.check_lagging()
    assert socket.closed == (4008, "slow_consumer")
    assert other.closed is None
    assert bench.fanout.stats().sockets == 1


def test_a_change_of_one_request_does_not_wake_the_readers_of_another() -> None:
    """A socket without news gets no write."""
    bench, socket, other = FanoutBench(), FakeSocket(), FakeSocket()
    streams = [stream_of(STARTED, request_id="req_1"), stream_of(STARTED, request_id="req_2")]
    bench.subscribe(socket, streams[0])
    bench.subscribe(other, streams[1])
    bench.settle()
    streams[0].log.append(Delta("a"))
    bench.settle()
    assert (len(socket.writes), len(other.writes)) == (2, 1)


def test_a_request_cut_short_ends_its_own_readers_only() -> None:
    """Two requests share a log: cancelling one is the end for its followers only."""
    log = EventLog(epoch="k3")
    mine, theirs = RequestStream("req_1", log), RequestStream("req_2", log)
    bench, socket, other = FanoutBench(), FakeSocket(), FakeSocket()
    bench.subscribe(socket, mine)
    bench.subscribe(other, theirs)
    log.append(STARTED, Delta("a"))
    bench.settle()
    mine.cut(Cancelled())
    log.append(Delta("b"), COMPLETED)
    bench.settle()
    assert [frame["type"] for frame in socket.frames] == ["update", "update", "error"]
    assert [frame["type"] for frame in other.frames] == ["update", "update", "update", "complete"]


def test_unsubscribing_leaves_nothing() -> None:
    """Unsubscribing, or closing the socket, removes the listener and all unsent frames."""
    bench, socket, stream = FanoutBench(), FakeSocket(), stream_of(STARTED)
    bench.subscribe(socket, stream)
    assert bench.fanout.unsubscribe(socket, "req_1")
    assert not bench.fanout.unsubscribe(socket, "req_1")
    assert (bench.fanout.stats(), stream.followers) == (EMPTY, 0)
    bench.subscribe(socket, stream, ack_id=1)
    bench.fanout.remove(socket)
    bench.fanout.remove(socket)
    bench.settle()
    assert (bench.fanout.stats(), stream.followers, socket.writes) == (EMPTY, 0, [])


def test_a_broken_socket_does_not_starve_the_others() -> None:
    """An error in one delivery is raised, and the rest is delivered in the next tick."""
    bench, other = FanoutBench(), FakeSocket()

    class Broken(FakeSocket):
        @property
        def buffered(self) -> int:
            raise RuntimeError("broken")

    bad, good = stream_of(STARTED, request_id="req_1"), stream_of(STARTED, request_id="req_2")
    bench.subscribe(other, good)
    bench.subscribe(Broken(), bad)
    with pytest.raises(RuntimeError, match="broken"):
        bench.tick()
    bench.settle()
    assert other.offsets == [(1, 1)]


# --------------------------------------------------------------------------------------------------- all at once


class Client:
    """A client that assembles an answer by the rules of the wire, over one socket after another."""

    def __init__(self) -> None:
        self.text = ""
        self.calls: dict[int, str] = {}
        self.last = 0
        self.ends = 0
        self.epoch = "k3"
        self.socket = FakeSocket()

    def read(self) -> None:
        """Read the new frames; a gap or a repetition is an error."""
        self.socket.take()
        for frame in self.socket.frames:
            self._apply(frame)
        self.socket.frames.clear()

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
def test_every_client_gets_the_same_answer(
    steps: list[tuple[str, Any]], ring: int, high_water: int, end: Event
) -> None:
    """For any cuts, stalls, rings and marks: exactly the text, no gap, no duplicate, one end, and nothing left."""
    stream, bench, clients = stream_of(max_bytes=ring), FanoutBench(high_water=high_water), [Client()]
    bench.subscribe(clients[0].socket, stream)
    stream.log.append(STARTED)
    for step, argument in steps:
        if step == "append":
            stream.log.extend(argument)
        elif step.startswith("join"):
            clients.append(Client())
            bench.subscribe(clients[-1].socket, stream, mode="snapshot" if "snapshot" in step else None, ack_id=1)
        elif step == "tick":
            bench.tick()
        elif step == "poll":
            bench.fanout.check_lagging()
        else:
            _move(bench, stream, clients[argument % len(clients)], step)
    stream.log.append(end)
    late = Client()
    bench.subscribe(late.socket, stream)
    for client in [*clients, late]:
        client.socket.reading = True
        client.socket.take()
    for _ in range(1000):
        if bench.fanout.stats() == EMPTY:
            break
        bench.fanout.check_lagging()
        bench.settle()
    whole = stream.snapshot()
    for client in [*clients, late]:
        client.read()
        assert (client.last, client.ends) == (stream.offset, 1)
        assert client.text == whole.text
        assert "".join(client.calls.values()) == "".join(call.arguments for call in whole.tool_calls)
        assert client.socket.closed is None
    assert (bench.fanout.stats(), stream.followers, bench.soon) == (EMPTY, 0, [])


def _move(bench: FanoutBench, stream: RequestStream, client: Client, step: str) -> None:
    if step == "cut":
        if client.socket.reading:
            client.read()
        bench.fanout.remove(client.socket)
        client.socket = FakeSocket()
        bench.subscribe(client.socket, stream, Position(client.epoch, client.last) if client.last else None)
    elif step == "stall":
        client.read()
        client.socket.reading = False
    elif step == "read":
        client.read()
    else:
        client.read()
        client.socket.reading = True


# --------------------------------------------------------------------------------------------------------- the actor


async def written(socket: FakeSocket, writes: int) -> None:
    """Wait until a socket has had this many writes."""
    while len(socket.writes) < writes:
        socket.news.clear()
        await socket.news.wait()


def spawn(
    system: System, *, high_water: int = HIGH_WATER
) -> "Ref[Subscribe | Unsubscribe | SocketClosed | DisconnectAll | DisconnectIdle | GetHubStats | ChannelMessage]":
    """Start a hub."""
    return system.spawn(lambda: SubscriptionHub(newline, high_water=high_water), name="hub")


async def test_the_actor_delivers() -> None:
    """Subscribe, follow, unsubscribe and close, through the mailbox."""
    async with System() as system:
        hub, socket, stream = spawn(system), FakeSocket(), stream_of(STARTED)
        await hub.ask(Subscribe(socket=socket, stream=stream, ack_id=1), timeout=5)
        stream.log.append(Delta("a"))
        await written(socket, 2)
        assert socket.offsets == [(1, 1), (2, 2)]
        assert await hub.ask(GetHubStats(), timeout=5) == HubStats(sockets=1, subscriptions=1, requests=1)
        assert await hub.ask(Unsubscribe(socket=socket, request_id="req_1"), timeout=5)
        await hub.ask(Subscribe(socket=socket, stream=stream), timeout=5)
        await hub.tell(SocketClosed(socket))
        assert await hub.ask(GetHubStats(), timeout=5) == EMPTY
        with pytest.raises(UnrecoverablePosition):
            await hub.ask(Subscribe(socket=socket, stream=stream, after=Position("k3", 9)), timeout=5)


async def test_the_actor_resumes_a_lagging_socket() -> None:
    """A socket that has drained gets the next frames without any other event."""
    async with System() as system:
        hub, socket, stream = spawn(system, high_water=100), FakeSocket(reading=False), stream_of(Delta("y" * 400))
        await hub.ask(Subscribe(socket=socket, stream=stream), timeout=5)
        await written(socket, 1)
        stream.log.append(Delta("a"), Delta("b"))
        await asyncio.sleep(0)
        socket.reading = True
        socket.take()
        await written(socket, 2)
        assert socket.offsets == [(1, 1), (2, 3)]


async def test_goodbye_is_staggered() -> None:
    """Every socket gets a delay of its own, and no new one is accepted."""
    async with System() as system:
        hub, sockets, stream = spawn(system), [FakeSocket() for _ in range(4)], stream_of(STARTED)
        for socket in sockets:
            await hub.ask(Subscribe(socket=socket, stream=stream, mode="live"), timeout=5)
        stream.log.append(Delta("last words"))
        assert await hub.ask(DisconnectAll(spread=8.0), timeout=5) == 4
        for index, socket in enumerate(sockets):
            *_, words, last_frame = socket.frames
            assert words["data"] == {"delta": "last words"}
            assert last_frame["type"] == "disconnect"
            assert 2000 * index <= last_frame["data"].pop("delayMs") <= 2000 * (index + 1)
            assert last_frame["data"] == {"code": 4001, "reason": "shutdown", "reconnect": True}
            assert socket.closed == (1000, "shutdown")
        assert stream.followers == 0
        with pytest.raises(ShuttingDown):
            await hub.ask(Subscribe(socket=FakeSocket(), stream=stream), timeout=5)


async def test_a_socket_stays_for_its_requests() -> None:
    """At a stop an idle socket is disconnected; one with requests gets the end of the last one before."""
    async with System() as system:
        hub = spawn(system)
        idle, busy, leaver = FakeSocket(), FakeSocket(), FakeSocket()
        first, second = stream_of(STARTED), stream_of(STARTED, request_id="req_2")
        third = stream_of(STARTED, COMPLETED, request_id="req_3")
        for socket, stream in ((busy, first), (busy, second), (leaver, first), (idle, third)):
            await hub.ask(Subscribe(socket=socket, stream=stream), timeout=5)
        await hub.ask(SubscribeChannel(socket=idle, tenant="", channel="room:7"), timeout=5)
        assert await hub.ask(DisconnectIdle(spread=8.0), timeout=5) == {busy, leaver}
        assert idle.closed == (1000, "shutdown")
        await hub.ask(Unsubscribe(socket=leaver, request_id="req_1"), timeout=5)
        await turn()
        assert leaver.closed == (1000, "shutdown")
        first.log.append(COMPLETED)
        await turn()
        closed = [busy.closed]
        second.log.append(Failed(code="shutting_down", message="m", temporary=True))
        await turn()
        assert [frame["type"] for frame in busy.frames[-3:]] == ["complete", "error", "disconnect"]
        assert 0 <= busy.frames[-1]["data"]["delayMs"] <= 8000
        assert [*closed, busy.closed] == [None, (1000, "shutdown")]
        assert await hub.ask(DisconnectAll(), timeout=5) == 0


async def turn() -> None:
    """Let the loop deliver what is due."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_hub_that_ends_closes_its_sockets() -> None:
    """Its sockets are closed, so that their clients subscribe again."""
    socket, stream = FakeSocket(), stream_of(STARTED)
    async with System() as system:
        await spawn(system).ask(Subscribe(socket=socket, stream=stream), timeout=5)
    assert socket.closed == (4010, "insufficient state")
    assert stream.followers == 0


def test_bounds_are_checked() -> None:
    """A bound below 1 is refused at construction."""
    with pytest.raises(ValueError, match="high_water must be positive, got 0"):
        SubscriptionHub(newline, high_water=0)
    with pytest.raises(ValueError, match="max_subscriptions must be positive, got -1"):
        SubscriptionHub(newline, max_subscriptions=-1)
