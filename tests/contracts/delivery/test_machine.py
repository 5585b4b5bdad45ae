"""Any events on an answer and its readers, in any order: no gap, no repetition, no reordering, and one end."""

import asyncio
import os
from typing import Any, Final

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule

from protocol.events import (
    AttemptFailed,
    Cancelled,
    Completed,
    Delta,
    Event,
    Failed,
    Position,
    ReasoningDelta,
    Started,
    ToolCallDelta,
)
from protocol.hub import HubStats, Mode
from tests.contracts.delivery.http_readers import EventReader, PollReader
from tests.contracts.delivery.readers import LoopReader, Reader, SocketReader
from tests.contracts.delivery.world import World

CASES: Final = int(os.environ.get("DELIVERY_CASES", "0")) or settings().max_examples // 2
MODES: Final[tuple[Mode | None, ...]] = (None, None, "replay", "snapshot", "live")
KINDS: Final = ("socket", "batch", "events", "reconnecting events", "poll", "reconnecting poll", "loop")
TICKS: Final = 1000  # in which everything is delivered
EMPTY: Final = HubStats(sockets=0, subscriptions=0, requests=0)
RESTART: Final = AttemptFailed(provider="p", model="m", code="provider_error", restart=True)
BOUNDARY: Final = AttemptFailed(provider="p", model="m", code="provider_error")
PLACE: Final = st.integers(0, 1)

PIECES: Final = st.lists(
    st.one_of(
        st.builds(
            lambda text, times: Delta(text * times), st.text(min_size=1, max_size=3), st.sampled_from([1, 1, 1, 9000])
        ),
        st.builds(lambda text, signed: ReasoningDelta(text, "s" * signed), st.text(max_size=3), st.booleans()),
        st.builds(lambda index, text: ToolCallDelta(index, arguments=text), PLACE, st.text(max_size=3)),
        st.sampled_from([RESTART, BOUNDARY]),
    ),
    min_size=1,
    max_size=5,
)


def reader_of(kind: str, world: World, place: int) -> Reader:
    """Return a client of this kind."""
    if kind in {"socket", "batch"}:
        return SocketReader(world, place, batch=kind == "batch")
    if kind == "loop":
        return LoopReader(world, place)
    shape = PollReader if kind.endswith("poll") else EventReader
    return shape(world, place, by_header=kind.startswith("reconnecting"))


