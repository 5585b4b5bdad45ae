"""A request's view of a log."""

import msgspec
import pytest

from actors.log.event_log import EventLog
from actors.requests.stream import RequestStream, status_of
from protocol.errors import UnrecoverablePosition
from protocol.events import Cancelled, Completed, Delta, Failed, Started

STARTED = Started(model="m", created=1)
DONE = Completed(result=msgspec.Raw(b"{}"))


def test_a_view_that_is_cut_ends_and_the_log_goes_on() -> None:
    """A request that leaves a shared log ends at the next offset; the other views do not see it."""
    log = EventLog()
    log.append(STARTED, Delta(text="a"))
    left, stayed = RequestStream("req_1", log), RequestStream("req_2", log)
    woken: list[str] = []
    left.listen(lambda: woken.append("left"))
    left.cut(Cancelled())
    log.append(Delta(text="b"), DONE)
    assert woken[0] == "left"
    assert left.ended
    assert [type(entry.event) for entry in left.since(0)] == [Started, Delta, Cancelled]
    assert [entry.offset for entry in left.since(1)] == [2, 3]
    assert left.since(3) == []
    assert left.snapshot().text == "a"
    with pytest.raises(UnrecoverablePosition):
        left.since(4)
    assert [type(entry.event) for entry in stayed.since(0)] == [Started, Delta, Delta, Completed]


def test_a_view_that_has_ended_is_not_cut_again() -> None:
    """The first end counts."""
    log = EventLog()
    log.append(STARTED, DONE)
    stream = RequestStream("req_1", log)
    stream.cut(Cancelled())
    assert stream.terminal is not None
    assert isinstance(stream.terminal.event, Completed)


def test_the_first_and_the_last_follower_are_reported() -> None:
    """`on_followers` is called for the first follower and for the last one that leaves."""
    told: list[tuple[str, int]] = []
    stream = RequestStream("req_1", EventLog(), on_followers=lambda request_id, count: told.append((request_id, count)))

    def one() -> None: ...
    def two() -> None: ...

    stream.listen(one)
    stream.listen(two)
    stream.unlisten(one)
    stream.unlisten(one)
    stream.unlisten(two)
    assert told == [("req_1", 1), ("req_1", 0)]
    assert stream.followers == 0


def test_the_status_follows_the_log() -> None:
    """A request is pending until the log has more than its first entry, then running, then ended."""
    log = EventLog()
    stream, other = RequestStream("req_1", log), RequestStream("req_2", log)
    log.append(STARTED)
    assert status_of(stream) == "pending"
    log.append(Delta(text="a"))
    assert status_of(stream) == "running"
    other.cut(Cancelled())
    assert status_of(other) == "cancelled"
    log.append(Failed(code="provider_error", message="x"))
    assert status_of(stream) == "failed"
