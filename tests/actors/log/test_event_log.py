"""The event log."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.log.event_log import ENTRY_BYTES, EventLog
from protocol.errors import InternalError, UnrecoverablePosition
from protocol.events import (
    AttemptFailed,
    Cancelled,
    Completed,
    Delta,
    Entry,
    Event,
    ReasoningDelta,
    Snapshot,
    Started,
    ToolCallDelta,
)
from protocol.llm import ReasoningPart, ToolCall

STARTED = Started(model="m", created=1)
DONE = Completed(result=msgspec.Raw(b"{}"))


def text_of(batch: list[Entry | Snapshot]) -> str:
    """Join a reader's text: a snapshot replaces what came before it."""
    text = ""
    for item in batch:
        if isinstance(item, Snapshot):
            text = item.text
        elif isinstance(item.event, Delta):
            text += item.event.text
    return text


def test_offsets_are_contiguous_from_one() -> None:
    """The first entry has offset 1, and there is no gap."""
    log = EventLog()
    log.append(STARTED, Delta(text="a"))
    log.append(Delta(text="b"), DONE)
    assert [entry.offset for entry in log.since(0)] == [1, 2, 3, 4]
    assert [entry.offset for entry in log.since(2)] == [3, 4]
    assert log.since(4) == []


def test_nothing_follows_the_terminal_entry() -> None:
    """A later append raises, and the log stays as it was."""
    log = EventLog()
    log.append(STARTED, DONE)
    with pytest.raises(InternalError, match="the log has ended, Cancelled came after it"):
        log.append(Cancelled())
    assert log.offset == 2
    assert log.terminal is not None
    assert isinstance(log.terminal.event, Completed)


@pytest.mark.parametrize("after", [-1, 3])
def test_an_offset_outside_the_log_is_refused(after: int) -> None:
    """Reading from before the first or beyond the last entry raises."""
    log = EventLog()
    log.append(STARTED, Delta(text="a"))
    with pytest.raises(UnrecoverablePosition, match=f"offset {after} is not within 0..2"):
        log.since(after)


def test_a_batch_wakes_each_reader_once() -> None:
    """A reader is woken once per batch, and not after it has left."""
    log, woken = EventLog(), []
    log.listen(lambda: woken.append("other"))

    def wake() -> None:
        woken.append("one")

    log.listen(wake)
    log.append(STARTED, Delta(text="a"), Delta(text="b"))
    log.unlisten(wake)
    log.append(DONE)
    assert woken == ["other", "one", "other"]


def test_the_ring_is_bounded_and_the_snapshot_has_what_was_dropped() -> None:
    """Old entries are dropped; the snapshot has all the text."""
    log = EventLog(max_bytes=10 * (ENTRY_BYTES + 1))
    log.append(STARTED, *(Delta(text=character) for character in "abcdefghijklmnopqrst"), DONE)
    assert log.first > 1
    assert log.events() is None
    with pytest.raises(UnrecoverablePosition):
        log.since(0)
    snapshot = log.snapshot()
    assert snapshot.text == "abcdefghijklmnopqrst"
    assert snapshot.offset == log.offset - 1
    assert [entry.terminal for entry in log.since(snapshot.offset)] == [True]


def test_the_newest_entry_is_kept_however_large_it_is() -> None:
    """A ring smaller than one entry still holds the last one."""
    log = EventLog(max_bytes=1)
    log.append(STARTED, Delta(text="x" * 1000))
    assert log.first == log.offset == 2


def test_tool_calls_are_merged_by_their_index() -> None:
    """Pieces of parallel calls come interleaved; the snapshot has each call whole."""
    log = EventLog()
    log.append(
        ToolCallDelta(index=0, id="a", name="f", arguments='{"x"'),
        ToolCallDelta(index=1, id="b", name="g", arguments="{"),
        ToolCallDelta(index=0, arguments=":1}"),
        ToolCallDelta(index=1, arguments="}"),
    )
    assert log.snapshot().tool_calls == (
        ToolCall(id="a", name="f", arguments='{"x":1}'),
        ToolCall(id="b", name="g", arguments="{}"),
    )


