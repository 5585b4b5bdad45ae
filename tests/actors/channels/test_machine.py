"""Whatever happens, in any order, to any number of followers: no gap, no duplicate, no reorder, and no silence."""

from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from actors.channels.limits import ChannelLimits, HistoryLimits
from protocol.channels import GetHistory
from protocol.errors import UnrecoverablePosition
from protocol.events import Position
from protocol.hub import Mode
from tests.actors.channels.room import TENANT, House, Link

ROOMS: Final = ("room:1", "room:2")
HISTORY: Final = HistoryLimits(entries=5, size=6000, ttl=60.0)
LIMITS: Final = ChannelLimits(history=HISTORY, size=9000)
HIGH_WATER: Final = 6000  # more than a tick brings, so that who reads is never left alone


class Follower:
    """A client that follows one room, keeps its position, and comes back to it.

    Attributes:
        position: up to where it has everything; None before its first subscription.
    """

    def __init__(self, room: str) -> None:
        self.room = room
        self.link: Link | None = None
        self.position: Position | None = None
        self.asked: Position | None = None
        self.read = 0
        self.always_read = True

    def hear(self, truth: dict[tuple[str, str, int], int]) -> None:
        """Take what has come, and see that it is what follows."""
        assert self.link is not None
        for frame in self.link.frames[self.read :]:
            self._take(frame, truth)
        self.read = len(self.link.frames)

    def _take(self, frame: dict[str, Any], truth: dict[tuple[str, str, int], int]) -> None:
        assert frame["channel"] == self.room
        if frame["type"] == "ack":
            now = Position(frame["data"]["epoch"], frame["data"]["offset"])
            recovered = self.asked is not None and frame["data"]["recovered"]
            assert frame["data"]["recovered"] or self.asked is not None
            self.position = self.asked if recovered else now
            return
        assert self.position is not None
        assert frame["offset"] == self.position.offset + 1
        assert frame["data"]["n"] == truth[self.room, self.position.epoch, frame["offset"]]
        self.position = Position(self.position.epoch, frame["offset"])


