"""The stored requests."""

from sys import getsizeof

import msgspec
import pytest

from actors.fair_shares import Tenants
from actors.requests.limits import RequestLimits
from actors.requests.record import RequestRecord
from actors.requests.run import Run
from actors.requests.store import MIN_COMPACT, RECORD_BYTES, RequestStore
from actors.requests.stream import RequestStream
from protocol.errors import Overloaded
from protocol.events import Completed, Delta, Failed
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
    """Return a store with a ttl of ten seconds, which remembers 30 keys for a hundred."""
    limits = RequestLimits(ttl=10.0, max_requests=max_requests, max_bytes=max_bytes, max_keys=30, key_ttl=100.0)
    return RequestStore(limits, Tenants(4, named=["", "a", "b"], open=False), clock)


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
    """A running request stays; an ended one is dropped ten seconds later. Its key is remembered for its own time."""
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
    used, gone = store.by_key("", "k") or (None, None)
    assert used is not None
    assert (used.request_id, used.status, gone) == ("ended", "completed", None)
    clock.now += 90
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


def fill(store: RequestStore, tenant: str, count: int, *, text: str = "", ends: bool = True) -> int:
    """Add requests of a tenant until one is refused; return how many there are."""
    for number in range(count):
        record = record_of(f"{tenant}-{number}", tenant=tenant, text=text)
        try:
            store.add(record)
        except Overloaded:
            return number
        if ends:
            end(store, record)
    return count


def names(store: RequestStore, tenant: str) -> list[str]:
    """Return the ids of a tenant's requests."""
    return [record.request_id for record in store if record.tenant == tenant]


def test_a_tenant_that_fills_the_store_evicts_its_own_requests() -> None:
    """Ended requests: another tenant's floor stays as it is, and what it adds later takes from the larger one."""
    store = store_of(Clock(), max_requests=100)
    fill(store, "b", 20)
    fill(store, "a", 1000)
    assert len(names(store, "b")) == 20
    assert names(store, "a") == [f"a-{number}" for number in range(920, 1000)]
    fill(store, "", 25)
    assert (len(names(store, "")), len(names(store, "b")), len(names(store, "a"))) == (25, 20, 55)


def test_a_tenant_whose_requests_all_run_leaves_room_for_the_others() -> None:
    """Running requests can't be taken back: the other named tenants have their floors, and their ended ones stay."""
    store = store_of(Clock(), max_requests=100)
    fill(store, "b", 10)
    assert fill(store, "a", 1000, ends=False) == 100 - 2 * 16
    assert len(names(store, "b")) == 10
    assert fill(store, "b", 16, ends=False) == 16
    assert fill(store, "", 16, ends=False) == 16


def test_the_bytes_of_ended_requests_are_shared() -> None:
    """Long answers of one tenant push out its own, not those of another within its floor."""
    store = store_of(Clock(), max_requests=1000, max_bytes=40 * RECORD_BYTES)
    fill(store, "b", 5)
    fill(store, "a", 100, text="x" * 5000)
    assert len(names(store, "b")) == 5
    assert 10 <= len(names(store, "a")) <= 18


def test_the_newest_request_of_a_tenant_stays_however_large() -> None:
    """It counts as the room that is left, and gives way to the next such one."""
    store = store_of(Clock(), max_bytes=3 * RECORD_BYTES)
    fill(store, "b", 2)
    fill(store, "a", 5, text="x" * 100_000)
    assert names(store, "a") == ["a-4"]
    assert names(store, "b")
    fill(store, "a", 1, text="x" * 100_000)
    assert names(store, "a") == ["a-0"]


def test_a_key_whose_request_was_evicted_is_still_used() -> None:
    """However many requests come and go, a key stays used until its time is over."""
    store = store_of(Clock(), max_requests=4)
    first = record_of("first", tenant="a")
    store.add(first, key="k", digest=b"d")
    end(store, first)
    fill(store, "a", 20)
    used, record = store.by_key("a", "k") or (None, first)
    assert used is not None
    assert (used.digest, used.status, record) == (b"d", "completed", None)


def test_keys_are_split_evenly_and_never_evicted() -> None:
    """A tenant that has used its share is refused, and the others have theirs."""
    store = store_of(Clock(), max_requests=1000)
    for number in range(10):
        store.add(record_of(f"a{number}", tenant="a"), key=f"k{number}")
    with pytest.raises(Overloaded, match="10 idempotency keys") as refused:
        store.add(record_of("more", tenant="a"), key="more")
    assert refused.value.retry_after == 100.0
    assert store.get("more", "a") is None
    store.add(record_of("b", tenant="b"), key="k0")
    store.add(record_of("without", tenant="a"))


def test_a_refused_request_uses_no_key() -> None:
    """Where there is no room for the request, its key stays free."""
    store = store_of(Clock(), max_requests=2)
    fill(store, "a", 2, ends=False)
    with pytest.raises(Overloaded, match="running"):
        store.add(record_of("more", tenant="a"), key="k")
    assert store.by_key("a", "k") is None


def test_a_request_that_failed_temporarily_before_content_frees_its_key() -> None:
    """It may be submitted again; one that failed for good, or after content, may not."""
    store = store_of(Clock())
    for name, code, temporary, free in (("t", "overloaded", True, True), ("f", "invalid_schema", False, False)):
        run = Run(name, Submit(request=HELLO))
        stream = RequestStream(name, run.log)
        run.begin(stream, 1.0)
        record = msgspec.structs.replace(record_of(name), run=run, stream=stream)
        store.add(record, key=name)
        run.finish(Failed(code=code, message="", temporary=temporary))
        store.ended(name)
        used, _ = store.by_key("", name) or (None, None)
        assert (used is None) == free
        assert used is None or (used.status, used.code) == ("failed", code)


def test_a_key_that_names_another_request_by_now_is_not_freed_with_the_first() -> None:
    """A key's time may be over before its request's; the next request with the key keeps it."""
    clock = Clock()
    store = store_of(clock)
    old, new = record_of("old"), record_of("new")
    store.add(old, key="k")
    clock.now += 101
    store.add(new, key="k")
    store.remove(old)
    used, _ = store.by_key("", "k") or (None, None)
    assert used is not None
    assert used.request_id == "new"
