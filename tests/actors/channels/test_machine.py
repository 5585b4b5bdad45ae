"""Any events in any order, with any number of followers: no gap, no duplicate, no reordering, no lost reader."""

from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from actors.channels.limits import ChannelLimits, HistoryLimits
from protocol.channels import GetHistory
from protocol.errors import UnrecoverablePosition
from protocol.events import Position
from protocol.hub import Mode
from tests.actors.channels.bench import TENANT, ChannelsBench, FakeSocket

CHANNELS: Final = ("room:1", "room:2")
HISTORY: Final = HistoryLimits(entries=5, size=6000, ttl=60.0)
LIMITS: Final = ChannelLimits(history=HISTORY, size=9000)
HIGH_WATER: Final = 6000  # more than a tick brings, so that who reads is never left alone


class Follower:
    """A client that follows one channel, keeps its position, and comes back to it.

    Attributes:
        position: up to where it has everything; None before its first subscription.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.socket: FakeSocket | None = None
        self.position: Position | None = None
        self.asked: Position | None = None
        self.read = 0
        self.always_read = True

    def check_frames(self, truth: dict[tuple[str, str, int], int]) -> None:
        """Read the new frames, and check that they follow the position."""
        assert self.socket is not None
        for frame in self.socket.frames[self.read :]:
            self._take(frame, truth)
        self.read = len(self.socket.frames)

    def _take(self, frame: dict[str, Any], truth: dict[tuple[str, str, int], int]) -> None:
        assert frame["channel"] == self.channel
        if frame["type"] == "ack":
            now = Position(frame["data"]["epoch"], frame["data"]["offset"])
            recovered = self.asked is not None and frame["data"]["recovered"]
            assert frame["data"]["recovered"] or self.asked is not None
            self.position = self.asked if recovered else now
            return
        assert self.position is not None
        assert frame["offset"] == self.position.offset + 1
        assert frame["data"]["n"] == truth[self.channel, self.position.epoch, frame["offset"]]
        self.position = Position(self.position.epoch, frame["offset"])


class Machine(RuleBasedStateMachine):
    """Two channels with short histories, and their followers."""

    followers: Bundle[Follower] = Bundle("followers")

    @initialize(target=followers)
    def begin(self) -> Any:  # noqa: ANN401 - as Hypothesis has it
        self.bench = ChannelsBench(high_water=HIGH_WATER, limits=LIMITS)
        self.everybody: list[Follower] = []
        self.truth: dict[tuple[str, str, int], int] = {}
        self.count = 0
        return multiple(*[self.new_follower(channel) for channel in CHANNELS for _ in range(2)])

    @rule(target=followers, channel=st.sampled_from(CHANNELS))
    def somebody_comes(self, channel: str) -> Follower:
        return self.new_follower(channel)

    def new_follower(self, channel: str) -> Follower:
        """Return a client without a position."""
        follower = Follower(channel)
        self.everybody.append(follower)
        self._connect(follower, strict=False)
        return follower

    @rule(channel=st.sampled_from(CHANNELS), count=st.integers(1, 12), size=st.integers(0, 400))
    def publish(self, channel: str, count: int, size: int) -> None:
        for _ in range(count):
            self.count += 1
            position = self.bench.publish({"n": self.count, "x": "x" * size}, channel=channel).position
            self.truth[channel, position.epoch, position.offset] = self.count

    @rule(channel=st.sampled_from(CHANNELS))
    def publish_for_long(self, channel: str) -> None:
        """Over many ticks: a client that does not read falls behind, and then out of the history."""
        for _ in range(30):
            self.publish(channel, 1, 300)
            self.bench.tick()

    @rule(channel=st.sampled_from(CHANNELS), key=st.sampled_from("ab"))
    def publish_with_a_key(self, channel: str, key: str) -> None:
        """The first time it is a publication; later it is a repetition."""
        found = self.bench.publish({"n": 0}, channel=channel, key=key)
        place = (channel, found.position.epoch, found.position.offset)
        assert found.replayed == (place in self.truth)
        self.truth.setdefault(place, 0)

    @rule()
    def tick(self) -> None:
        self.bench.tick()

    @rule(follower=followers)
    def cut(self, follower: Follower) -> None:
        """The connection breaks; frames that are not read yet are lost."""
        if follower.socket is not None:
            follower.check_frames(self.truth)
            self.bench.disconnect(follower.socket)
            follower.socket = None

    @rule(follower=followers, strict=st.booleans())
    def come_back(self, follower: Follower, strict: bool) -> None:
        if follower.socket is None:
            self._connect(follower, strict=strict)

    @rule(follower=followers)
    def miss_a_little(self, follower: Follower) -> None:
        """Reconnect in the middle of a burst."""
        self.cut(follower)
        self.publish(follower.channel, 2, 10)
        self.bench.settle()
        self.come_back(follower, strict=False)
        self.publish(follower.channel, 12, 10)

    @rule(follower=followers, away=st.sampled_from([0.0, 400.0]))
    def miss_a_lot(self, follower: Follower, away: float) -> None:
        """More than the history holds."""
        self.cut(follower)
        self.publish_for_long(follower.channel)
        self.time_passes(away)
        self.publish(follower.channel, 1, 10)
        self.come_back(follower, strict=False)

    @rule(follower=followers)
    def subscribe_again(self, follower: Follower) -> None:
        """On the same socket, at its position; frames in transit come before the acknowledgement."""
        if follower.socket is not None and follower.socket.reading and not follower.socket.held:
            self.bench.settle()
            self._look(follower)
            if follower.socket is not None:
                follower.asked = follower.position
                self.bench.subscribe(follower.socket, follower.position, channel=follower.channel, ack_id=1)

    @rule(follower=followers)
    def stop_reading(self, follower: Follower) -> None:
        if follower.socket is not None:
            follower.socket.reading = False
            follower.always_read = False

    @rule(follower=followers)
    def read_on(self, follower: Follower) -> None:
        if follower.socket is not None:
            follower.socket.reading = True
            follower.socket.take()

    @rule()
    def poll(self) -> None:
        self.bench.fanout.check_lagging()

    @rule(seconds=st.sampled_from([1.0, 29.0, 31.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        """Also in the middle of a tick."""
        self.bench.now += seconds
        self.bench.channels.sweep()

    @rule(follower=consumes(followers))
    def leave_for_good(self, follower: Follower) -> None:
        if follower.socket is not None:
            self.bench.disconnect(follower.socket)
        self.everybody.remove(follower)

    @invariant()
    def what_comes_follows(self) -> None:
        for follower in self.everybody:
            self._look(follower)

    @invariant()
    def memory_is_bounded(self) -> None:
        for channel in CHANNELS:
            history = self.bench.channels.history(GetHistory(tenant=TENANT, channel=channel))
            assert len(history.publications) <= HISTORY.entries
            offsets = [publication.offset for publication in history.publications]
            assert offsets == list(range(history.offset - len(offsets) + 1, history.offset + 1))

    def teardown(self) -> None:
        """In the end every connected follower has everything."""
        for follower in self.everybody:
            if follower.socket is not None:
                self.read_on(follower)
        for _ in range(3):
            self.bench.settle()
            self.bench.fanout.check_lagging()
        for follower in self.everybody:
            self._look(follower)
            if follower.socket is not None:
                history = self.bench.channels.history(GetHistory(tenant=TENANT, channel=follower.channel))
                assert follower.position == Position(history.epoch, history.offset)

    def _connect(self, follower: Follower, *, strict: bool) -> None:
        socket = FakeSocket()
        follower.asked, follower.read, follower.always_read = follower.position, 0, True
        mode: Mode | None = "replay" if strict and follower.position is not None else None
        try:
            self.bench.subscribe(socket, follower.position, mode=mode, channel=follower.channel, ack_id=1)
        except UnrecoverablePosition:
            assert mode == "replay"
            follower.position = None
        else:
            follower.socket = socket

    def _look(self, follower: Follower) -> None:
        socket = follower.socket
        if socket is None:
            return
        follower.check_frames(self.truth)
        if socket.closed is not None:
            assert socket.closed == (4008, "slow_consumer")
            assert not follower.always_read
            socket.take()
            follower.check_frames(self.truth)
            self.bench.disconnect(socket)
            follower.socket = None


TestMachine = Machine.TestCase
TestMachine.settings = settings(stateful_step_count=40, deadline=None)