class Machine(RuleBasedStateMachine):
    """Two rooms with short histories, and their followers."""

    followers: Bundle[Follower] = Bundle("followers")

    @initialize(target=followers)
    def begin(self) -> Any:  # noqa: ANN401 - as Hypothesis has it
        self.house = House(high_water=HIGH_WATER, limits=LIMITS)
        self.everybody: list[Follower] = []
        self.truth: dict[tuple[str, str, int], int] = {}
        self.count = 0
        return multiple(*[self.somebody_new(room) for room in ROOMS for _ in range(2)])

    @rule(target=followers, room=st.sampled_from(ROOMS))
    def somebody_comes(self, room: str) -> Follower:
        return self.somebody_new(room)

    def somebody_new(self, room: str) -> Follower:
        """Return a client that has nothing."""
        follower = Follower(room)
        self.everybody.append(follower)
        self._connect(follower, strict=False)
        return follower

    @rule(room=st.sampled_from(ROOMS), count=st.integers(1, 12), size=st.integers(0, 400))
    def publish(self, room: str, count: int, size: int) -> None:
        for _ in range(count):
            self.count += 1
            position = self.house.publish({"n": self.count, "x": "x" * size}, channel=room).position
            self.truth[room, position.epoch, position.offset] = self.count

    @rule(room=st.sampled_from(ROOMS))
    def talk(self, room: str) -> None:
        """For many ticks: who does not read falls behind, and then out of the history."""
        for _ in range(30):
            self.publish(room, 1, 300)
            self.house.tick()

    @rule(room=st.sampled_from(ROOMS), key=st.sampled_from("ab"))
    def publish_with_a_key(self, room: str, key: str) -> None:
        """The first time it is a publication; after that it is nothing new."""
        found = self.house.publish({"n": 0}, channel=room, key=key)
        place = (room, found.position.epoch, found.position.offset)
        assert found.replayed == (place in self.truth)
        self.truth.setdefault(place, 0)

    @rule()
    def tick(self) -> None:
        self.house.tick()

    @rule(follower=followers)
    def cut(self, follower: Follower) -> None:
        """The connection breaks; what was under way and not yet read is lost."""
        if follower.link is not None:
            follower.hear(self.truth)
            self.house.hang_up(follower.link)
            follower.link = None

    @rule(follower=followers, strict=st.booleans())
    def come_back(self, follower: Follower, strict: bool) -> None:
        if follower.link is None:
            self._connect(follower, strict=strict)

    @rule(follower=followers)
    def miss_a_little(self, follower: Follower) -> None:
        """And come back into the middle of a burst."""
        self.cut(follower)
        self.publish(follower.room, 2, 10)
        self.house.settle()
        self.come_back(follower, strict=False)
        self.publish(follower.room, 12, 10)

    @rule(follower=followers, away=st.sampled_from([0.0, 400.0]))
    def miss_a_lot(self, follower: Follower, away: float) -> None:
        """More than is held."""
        self.cut(follower)
        self.talk(follower.room)
        self.time_passes(away)
        self.publish(follower.room, 1, 10)
        self.come_back(follower, strict=False)

    @rule(follower=followers)
    def subscribe_again(self, follower: Follower) -> None:
        """On the same socket, from where it is; frames that are under way come before the acknowledgement."""
        if follower.link is not None and follower.link.reading and not follower.link.held:
            self.house.settle()
            self._look(follower)
            if follower.link is not None:
                follower.asked = follower.position
                self.house.subscribe(follower.link, follower.position, channel=follower.room, ack_id=1)

    @rule(follower=followers)
    def stop_reading(self, follower: Follower) -> None:
        if follower.link is not None:
            follower.link.reading = False
            follower.always_read = False

    @rule(follower=followers)
    def read_on(self, follower: Follower) -> None:
        if follower.link is not None:
            follower.link.reading = True
            follower.link.take()

    @rule()
    def poll(self) -> None:
        self.house.fanout.poll()

    @rule(seconds=st.sampled_from([1.0, 29.0, 31.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        """Also in the middle of a tick."""
        self.house.now += seconds
        self.house.channels.sweep()

    @rule(follower=consumes(followers))
    def leave_for_good(self, follower: Follower) -> None:
        if follower.link is not None:
            self.house.hang_up(follower.link)
        self.everybody.remove(follower)

    @invariant()
    def what_comes_follows(self) -> None:
        for follower in self.everybody:
            self._look(follower)

    @invariant()
    def memory_is_bounded(self) -> None:
        for room in ROOMS:
            history = self.house.channels.history(GetHistory(tenant=TENANT, channel=room))
            assert len(history.publications) <= HISTORY.entries
            offsets = [publication.offset for publication in history.publications]
            assert offsets == list(range(history.offset - len(offsets) + 1, history.offset + 1))

    def teardown(self) -> None:
        """In the end everybody who is still connected has everything."""
        for follower in self.everybody:
            if follower.link is not None:
                self.read_on(follower)
        for _ in range(3):
            self.house.settle()
            self.house.fanout.poll()
        for follower in self.everybody:
            self._look(follower)
            if follower.link is not None:
                history = self.house.channels.history(GetHistory(tenant=TENANT, channel=follower.room))
                assert follower.position == Position(history.epoch, history.offset)

    def _connect(self, follower: Follower, *, strict: bool) -> None:
        link = Link()
        follower.asked, follower.read, follower.always_read = follower.position, 0, True
        mode: Mode | None = "replay" if strict and follower.position is not None else None
        try:
            self.house.subscribe(link, follower.position, mode=mode, channel=follower.room, ack_id=1)
        except UnrecoverablePosition:
            assert mode == "replay"
            follower.position = None
        else:
            follower.link = link

    def _look(self, follower: Follower) -> None:
        link = follower.link
        if link is None:
            return
        follower.hear(self.truth)
        if link.closed is not None:
            assert link.closed == (4008, "slow_consumer")
            assert not follower.always_read
            link.take()
            follower.hear(self.truth)
            self.house.hang_up(link)
            follower.link = None


TestMachine = Machine.TestCase
TestMachine.settings = settings(stateful_step_count=40, deadline=None)
