"""The event log."""

import itertools
import typing
from typing import Any

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
    Content,
    Delta,
    Entry,
    Event,
    ReasoningDelta,
    RefusalDelta,
    Started,
    ToolCallDelta,
    VendorBlock,
)
from protocol.llm import ReasoningPart, ToolCall, Usage
from protocol.packed import PAGE_BYTES, PAGE_EVENTS, TEXT_FIELDS, EventRun, pack

STARTED = Started(model="m", created=1)
DONE = Completed(result=msgspec.Raw(b"{}"))
SAMPLES: dict[str, object] = {
    **dict.fromkeys(("text", "logprobs", "signature", "id", "name", "arguments", "provider", "model", "code"), "a"),
    **dict.fromkeys(("message", "reason", "finish_reason", "raw_finish_reason", "stop_sequence"), "stop"),
    "extra": {"openai": {"index": 1}},
    "dialect": "openai",
    **dict.fromkeys(("created", "index", "part", "retry_after_ms"), 1),
    **dict.fromkeys(("redacted", "restart", "temporary"), True),
    **dict.fromkeys(("errors", "parts"), ()),
    **dict.fromkeys(("result", "value"), msgspec.Raw(b"{}")),
    "usage": Usage(),
}
OTHERS: dict[str, object] = {name: "b" if isinstance(value, str) else value for name, value in SAMPLES.items()}


def read(log: EventLog, after: int = 0) -> list[tuple[int, Event]]:
    """Read everything above ``after`` page by page, each event with its offset."""
    found: list[tuple[int, Event]] = []
    while after < log.offset:
        page = log.since(after)
        found += [(entry.offset, entry.event) for entry in page]
        after = page[-1].offset
    return found


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


def test_old_entries_are_packed_and_none_is_lost() -> None:
    """Beyond the budget entries are packed: every reader gets all of them, the same frames of the newest ones."""
    log = EventLog(max_bytes=10 * (ENTRY_BYTES + 1))
    events: list[Event] = [STARTED, *map(Delta, "abcdefghijklmnopqrst"), DONE]
    log.listen(lambda: None)
    log.append(*events)
    assert list(log.events()) == events
    for after in range(len(events)):
        assert read(log, after) == list(enumerate(events[after:], after + 1))
    assert log.since(0)[0] is not log.since(0)[-1]
    assert log.since(20)[0] is log.since(20)[0]
    assert sum(page.count for page in log.pages()) == len(events) - 1
    snapshot = log.snapshot()
    assert snapshot.text == "abcdefghijklmnopqrst"
    assert snapshot.offset == log.offset - 1
    assert [entry.terminal for entry in log.since(snapshot.offset)] == [True]


def test_the_newest_entry_is_not_packed_however_large_it_is() -> None:
    """With a budget smaller than one entry the last one stays as it is."""
    log, last = EventLog(max_bytes=1), Delta(text="x" * 1000)
    log.append(STARTED, last)
    assert log.since(1)[0].event is last
    assert read(log) == [(1, STARTED), (2, last)]


def test_a_long_log_is_read_page_by_page() -> None:
    """A page is bounded in entries and in bytes, whatever the log's length."""
    log = EventLog(max_bytes=10_000)
    log.extend(Delta(text=f"{number} ") for number in range(3 * PAGE_EVENTS))
    log.extend(Delta(text="x" * 1000) for _ in range(200))
    cursor, sizes = 0, []
    while cursor < log.offset:
        page = log.since(cursor)
        sizes.append(len(page))
        cursor = page[-1].offset
    assert max(sizes[:3]) == PAGE_EVENTS
    assert max(sizes[3:]) <= PAGE_BYTES // 1000 + 10_000 // 1000
    assert log.size < 2 * len(log.snapshot().text)


def test_a_log_packed_in_small_steps_has_full_pages() -> None:
    """Small pages are joined: a small budget costs no more memory than a large one."""
    small, large = EventLog(max_bytes=1), EventLog()
    for log in (small, large):
        for number in range(5000):
            log.append(Delta(text=f"{number} "))
        log.append(DONE)
    assert small.size < 1.2 * large.size < 100_000


def test_readers_at_one_place_share_a_page() -> None:
    """The page that was read last is held while there is a listener, with its frames, and dropped with the last one."""
    log = EventLog(max_bytes=1)
    log.extend(Delta(text="x") for _ in range(100))

    def wake() -> None: ...

    assert log.since(5)[0] is not log.since(5)[0]
    log.listen(wake)
    assert log.since(5)[0] is log.since(5)[0]
    assert log.since(6)[0] is log.since(5)[1]
    log.append(DONE)
    log.unlisten(wake)
    assert log.since(5)[0] is not log.since(5)[0]


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
    log.since(1)[0].frame("native", lambda _: b"frame")
    log.unlisten(two)
    assert [entry.frames for entry in log.since(0)] == [None, None]