class Machine(RuleBasedStateMachine):
    """Two requests that share one answer, and their readers."""

    readers: Bundle[Reader] = Bundle("readers")

    @initialize(
        target=readers,
        ring=st.sampled_from([1, 700, 3000, 1 << 20]),
        high_water=st.sampled_from([1, 300, 70_000]),
        place=PLACE,
    )
    def begin(self, ring: int, high_water: int, place: int) -> Any:  # noqa: ANN401 - as Hypothesis has it
        self.world = World(ring=ring, high_water=high_water)
        self.all: list[Reader] = []
        return multiple(*[self._new(kind, place if kind == "batch" else 0, None) for kind in KINDS])

    @rule(target=readers, kind=st.sampled_from(KINDS), place=PLACE, mode=st.sampled_from(MODES))
    def somebody_comes(self, kind: str, place: int, mode: Mode | None) -> Any:  # noqa: ANN401 - as Hypothesis has it
        return multiple() if self.world.gone else self._new(kind, place, mode)

    @precondition(lambda self: not self.world.log.ended)
    @rule(events=PIECES)
    def write(self, events: list[Event]) -> None:
        self._write(events)

    @precondition(lambda self: not self.world.log.ended)
    @rule(ticks=st.booleans())
    def write_a_lot(self, *, ticks: bool) -> None:
        """More than a small ring holds, at once or tick by tick."""
        for number in range(30):
            self._write([Delta(f"{number} ")])
            if ticks:
                self.world.tick()

    @precondition(lambda self: not self.world.log.ended)
    @rule(reader=readers)
    def flood(self, reader: Reader) -> None:
        """More than may be held for a reader that does not read; at the end all of it is void."""
        reader.stop_reading()
        for _ in range(20):
            self._write([Delta("x" * 15_000)])
            self.world.tick()
            self._write([RESTART])

    @precondition(lambda self: not self.world.log.ended)
    @rule(reader=readers, events=PIECES, more=PIECES)
    def fall_behind(self, reader: Reader, events: list[Event], more: list[Event]) -> None:
        """Read on later, and get what was missed in few frames."""
        self._write([Delta("x")])
        reader.stop_reading()
        for written in (events, more):
            self.world.tick()
            self._write(written)
        self.world.tick()
        reader.drain()
        self.world.fanout.check_lagging()

    @rule()
    def tick(self) -> None:
        self.world.tick()

    @rule(reader=readers)
    def cut(self, reader: Reader) -> None:
        """The connection breaks; what is not read yet is lost."""
        reader.receive()
        reader.save()
        reader.cut()

    @rule(reader=readers, mode=st.sampled_from(MODES))
    def come_back(self, reader: Reader, mode: Mode | None) -> None:
        if not self.world.gone:
            reader.connect(mode)

    @rule(reader=readers, mode=st.sampled_from(MODES))
    def wake_up(self, reader: Reader, mode: Mode | None) -> None:
        """Reconnect at an old position."""
        reader.go_back()
        self.come_back(reader, mode)

    @rule(reader=readers, mode=st.sampled_from(MODES), ahead=st.sampled_from([-2, 0, 1, 1000]))
    def connect_elsewhere(self, reader: Reader, mode: Mode | None, ahead: int) -> None:
        """Connect with a position of another log, or beyond the end."""
        if not self.world.gone:
            end = reader.stream.offset
            beyond = Position(self.world.log.epoch, end + ahead)
            reader.connect(mode, beyond if ahead > 0 else Position("elsewhere", end - ahead))

    @rule(reader=readers)
    def subscribe_again(self, reader: Reader) -> None:
        """On the same socket, at its position."""
        if isinstance(reader, SocketReader) and reader.connected and reader.attentive and not reader.ended:
            self._settle()
            self._look()
            if reader.connected:
                reader.mode = None
                reader.subscribe(None, reader.position)

    @rule(reader=readers)
    def stop_reading(self, reader: Reader) -> None:
        reader.stop_reading()

    @rule(reader=readers)
    def read_on(self, reader: Reader) -> None:
        reader.drain()

    @rule()
    def look_after_the_slow(self) -> None:
        self.world.fanout.check_lagging()

    @rule(seconds=st.sampled_from([1.0, 11.0, 16.0, 31.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.loop.now += seconds
        self.world.loop.turn()

    @rule(goodbye=st.booleans())
    def lose_the_hub(self, *, goodbye: bool) -> None:
        """Its readers reconnect to another hub."""
        if goodbye:
            self.world.fanout.disconnect_all("shutdown", 8.0)
        else:
            self.world.fanout.close_all(4010, "insufficient state")
        self.world.fanout = self.world.new_hub()

    @rule(place=PLACE)
    def cancel(self, place: int) -> None:
        """One of the two requests leaves; the answer goes on for the other."""
        self.world.cancel(place, Cancelled())

    @precondition(lambda self: not self.world.log.ended)
    @rule(well=st.booleans())
    def end(self, *, well: bool) -> None:
        self._begin()
        completed = Completed(parts=self.world.log.snapshot().parts)
        self.world.write(completed if well else Failed(code="provider_error", message="\n"))

    @precondition(lambda self: all(stream.ended for stream in self.world.streams))
    @rule()
    def expire(self) -> None:
        """The request is not found any more; its followers still get all of it."""
        self.world.gone = True

    @invariant()
    def what_comes_is_what_follows(self) -> None:
        if hasattr(self, "all"):
            self._look()

    @invariant()
    def memory_is_bounded(self) -> None:
        if hasattr(self, "all"):
            for reader in self.all:
                reader.check_bound()

    def teardown(self) -> None:
        """In the end every reader has everything, with one end, and nothing is left."""
        if not hasattr(self, "all"):
            return
        if not self.world.log.ended:
            self.end(well=True)
        for _ in range(TICKS):
            if all(reader.ended or (self.world.gone and not reader.connected) for reader in self.all):
                break
            self._everybody_reads()
        for reader in self.all:
            assert reader.ended or self.world.gone
            reader.cut()
        for stream in self.world.streams:
            assert stream.followers == 0
        assert self.world.fanout.stats() == EMPTY
        self.world.loop.turn()
        assert not asyncio.all_tasks(self.world.loop)
        self.world.loop.close()

    def _new(self, kind: str, place: int, mode: Mode | None) -> Reader:
        reader = reader_of(kind, self.world, place)
        self.all.append(reader)
        reader.connect(mode)
        return reader

    def _begin(self) -> None:
        if not self.world.log.offset:
            self.world.write(Started(model="m", created=0))

    def _write(self, events: list[Event]) -> None:
        """Write as an upstream does: the first entry first, and tool calls numbered from 0."""
        self._begin()
        for event in events:
            if isinstance(event, ToolCallDelta):
                calls = len(self.world.log.snapshot().tool_calls)
                event = msgspec.structs.replace(event, index=min(event.index, calls))  # noqa: PLW2901 - the same piece
            self.world.write(event)

    def _everybody_reads(self) -> None:
        for reader in self.all:
            reader.drain()
            if not self.world.gone:
                reader.connect()
        self._settle()
        self._look()

    def _settle(self) -> None:
        for _ in range(TICKS):
            if not self.world.soon:
                break
            self.world.tick()
        else:
            raise AssertionError("it does not come to rest")
        self.world.fanout.check_lagging()
        self.world.tick()

    def _look(self) -> None:
        for reader in self.all:
            reader.receive()


pytestmark = pytest.mark.timeout(60 + CASES)

TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=CASES, stateful_step_count=40)
