"""The stored requests."""

from sys import getsizeof

import msgspec
import pytest

from actors.requests.record import RequestRecord
from actors.requests.run import Run
from actors.requests.store import MIN_COMPACT, RECORD_BYTES, RequestStore
from actors.requests.stream import RequestStream
from protocol.errors import Overloaded
from protocol.events import Completed, Delta
from protocol.llm import ChatMessage, ChatRequest, ImagePart, TextPart, Tool
from protocol.requests import Delivery, Submit

HELLO = ChatRequest(model="m", messages=(ChatMessage(role="user", content="hello"),))
PLAIN = Delivery()
LONG = "x" * 100_000
LARGE = {"properties": {f"field_{number}": {"type": "string"} for number in range(500)}}
PICTURE = ImagePart(url=f"data:image/png;base64,{LONG}")


class Clock:
    """A clock that the test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def store_of(clock: Clock, *, max_requests: int = 10, max_bytes: int = 1_000_000) -> RequestStore:
    """Return a store with a ttl of ten seconds."""
    return RequestStore(ttl=10.0, max_requests=max_requests, max_bytes=max_bytes, clock=clock)


def record_of(
    name: str,
    *,
    tenant: str = "",
    text: str = "",
    request: ChatRequest = HELLO,
    delivery: Delivery = PLAIN,
) -> RequestRecord:
    """Return a request with a log of its own."""
    run = Run(name, Submit(request=request))
    stream = RequestStream(name, run.log)
    run.begin(stream, 1.0)
    run.write((Delta(text=text),))
    return RequestRecord(
        request_id=stream.request_id,
        tenant=tenant,
        trace_id="",
        delivery=delivery,
        source="upstream",
        run=run,
        stream=stream,
    )


def asking(content: str | tuple[TextPart | ImagePart, ...]) -> ChatRequest:
    """Return a request with this content."""
    return ChatRequest(model="m", messages=(ChatMessage(role="user", content=content),))


def held_by(value: object) -> int:
    """Return the bytes of an object and of all that it consists of."""
    size = getsizeof(value)
    if isinstance(value, dict):
        return size + sum(held_by(key) + held_by(item) for key, item in value.items())
    if isinstance(value, tuple | list):
        return size + sum(map(held_by, value))
    if isinstance(value, msgspec.Struct):
        return size + sum(held_by(getattr(value, name)) for name in value.__struct_fields__)
    return size


def end(store: RequestStore, record: RequestRecord) -> None:
    """End a request."""
    record.run.finish(Completed(result=msgspec.Raw(b"{}")))
    store.ended(record.request_id)


def test_a_request_belongs_to_one_tenant() -> None:
    """Another tenant finds neither the request nor its key."""
    store = store_of(Clock())
    store.add(record_of("one", tenant="a"), key="k", digest=b"d")
    assert store.get("one", "a") is not None
    assert store.get("one", "b") is None
    assert store.by_key("a", "k") is not None
    assert store.by_key("b", "k") is None


def test_the_ttl_counts_from_the_end() -> None:
    """A running request stays; an ended one and its key are dropped ten seconds later."""
    clock = Clock()
    store = store_of(clock)
    running, ended = record_of("running"), record_of("ended")
    store.add(running)
    store.add(ended, key="k")
    end(store, ended)
    clock.now += 9.9
    assert store.get("ended", "") is ended
    clock.now += 0.2
    assert store.get("ended", "") is None
    assert store.by_key("", "k") is None
    store.expire()
    assert [record.request_id for record in store] == ["running"]


def test_the_oldest_end_makes_room_and_a_running_request_never_does() -> None:
    """At the bound the request that ended first is dropped; a running one never is."""
    store = store_of(Clock(), max_requests=3)
    first, second, running = record_of("first"), record_of("second"), record_of("running")
    for record in (running, first, second):
        store.add(record)
    end(store, second)
    end(store, first)
    store.add(record_of("fourth"))
    assert {record.request_id for record in store} == {"running", "first", "fourth"}
    store.add(record_of("fifth"))
    with pytest.raises(Overloaded, match="3 requests are running"):
        store.add(record_of("sixth"))


def test_ended_requests_are_bounded_in_bytes() -> None:
    """Long answers push out the older ones, but the last one stays."""
    store = store_of(Clock(), max_bytes=3 * RECORD_BYTES)
    for name in ("a", "b", "c"):
        record = record_of(name, text="x" * 5000)
        store.add(record)
        end(store, record)
    assert [record.request_id for record in store] == ["c"]


@pytest.mark.parametrize(
    ("request_", "delivery"),
    [
        (asking(LONG), PLAIN),
        (asking("\u4f60" * 50_000), PLAIN),
        (asking((TextPart(text="what is this?"), PICTURE)), PLAIN),
        (msgspec.structs.replace(HELLO, tools=(Tool(name="f", parameters=LARGE),)), PLAIN),
        (msgspec.structs.replace(HELLO, schema=LARGE), PLAIN),
        (msgspec.structs.replace(HELLO, schema={"enum": [[]] * 2000}), PLAIN),
        (msgspec.structs.replace(HELLO, extra={"openai": LARGE}), PLAIN),
        (HELLO, Delivery(echo={"instructions": LONG})),
        (HELLO, Delivery(metadata={"note": LONG})),
    ],
)
def test_the_input_of_ended_requests_counts(request_: ChatRequest, delivery: Delivery) -> None:
    """Messages, tools, schema, further fields, notes and the echo count as the memory that they take."""
    store = store_of(Clock(), max_requests=100, max_bytes=1_000_000)
    for number in range(100):
        record = record_of(f"r{number}", request=request_, delivery=delivery)
        store.add(record)
        end(store, record)
    held = held_by(request_) + held_by(delivery.echo) + held_by(delivery.metadata)
    assert 1_000_000 / (2 * held + RECORD_BYTES) - 1 <= len(store) <= 1_000_000 / held


def test_an_end_counts_once() -> None:
    """A request that left its run early, and whose run ends later, has one end."""
    clock = Clock()
    store = store_of(clock)
    record = record_of("one")
    store.add(record)
    end(store, record)
    expires = record.expires
    clock.now += 5
    store.ended(record.request_id)
    assert record.expires == expires


def test_a_ttl_of_its_own_counts_from_the_end() -> None:
    """Requests with less time go first, whenever they ended; nothing is kept of them."""
    clock = Clock()
    store = store_of(clock)
    for name, ttl in (("plain", None), ("four", 4.0), ("two", 2.0)):
        record = record_of(name, delivery=Delivery(ttl=ttl))
        store.add(record, key=name)
        end(store, record)
    for seconds, left in ((2.0, ["plain", "four"]), (2.0, ["plain"]), (6.0, [])):
        clock.now += seconds
        store.expire()
        assert [record.request_id for record in store] == left
    assert store.by_key("", "two") is None


def test_a_removed_request_takes_its_key_and_its_bytes_along() -> None:
    """Also a running one; removing it again changes nothing; the others keep their room."""
    store = store_of(Clock(), max_bytes=3 * RECORD_BYTES)
    running, kept = record_of("running"), record_of("kept")
    store.add(running, key="k")
    store.add(kept)
    end(store, kept)
    for number in range(5):
        record = record_of(f"r{number}", delivery=Delivery(ttl=1.0))
        store.add(record)
        end(store, record)
        store.remove(record)
        store.remove(record)
    store.remove(running)
    end(store, running)
    assert [record.request_id for record in store] == ["kept"]
    assert store.by_key("", "k") is None


def test_the_expiries_of_dropped_requests_are_forgotten() -> None:
    """However many requests with a ttl of their own come and go, what is kept is bounded."""
    store = store_of(Clock(), max_requests=2)
    for number in range(1000):
        record = record_of(str(number), delivery=Delivery(ttl=9.0))
        store.add(record)
        end(store, record)
    assert len(store) == 2
    assert len(store._early) <= 2 * 2 + MIN_COMPACT