TEXT: st.SearchStrategy[str] = st.text(st.characters(exclude_categories=()), max_size=4)  # lone surrogates, too
CONTENT: st.SearchStrategy[Event] = st.one_of(
    st.builds(Delta, TEXT, st.sampled_from(["", "", '[{"token":"a"}]', "[]"]), st.integers(0, 2)),
    st.builds(ReasoningDelta, TEXT, st.sampled_from(["", "", "signed"]), st.booleans()),
    st.builds(ToolCallDelta, st.integers(0, 2), st.sampled_from(["", "call"]), st.sampled_from(["", "name"]), TEXT),
    st.builds(RefusalDelta, TEXT, st.integers(0, 2)),
    st.builds(VendorBlock, st.just("anthropic"), st.sampled_from([msgspec.Raw(b"{ }"), msgspec.Raw(b'{"a":1}')])),
    st.builds(AttemptFailed, provider=TEXT, model=TEXT, code=TEXT, restart=st.booleans()),
)
SAME: st.SearchStrategy[list[Event]] = st.tuples(CONTENT, st.integers(1, 12)).map(lambda found: [found[0]] * found[1])
LIKE: st.SearchStrategy[list[Event]] = st.lists(TEXT, max_size=12).map(lambda texts: [Delta(text) for text in texts])
EVENTS: st.SearchStrategy[list[Event]] = st.lists(st.one_of(st.lists(CONTENT, max_size=6), SAME, LIKE), max_size=9).map(
    lambda parts: [STARTED, *itertools.chain.from_iterable(parts)]
)


def logs_of(events: list[Event], ring: int, batch: int) -> tuple[EventLog, EventLog]:
    """Return a log that packs, and one that never does, with the same events in the same steps."""
    log, plain = EventLog(max_bytes=ring), EventLog(max_bytes=1 << 30)
    plain.listen(lambda: None)
    for start in range(0, len(events), batch):
        for one in (log, plain):
            one.extend(events[start : start + batch])
        if start % 4 == 0:
            assert log.snapshot() == plain.snapshot()
    return log, plain


@given(events=EVENTS, ring=st.integers(1, 8000), batch=st.integers(1, 9), end=st.sampled_from([(), (DONE,)]))
def test_packing_changes_nothing(events: list[Event], ring: int, batch: int, end: tuple[Event, ...]) -> None:
    """Whatever is packed when: from every offset each event is what was written there, and so is the content."""
    log, plain = logs_of([*events, *end], ring, batch)
    written = [*events, *end]
    assert list(log.events()) == written
    for after in range(len(written) + 1):
        assert read(log, after) == list(enumerate(written[after:], after + 1))
    for until in range(len(events)):
        assert log.snapshot(until) == plain.snapshot(until)
    assert log.snapshot() == plain.snapshot()


@given(events=EVENTS, ring=st.integers(1, 8000), batch=st.integers(1, 9))
def test_packed_pages_make_the_same_log(events: list[Event], ring: int, batch: int) -> None:
    """A replay of what the cache holds has the same entries and the same content."""
    log, plain = logs_of(events, ring, batch)
    replayed = EventLog(pages=log.pages(), max_bytes=ring)
    assert read(replayed) == read(plain)
    for one in (replayed, log):
        one.append(DONE)
        assert read(one) == [*read(plain), (len(events) + 1, DONE)]
        assert one.snapshot() == plain.snapshot()


def test_each_class_of_events_can_be_packed() -> None:
    """Fields are packed in the order of the class, whatever their types; a vendor's block stays as it is."""
    kind: Any
    for kind in typing.get_args(Event):
        fields = msgspec.structs.fields(kind)
        event = kind(**{field.name: SAMPLES[field.name] for field in fields})
        others = [msgspec.structs.replace(event, **{fields[0].name: OTHERS[fields[0].name]}), event] * 2
        (page,) = pack([event, *others])
        assert isinstance(page.parts[0], EventRun) == (kind is not VendorBlock)
        assert page.events() == [event, *others]


def test_vendor_blocks_are_packed_byte_for_byte_and_count_in_full() -> None:
    """Raw JSON keeps its spaces and its order, and its size bounds a page."""
    values = [msgspec.Raw(b'{ "b": 1,  "a": "%b" }' % (b"x" * size)) for size in (0, 9, 9, 40_000, 40_000)]
    events: list[Event] = [VendorBlock(dialect="anthropic", value=value, part=at) for at, value in enumerate(values)]
    pages = pack(events)
    found = [event for page in pages for event in page.events()]
    assert [bytes(event.value) for event in found if isinstance(event, VendorBlock)] == list(map(bytes, values))
    assert found == events
    assert [page.size <= PAGE_BYTES for page in pages] == [True] * len(pages)
    assert sum(page.size for page in pages) > 80_000


def test_content_that_grows_is_merged_without_unpacking_it() -> None:
    """Every class of content whose pieces add up is named; a new one is one line."""
    grow = set(typing.get_args(Content)) - {AttemptFailed, VendorBlock}
    assert grow == TEXT_FIELDS.keys()
    kind: Any
    for kind, name in TEXT_FIELDS.items():
        samples = {field.name: SAMPLES[field.name] for field in msgspec.structs.fields(kind)}
        fields = {other: type(value)() if isinstance(value, str | bool) else value for other, value in samples.items()}
        (page,) = pack([kind(**fields | {name: text}) for text in ("a", "", "bc", "d")])
        assert list(page.merged()) == [kind(**fields | {name: "abcd"})]
