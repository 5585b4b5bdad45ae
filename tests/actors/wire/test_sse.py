from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.wire.sse import EventSplitter
from protocol.errors import ProviderError

TEXTS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1), max_size=5)


@given(TEXTS, st.sampled_from(["\n", "\r\n"]), st.lists(st.integers(0, 400), max_size=12))
def test_cuts_change_nothing(texts: list[str], end: str, cuts: list[int]) -> None:
    """The events are the same wherever the network cuts the stream, inside a character or a line end too."""
    stream = "".join(f": ping{end}id: 1{end}data: {text}{end}{end}" for text in texts).encode()
    bounds = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    splitter = EventSplitter()
    events = [event for start, stop in pairwise(bounds) for event in splitter.feed(stream[start:stop])]
    assert events == [text.encode() for text in texts]


@given(
    st.lists(
        st.sampled_from(["data: a", "data: b", "data: ", "data:", "data", "", "", ": c", "x", "\r", " "]), max_size=9
    )
)
def test_whole_events_read_as_their_bytes_do(lines: list[str]) -> None:
    """A stream in one piece gives the same events as byte by byte, also for the stream after it."""
    stream = "".join(f"{line}\n" for line in lines).encode()
    whole, cut = EventSplitter(), EventSplitter()
    for _ in range(2):
        assert whole.feed(stream) == [
            event for index in range(len(stream)) for event in cut.feed(stream[index : index + 1])
        ]


def test_byte_by_byte() -> None:
    """A stream of single bytes gives its events."""
    splitter = EventSplitter()
    stream = "data: é\r\n\r\ndata:x\n\n".encode()
    assert [event for index in range(len(stream)) for event in splitter.feed(stream[index : index + 1])] == [
        "é".encode(),
        b"x",
    ]


def test_several_data_lines_are_one_event() -> None:
    """The data lines of an event are joined; other fields are dropped."""
    assert EventSplitter().feed(b"event: e\ndata: a\ndata: b\nretry: 1\n\n:c\n\n\n") == [b"a\nb"]


def test_carriage_returns_end_lines_too() -> None:
    """A lone CR ends a line as LF does."""
    assert EventSplitter().feed(b"data: a\r\rdata: b\r\r\n") == [b"a", b"b"]


def test_an_unfinished_event_is_not_given() -> None:
    """An event without its blank line is not returned."""
    assert EventSplitter().feed(b"data: [DONE]\n") == []


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 9, b"data: xx\n", b"x" * 9])
def test_an_event_is_bounded(piece: bytes) -> None:
    """A line or an event without an end is refused at the limit."""
    splitter = EventSplitter(limit=64)

    def grow() -> None:
        for _ in range(100):
            splitter.feed(piece)

    with pytest.raises(ProviderError) as caught:
        grow()
    assert caught.value.code == "response_too_large"


def test_many_events_are_not_one_large_one() -> None:
    """The limit holds for each event, not for all events of a read or of a stream."""
    splitter = EventSplitter(limit=64)
    for _ in range(100):
        assert len(splitter.feed(b"data: 0123456789\n\n" * 10 + b"data: x")) >= 10
        splitter.feed(b"\n\n")
