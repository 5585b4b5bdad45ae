from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.wire.sse import EventSplitter
from protocol.errors import ProviderError
from protocol.reading.loose import split_name

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


def test_an_unfinished_event_is_not_given_before_the_end() -> None:
    """An event without its blank line is returned only at the end of the stream."""
    splitter = EventSplitter()
    assert splitter.feed(b"data: [DONE]\n") == []
    assert splitter.end() == [b"[DONE]"]


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


def events_of(*chunks: bytes, limit: int = 1024 * 1024) -> list[bytes]:
    """The events of a stream, to its end."""
    splitter = EventSplitter(limit)
    return [event for chunk in chunks for event in splitter.feed(chunk)] + splitter.end()


@pytest.mark.parametrize("cut", range(1, 12))
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_byte_order_mark_is_dropped(end: bytes, cut: int) -> None:
    """Wherever the network cuts it, and whatever ends the lines."""
    stream = b"\xef\xbb\xbfdata: a" + end + end + b"data: b" + end + end
    assert events_of(stream[:cut], stream[cut:]) == [b"a", b"b"]


@pytest.mark.parametrize("last", [b"data: b", b"data: b\n", b"data: b\r", b"data: b\r\n\r\n"])
def test_the_last_event_needs_no_blank_line(last: bytes) -> None:
    """The end of the stream ends it."""
    assert events_of(b"data: a\n\n" + last) == [b"a", b"b"]


def test_events_without_data_are_none() -> None:
    """Empty ``data`` lines, and events without any, are dropped."""
    assert events_of(b"data:\n\ndata: \n\ndata\n\nevent: x\n\n: c\n\ndata: a\n\n") == [b"a"]


def test_a_name_comes_where_the_data_does_not_say_it() -> None:
    """An ``error``, and Anthropic's names that the data lacks; no other event has a name."""
    stream = b'event: error\ndata: boom\n\nevent: ping\ndata: {"type": "ping"}\n\nevent: message_stop\ndata: {}\n\n'
    events = events_of(stream + b"event: chunk\ndata: {}\n\nevent: ping\n\ndata: a\n\n")
    assert [split_name(event)[::-1] for event in events] == [
        (b"boom", "error"),
        (b'{"type": "ping"}', ""),
        (b"{}", "message_stop"),
        (b"{}", ""),
        (b"a", ""),
    ]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n  \r\n \t\n"])
@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b'{"a":\n 1\n}', [b'{"a":\n 1\n}']),
        (b'[{"error": 1}]\n', [b'[{"error": 1}]']),
        (b'{"a":1}\n{"b":2}\r\n\n{"c":3}', [b'{"a":1}', b'{"b":2}', b'{"c":3}']),
        (b'{"a":"\xff"}{"b":NaN}', [b'{"a":"\xff"}', b'{"b":NaN}']),
        (b'{"a":1}\n\ndata: [DONE]\n\n', [b'{"a":1}', b"data: [DONE]"]),
        (b'{"a":1}\n{"b":', [b'{"a":1}', b'{"b":']),
        (b"{nonsense}", [b"{nonsense}"]),
        (b"[\n1" + b"\n" * 70_000 + b"]", [b"[\n1" + b"\n" * 70_000 + b"]"]),
        (b"[\n1" + b"\n" * 70_000, [b"[\n1"]),
    ],
)
def test_json_in_the_place_of_a_stream_is_one_event(start: bytes, body: bytes, events: list[bytes]) -> None:
    """Or an event a value, where more follow; what is left behind the last one is an event, too."""
    stream = start + body
    assert events_of(stream) == events_of(*(stream[at : at + 1] for at in range(len(stream)))) == events


@pytest.mark.parametrize(
    "unit", [b"\n", b"\r\n", b"\r", b": ping\n\n", b"data:\n\n", b"event: x\n", b": " + b"x" * 999 + b"\n"]
)
@pytest.mark.parametrize("start", [b"", b"data: a\n\n"])
def test_what_comes_without_events_is_bounded(unit: bytes, start: bytes) -> None:
    """In lines, and in bytes."""
    with pytest.raises(ProviderError) as caught:
        events_of(start, *[unit * (65_536 // len(unit))] * 4000)
    assert caught.value.code == "response_too_large"


def test_keep_alives_of_a_day_are_no_bomb() -> None:
    """A comment now and then never reaches the bound where events come between."""
    splitter = EventSplitter()
    for _ in range(200):
        splitter.feed(b": ping\n\n" * 600)
        assert splitter.feed(b"data: a\n\n") == [b"a"]


@pytest.mark.parametrize("body", [b'{"a": "' + b"x" * 57 + b'"}', b"{}\n" * 70_000])
def test_a_whole_answer_is_bounded(body: bytes) -> None:
    """In bytes, as an event is, and in values."""
    assert len(events_of(b'{"a": "', b"x" * 50, b'"}', limit=64)) == 1
    with pytest.raises(ProviderError) as caught:
        events_of(body, limit=64 if len(body) < 99 else 1024 * 1024)
    assert caught.value.code == "response_too_large"


def test_a_whole_answer_needs_no_end() -> None:
    """What is complete is given on request, once, and so is what comes after it; what is not complete is not."""
    splitter = EventSplitter()
    found = []
    for chunk in (b'{"a":{}', b"}", b" ", b"\n", b'{"b":1}\n{"c":2}\n', b'{"d"', b":[]"):
        assert splitter.feed(chunk) == []
        found.append(splitter.complete())
    assert found == [[], [b'{"a":{}}'], [], [], [b'{"b":1}', b'{"c":2}'], [], []]
    assert splitter.end() == [b'{"d":[]']


def test_looking_for_the_end_of_a_whole_answer_is_bounded() -> None:
    """An answer with a bracket at the end of each read is looked at some times only."""
    splitter, looked = EventSplitter(limit=1000), 0
    for number in range(90):
        splitter.feed(b"[[[" if not number else b"[{},{}],")
        splitter.feed(b"[]")
        looked += splitter._tries >= 0
        assert splitter.complete() == []
    assert 5 < looked < 40
