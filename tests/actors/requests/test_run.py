"""A run is the only writer of its log."""

from decimal import Decimal

import msgspec
import pytest

from actors.requests.run import Run
from actors.requests.stream import RequestStream
from protocol.cache import CachedLog
from protocol.errors import InternalError
from protocol.events import Cancelled, Completed, Delta, Event, Failed, Started
from protocol.llm import Attempt, ChatMessage, ChatRequest, Cost, Usage
from protocol.packed import pack
from protocol.requests import Submit

HELLO = Submit(request=ChatRequest(model="m", messages=(ChatMessage(role="user", content="hello"),)), tenant="acme")
DONE = Completed(result=msgspec.Raw(b"{}"))


class Owner:
    """The owner of a run, with what `on_end` has told it."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, ...]] = []
        self.run = Run("req_1", HELLO, on_end=lambda run: self.ended.append(run.requests))
        self.first = RequestStream("req_1", self.run.log)
        self.run.begin(self.first, 1.5)

    def join(self, request_id: str) -> RequestStream:
        """Let one more request join."""
        stream = RequestStream(request_id, self.run.log)
        self.run.join(stream)
        return stream


def events(run: Run) -> tuple[Event, ...]:
    """The events of the run's log."""
    return tuple(run.log.events())


def test_a_run_writes_its_log_from_the_first_entry_to_the_terminal_one() -> None:
    """The log begins with `Started` and ends with the event of `finish`."""
    run = Owner().run
    run.write((Delta(text="a"), Delta(text="b")), 0.5)
    run.write((Delta(text="c"),))
    assert run.finish(DONE)
    assert events(run) == (Started(model="m", created=1), *(Delta(text=text) for text in "abc"), DONE)
    assert run.upstream_wait == 0.5


def test_a_run_begins_once() -> None:
    """`Started` is the first entry and no other."""
    owner = Owner()
    with pytest.raises(InternalError, match="begun already"):
        owner.run.begin(owner.first, 2.0)
    assert len(events(owner.run)) == 1


def test_a_run_has_exactly_one_terminal_entry() -> None:
    """The first end counts; a later end and later content change nothing, and the owner hears of one end."""
    owner = Owner()
    assert owner.run.finish(Cancelled())
    assert not owner.run.finish(DONE)
    owner.run.write((Delta(text="late"),))
    assert events(owner.run) == (Started(model="m", created=1), Cancelled())
    assert owner.ended == [("req_1",)]


def test_the_owner_hears_of_the_end_after_the_terminal_entry_and_with_all_requests() -> None:
    """`on_end` sees the ended log and the requests that share the run; afterwards the run holds none."""
    owner = Owner()
    owner.join("req_2")
    left = owner.join("req_3")
    assert not owner.run.leave(left, Cancelled())
    owner.run.finish(DONE)
    assert owner.ended == [("req_1", "req_2")]
    assert owner.run.requests == ()


def test_a_request_that_leaves_ends_alone() -> None:
    """Its own view ends; the log and the other requests go on."""
    owner = Owner()
    second = owner.join("req_2")
    assert not owner.run.leave(owner.first, Cancelled())
    assert owner.first.ended
    owner.run.write((Delta(text="a"),))
    owner.run.finish(DONE)
    assert [type(entry.event) for entry in owner.first.since(0)] == [Started, Cancelled]
    assert [type(entry.event) for entry in second.since(0)] == [Started, Delta, Completed]


def test_the_last_request_ends_with_the_run() -> None:
    """`leave` writes nothing for it and says so: the caller cancels the run."""
    owner = Owner()
    assert owner.run.leave(owner.first, Cancelled())
    assert not owner.first.ended
    owner.run.finish(Cancelled())
    assert owner.first.ended


def test_nobody_joins_a_run_that_has_ended() -> None:
    """The owner has to start another one."""
    owner = Owner()
    owner.run.finish(DONE)
    with pytest.raises(InternalError, match="has ended"):
        owner.join("req_2")


def test_a_run_that_fails_names_the_provider_of_its_last_call() -> None:
    """A completed run has the provider that answered; any other run the one that was called last."""
    run = Owner().run
    run.count(Attempt(provider="p", model="m"), 0)
    run.count(Attempt(provider="q", model="m"), 0)
    run.finish(Failed(code="provider_error", message="x"))
    assert run.provider == "q"


def test_calls_are_counted_by_their_number() -> None:
    """A call whose usage is known later replaces its first report; the sums are those of all calls."""
    run = Owner().run
    run.count(Attempt(provider="p", model="m"), 1)
    assert (run.usage, run.cost) == (Usage(), None)
    used = Usage(output_tokens=2)
    run.count(Attempt(provider="q", model="m", usage=used, cost=Cost(usd=Decimal(3))), 2)
    run.finish(DONE)
    run.count(Attempt(provider="p", model="m", usage=used, cost=Cost(usd=Decimal(1))), 1)
    assert [attempt.provider for attempt in run.attempts] == ["p", "q"]
    assert (run.usage, run.cost) == (Usage(output_tokens=4), Cost(usd=Decimal(4)))


def test_a_replay_has_ended_from_its_start() -> None:
    """A cached log comes back entry by entry, and nothing can be written after it."""
    written = Started(model="m", created=1), Delta(text="a")
    cached = CachedLog(pages=tuple(pack(written)), completed=DONE, provider="p")
    run = Run.replay(HELLO, cached, fingerprint=b"f")
    assert events(run) == (*written, DONE)
    assert run.provider == "p"
    assert not run.finish(Cancelled())
