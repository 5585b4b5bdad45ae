"""Native frames, with and without the partial value."""

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from actors.log.event_log import EventLog
from actors.log.frames import snapshot_frame, update_frames
from actors.requests.stream import RequestStream
from protocol.events import AttemptFailed, Cancelled, Completed, Delta, Event, Started, ToolCallDelta

STARTED = Started(model="m", created=1)
DONE = Completed(result=msgspec.Raw(b'{"a": 1}'))
RESTART = AttemptFailed(provider="p", model="m", code="provider_error", restart=True)


def stream_of(*events: Event, partial: bool = True) -> RequestStream:
    """Return a stream with these entries in its log."""
    log = EventLog(epoch="k3")
    log.extend(events)
    return RequestStream("req_1", log, partial=partial)


def partials(frames: Iterable[bytes]) -> list[Any]:
    """Return the partial value of each frame."""
    return [json.loads(frame).get("data", {}).get("partial", "none") for frame in frames]


@pytest.mark.parametrize("merged", [False, True])
def test_the_last_update_has_the_value(merged: bool) -> None:
    """In addition to its own delta."""
    stream = stream_of(STARTED, Delta('{"a": 1'), Delta(', "b": "x'))
    frames = update_frames(stream, stream.since(0), merged=merged)
    assert partials(frames) == ["none"] * (len(frames) - 1) + [{"a": 1, "b": "x"}]
    assert json.loads(frames[-1])["data"]["delta"].endswith(', "b": "x')


@pytest.mark.parametrize("merged", [False, True])
def test_the_end_comes_after_the_value(merged: bool) -> None:
    """The readers of a failed request have the last value."""
    stream = stream_of(STARTED, Delta('{"a": '), Delta("1, "), Cancelled())
    frames = update_frames(stream, stream.since(0), merged=merged)
    assert json.loads(frames[-1])["type"] == "error"
    assert partials(frames)[-2:] == [{"a": 1}, "none"]


def test_earlier_entries_have_no_value() -> None:
    """Their reader does not have the text of that value yet."""
    stream = stream_of(STARTED, Delta('{"a": '), Delta("1, "))
    assert partials(update_frames(stream, stream.since(0)[:2])) == ["none", "none"]


def test_without_text_there_is_no_value() -> None:
    """Neither before the first piece, nor for tool calls, nor for a terminal entry alone."""
    stream = stream_of(STARTED, ToolCallDelta(index=0, name="f", arguments="{}"))
    assert partials(update_frames(stream, stream.since(0))) == ["none", "none"]
    stream.log.append(DONE)
    assert partials(update_frames(stream, stream.since(2))) == ["none"]


@pytest.mark.parametrize("merged", [False, True])
def test_after_a_restart_the_value_begins_anew(merged: bool) -> None:
    """The void content is not part of it."""
    stream = stream_of(STARTED, Delta('{"old": "'))
    assert partials(update_frames(stream, stream.since(1), merged=merged)) == [{"old": ""}]
    stream.log.append(Delta("x"), RESTART)
    assert "none" in partials(update_frames(stream, stream.since(2), merged=merged))[-1]
    stream.log.append(Delta('{"new": "'))
    assert partials(update_frames(stream, stream.since(4), merged=merged)) == [{"new": ""}]


def test_a_snapshot_has_the_value() -> None:
    """A late reader has it at once; a request that has left has the value at its own end."""
    stream = stream_of(STARTED, Delta('{"a": "x'))
    stream.cut(Cancelled())
    stream.log.append(Delta("yz"))
    frame = json.loads(snapshot_frame(stream, stream.snapshot()))
    assert frame["data"] == {
        "text": '{"a": "x',
        "parts": [{"type": "text", "text": '{"a": "x'}],
        "partial": {"a": "x"},
    }
    assert (frame["snapshot"], frame["offset"]) == (True, 2)


def test_a_request_without_partial_has_no_value() -> None:
    """Requests that share a log each have the value only if they request it."""
    asked = stream_of(STARTED, Delta("[1, "))
    other = RequestStream("req_2", asked.log)
    assert partials(update_frames(other, other.since(0))) == ["none", "none"]
    assert partials([snapshot_frame(other, other.snapshot())]) == ["none"]
    assert partials(update_frames(asked, asked.since(0))) == ["none", [1]]


def test_an_ended_stream_without_followers_drops_the_value() -> None:
    """It is computed again for a later reader."""
    stream = stream_of(STARTED, Delta("[1, "), DONE)
    for _ in range(2):
        stream.listen(print)
        assert partials(update_frames(stream, stream.since(0)))[1] == [1]
        stream.unlisten(print)


def test_entries_hold_nothing_of_the_value() -> None:
    """A log's memory does not depend on its followers."""
    stream = stream_of(STARTED, Delta('{"a": "x'))
    update_frames(stream, stream.since(0))
    assert [b"partial" in frame for entry in stream.since(0) for frame in (entry.frames or {}).values()] == [
        False,
        False,
    ]
