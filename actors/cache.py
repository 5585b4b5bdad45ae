"""The cache: finished logs, packed, by opaque keys.

A log is stored as its packed events: its size is known, nothing can change it, and all replays share it. At a bound the
least recently used log is evicted. Expired logs are removed once a minute.
"""

import logging
import math
import time
from collections.abc import Callable
from typing import Final

import msgspec
from cachebox import LRUCache
from opentelemetry import trace

from actors.runtime import Actor, handles
from protocol import spans
from protocol.cache import CacheDelete, CachedLog, CacheGet, CachePut, CacheStats, GetCacheStats
from protocol.events import Completed
from protocol.message import Message

SWEEP_INTERVAL: Final = 60.0  # seconds; an expired log takes memory for no longer
LOGGER: Final = "tidegate.cache"

_log = logging.getLogger(LOGGER)


class _Stored(msgspec.Struct, frozen=True):
    log: CachedLog
    size: int
    expires: float


_EXPIRED: Final = _Stored(CachedLog(pages=(), completed=Completed(result=msgspec.Raw(b"null"))), 0, -math.inf)


class CacheLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of the cache.

    Attributes:
        max_entries: the most logs that are kept.
        max_bytes: the most bytes that all of them take together, packed.
    """

    max_entries: int = 10_000
    max_bytes: int = 64 * 1024 * 1024


DEFAULT_LIMITS: Final = CacheLimits()


class LogStore:
    """Packed logs, bounded in number and in bytes.

    Args:
        max_entries: the most logs.
        max_bytes: the most bytes of all logs, packed; a larger log is not stored.
        clock: seconds, monotonic.
    """

    def __init__(self, max_entries: int, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        for name, bound in (("max_entries", max_entries), ("max_bytes", max_bytes)):
            if bound < 1:
                message = f"{name} must be positive, got {bound}"
                raise ValueError(message)
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock
        self._logs: LRUCache[bytes, _Stored] = LRUCache(max_bytes, getsizeof=_size)
        self._hits = self._misses = self._stores = self._evictions = self._oversized = 0

    def __len__(self) -> int:
        return len(self._logs)

    def get(self, key: bytes) -> CachedLog | None:
        """Return the log with ``key``; None where there is none, or it has expired."""
        stored = self._logs.get(key, _EXPIRED)
        if stored.expires <= self._clock():
            self._logs.pop(key, None)
            self._misses += 1
            return None
        self._hits += 1
        return stored.log

    def put(self, key: bytes, log: CachedLog, ttl: float) -> None:
        """Store ``log`` for ``ttl`` seconds in the place of the one with ``key``; a ``ttl`` of 0 only removes that."""
        self._logs.pop(key, None)
        if ttl <= 0:
            return
        size = log.size
        if size > self._max_bytes:
            self._oversized += 1
            _log.debug("a log of %d bytes is larger than the cache, %d bytes: not stored", size, self._max_bytes)
            return
        while len(self._logs) >= self._max_entries or self._logs.current_size() + size > self._max_bytes:
            self._logs.popitem()
            self._evictions += 1
        self._logs.insert(key, _Stored(log, size, self._clock() + ttl))
        self._stores += 1

    def delete(self, key: bytes) -> bool:
        """Remove the log with ``key``; return whether there was one."""
        return self._logs.pop(key, None) is not None

    def sweep(self) -> int:
        """Remove the expired logs; return their number."""
        now = self._clock()
        expired = [key for key, stored in self._logs.items() if stored.expires <= now]
        for key in expired:
            del self._logs[key]
        return len(expired)

    def stats(self) -> CacheStats:
        """Return the sizes and the counters."""
        return CacheStats(
            entries=len(self._logs),
            bytes=self._logs.current_size(),
            hits=self._hits,
            misses=self._misses,
            stores=self._stores,
            evictions=self._evictions,
            oversized=self._oversized,
        )


def _size(_: bytes, stored: _Stored) -> int:
    return stored.size


class SweepCache(Message[None], frozen=True):
    """Remove the expired logs."""


class CacheActor(Actor[CacheGet | CachePut | CacheDelete | GetCacheStats | SweepCache]):
    """Stores finished logs. Keys are opaque: their caller includes the tenant.

    Args:
        limits: how many logs are kept, and how large they are together.
        clock: seconds, monotonic.
    """

    capacity = 1024
    overflow = "wait"

    def __init__(self, limits: CacheLimits = DEFAULT_LIMITS, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = LogStore(limits.max_entries, limits.max_bytes, clock)
        self._sweep_scheduled = False

    @handles(CacheGet)
    async def get(self, message: CacheGet) -> CachedLog | None:
        """Return a log, and set on the span whether it was a hit."""
        log = self._store.get(message.key)
        if self.system.tracing:
            trace.get_current_span().set_attribute(spans.CACHE_HIT, log is not None)
        return log

    @handles(CachePut)
    async def put(self, message: CachePut) -> None:
        """Store a log, and schedule a sweep."""
        self._store.put(message.key, message.log, message.ttl)
        self._sweep_later()

    @handles(CacheDelete)
    async def delete(self, message: CacheDelete) -> bool:
        """Remove a log."""
        return self._store.delete(message.key)

    @handles(GetCacheStats)
    async def stats(self, _: GetCacheStats) -> CacheStats:
        """Return the statistics."""
        return self._store.stats()

    @handles(SweepCache)
    async def sweep(self, _: SweepCache) -> None:
        """Remove the expired logs, and repeat while there are others."""
        self._sweep_scheduled = False
        self._store.sweep()
        self._sweep_later()

    def _sweep_later(self) -> None:
        if len(self._store) and not self._sweep_scheduled:
            self._sweep_scheduled = True
            self.schedule(SWEEP_INTERVAL, SweepCache())