def test_reasoning_is_merged_thought_by_thought() -> None:
    """A signature ends a thought; the last one may be unfinished, and a restart voids all."""
    log = EventLog(max_bytes=600)
    log.append(ReasoningDelta(text="h"), ReasoningDelta(text="m"), ReasoningDelta(signature="s"), Delta(text="Hi"))
    log.append(ReasoningDelta(text="so"))
    assert log.first > 1
    snapshot = log.snapshot()
    assert (snapshot.text, snapshot.reasoning) == ("Hi", "hmso")
    assert snapshot.thoughts == (ReasoningPart(text="hm", signature="s"), ReasoningPart(text="so"))
    log.append(ReasoningDelta(text="!"))
    assert log.snapshot().reasoning == "hmso!"
    log.append(AttemptFailed(provider="p", model="m", code="provider_error", restart=True))
    assert log.snapshot().thoughts == ()


def test_a_restart_voids_the_text_before_it_and_a_plain_boundary_does_not() -> None:
    """After a restart the snapshot begins anew, so text is never doubled."""
    log = EventLog()
    log.append(Delta(text="half"), AttemptFailed(provider="p", model="m", code="provider_error"))
    assert log.snapshot().text == "half"
    log.append(AttemptFailed(provider="p", model="m", code="provider_error", restart=True), Delta(text="whole"))
    assert log.snapshot().text == "whole"
    assert log.snapshot().offset == 4


def test_a_frame_is_built_once() -> None:
    """The first reader encodes it, and all others share it."""
    entry, built = Entry(1, Delta(text="a")), []

    def encode(entry: Entry) -> bytes:
        built.append(entry.offset)
        return b"frame"

    assert entry.frame("native", encode) is entry.frame("native", encode)
    assert built == [1]


def test_wire_frames_are_held_while_there_is_a_reader() -> None:
    """An ended log drops its frames with its last reader."""
    log = EventLog()
    log.append(STARTED, DONE)

    def one() -> None: ...
    def two() -> None: ...

    log.listen(one)
    log.listen(two)
    frame = log.since(0)[0].frame("native", lambda _: b"frame")
    log.unlisten(one)
    assert log.since(0)[0].frames == {"native": frame}
    log.unlisten(two)
    assert [entry.frames for entry in log.since(0)] == [None, None]


@given(
    texts=st.lists(st.text(max_size=20), max_size=60),
    ring=st.integers(1, 8000),
    cuts=st.lists(st.integers(0, 80), max_size=8),
    batch=st.integers(1, 9),
)
def test_a_reader_that_leaves_and_rejoins_anywhere_has_exactly_the_text(
    texts: list[str], ring: int, cuts: list[int], batch: int
) -> None:
    """For any ring size and any cut, a reader ends with the whole text, without gap or duplicate."""
    log = EventLog(max_bytes=ring)
    events: list[Event] = [STARTED, *(Delta(text=text) for text in texts), DONE]
    seen: list[Entry | Snapshot] = []
    cursor, ends = 0, 0
    for start in range(0, len(events), batch):
        log.append(*events[start : start + batch])
        if start in cuts:
            continue
        while cursor < log.offset:
            try:
                entries = list(log.since(cursor))
            except UnrecoverablePosition:
                snapshot = log.snapshot()
                assert snapshot.offset > cursor
                seen.append(snapshot)
                cursor = snapshot.offset
                continue
            assert [entry.offset for entry in entries] == list(range(cursor + 1, log.offset + 1))
            seen.extend(entries)
            cursor = log.offset
            ends += sum(entry.terminal for entry in entries)
    while cursor < log.offset:
        try:
            entries = list(log.since(cursor))
        except UnrecoverablePosition:
            seen.append(log.snapshot())
            cursor = log.snapshot().offset
            continue
        seen.extend(entries)
        cursor = log.offset
        ends += sum(entry.terminal for entry in entries)
    assert text_of(seen) == "".join(texts)
    assert ends == 1
