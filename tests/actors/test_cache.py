from decimal import Decimal

import msgspec
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from actors.cache import SWEEP_INTERVAL, CacheActor, CacheLimits, LogStore
from actors.runtime import System
from actors.runtime.testing import TestSystem as HeldSystem  # by another name pytest does not collect it
from protocol import spans
from protocol.cache import CacheDelete, CachedLog, CacheGet, CachePut, GetCacheStats
from protocol.events import AttemptFailed, Completed, Delta, RefusalDelta, Started, ToolCallDelta, VendorBlock
from protocol.llm import Attempt, Cost, RefusalPart, TextPart, ToolCallPart, Usage
from protocol.packed import pack


class Time:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


BLOCK = b'{"type": "server_tool_use", "input": {"q":  1.50}}'


def log_of(text: str) -> CachedLog:
    """Return a finished log with every kind of content."""
    return CachedLog(
        pages=tuple(
            pack(
                (
                    Started(model="m", created=1),
                    Delta(text),
                    ToolCallDelta(index=0, id="c", name="f", arguments="{}"),
                    AttemptFailed(provider="p", model="m", code="provider_error"),
                    VendorBlock(dialect="anthropic", value=msgspec.Raw(BLOCK)),
                    RefusalDelta(text="no", part=1),
                )
            )
        ),
        completed=Completed(
            parts=(TextPart(text=text), ToolCallPart(id="c", name="f"), RefusalPart(text="no")),
            result=msgspec.Raw(b'{"text": "raw, as it came"}'),
            usage=Usage(input_tokens=3),
        ),
        provider="p",
        cost=Cost(Decimal("0.00025")),
        attempts=(Attempt(provider="p", model="m", duration_ms=1.5),),
    )


def test_a_stored_log_is_unchanged() -> None:
    """A log survives being stored, with its raw result byte by byte."""
    store = LogStore(CacheLimits(max_entries=10, max_bytes=10_000))
    store.put(b"key", log_of("hello"), 60)
    found = store.get(b"key")
    assert found == log_of("hello")
    assert found is not None
    assert found.completed.result == msgspec.Raw(b'{"text": "raw, as it came"}')
    events = [event for page in found.pages for event in page.events()]
    assert VendorBlock(dialect="anthropic", value=msgspec.Raw(BLOCK)) in events
    assert store.get(b"other") is None


def test_each_log_has_its_own_ttl() -> None:
    """Each log has its own ttl; an expired one is a miss, and is removed."""
    time = Time()
    store = LogStore(CacheLimits(max_entries=10, max_bytes=10_000), clock=time)
    store.put(b"short", log_of("a"), 1)
    store.put(b"long", log_of("b"), 10)
    store.put(b"never", log_of("c"), 0)
    time.now += 1
    assert store.get(b"short") is None
    assert store.get(b"never") is None
    assert store.get(b"long") == log_of("b")
    assert len(store) == 1


def test_the_number_of_logs_is_bounded() -> None:
    """The least recently used one is evicted."""
    store = LogStore(CacheLimits(max_entries=2, max_bytes=10_000))
    for key in (b"a", b"b"):
        store.put(key, log_of("x"), 60)
    store.get(b"a")
    store.put(b"c", log_of("x"), 60)
    assert [store.get(key) is not None for key in (b"a", b"b", b"c")] == [True, False, True]
    assert store.stats().evictions == 1


def test_the_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A packed log's bytes are counted; one larger than the bound is not stored, and is counted as oversized."""
    size = log_of("x" * 100).size
    store = LogStore(CacheLimits(max_entries=10, max_bytes=2 * size))
    for key in (b"a", b"b", b"c"):
        store.put(key, log_of("x" * 100), 60)
    assert (store.stats().bytes, store.stats().entries, store.stats().evictions) == (2 * size, 2, 1)
    said: list[str] = []
    monkeypatch.setattr("actors.cache._log.debug", lambda text, *values: said.append(text % values))
    store.put(b"b", log_of("x" * 5000), 60)
    assert ["has no room in the cache" in line for line in said] == [True]
    assert store.get(b"b") is None
    assert (store.stats().oversized, store.stats().entries) == (1, 1)


def test_storing_again_replaces() -> None:
    """The newer log and its ttl count; nothing is evicted for it."""
    time = Time()
    store = LogStore(CacheLimits(max_entries=1, max_bytes=10_000), clock=time)
    store.put(b"a", log_of("old"), 1)
    store.put(b"a", log_of("new"), 10)
    time.now += 5
    assert store.get(b"a") == log_of("new")
    assert store.stats().evictions == 0


def test_deleting_returns_whether_there_was_a_log() -> None:
    """Deleting twice is no error."""
    store = LogStore(CacheLimits(max_entries=1, max_bytes=10_000))
    store.put(b"a", log_of("x"), 60)
    assert [store.delete(b"a"), store.delete(b"a")] == [True, False]
    assert store.stats().bytes == 0


@pytest.mark.parametrize("bounds", [(0, 1), (1, 0), (-1, 1)])
def test_bounds_are_checked(bounds: tuple[int, int]) -> None:
    """A bound below 1 is refused."""
    with pytest.raises(ValueError, match="must be positive"):
        LogStore(CacheLimits(max_entries=bounds[0], max_bytes=bounds[1]))


async def test_the_actor_stores_and_counts() -> None:
    """Put, get, delete and the statistics, through the mailbox."""
    async with System() as system:
        cache = system.spawn(lambda: CacheActor(CacheLimits(max_entries=10, max_bytes=10_000)), name="cache")
        assert await cache.ask(CacheGet(b"a"), timeout=5) is None
        await cache.ask(CachePut(b"a", log_of("x"), 60), timeout=5)
        assert await cache.ask(CacheGet(b"a"), timeout=5) == log_of("x")
        stats = await cache.ask(GetCacheStats(), timeout=5)
        assert (stats.entries, stats.hits, stats.misses, stats.stores) == (1, 1, 1, 1)
        assert await cache.ask(CacheDelete(b"a"), timeout=5)


async def test_expired_logs_are_swept_out() -> None:
    """A log that nobody requests is removed after its ttl."""
    async with HeldSystem() as system:
        cache = system.spawn(
            lambda: CacheActor(CacheLimits(max_entries=10, max_bytes=10_000), clock=system.clock.time), name="cache"
        )
        await cache.ask(CachePut(b"a", log_of("x"), SWEEP_INTERVAL / 2), timeout=5)
        await cache.ask(CachePut(b"b", log_of("x"), SWEEP_INTERVAL * 1.5), timeout=5)
        await system.advance(SWEEP_INTERVAL)
        assert (await cache.ask(GetCacheStats(), timeout=5)).entries == 1
        await system.advance(SWEEP_INTERVAL)
        assert (await cache.ask(GetCacheStats(), timeout=5)).entries == 0


async def test_the_span_says_whether_it_was_a_hit() -> None:
    """A look-up's span has ``tidegate.cache.hit``."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with System(tracer_provider=provider) as system:
        cache = system.spawn(lambda: CacheActor(CacheLimits(max_entries=10, max_bytes=10_000)), name="cache")
        await cache.ask(CacheGet(b"a"), timeout=5)
        await cache.ask(CachePut(b"a", log_of("x"), 60), timeout=5)
        await cache.ask(CacheGet(b"a"), timeout=5)
    assert [(span.attributes or {}).get(spans.CACHE_HIT) for span in exporter.get_finished_spans()] == [False, True]
