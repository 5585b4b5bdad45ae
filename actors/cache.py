"""The cache: finished logs, packed, by opaque keys.

A log is stored as its packed events: its size is known, nothing can change it, and all replays share it. Expired logs
are removed once a minute. At a bound the tenant that is furthest above its floor loses its least recently used log.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

import msgspec
from opentelemetry import trace

from actors.fair_lru import FairLru
from actors.fair_shares import Tenants
from actors.runtime import Actor, handles
from protocol import spans
from protocol.cache import CacheDelete, CachedLog, CacheGet, CachePut, CacheStats, GetCacheStats
from protocol.message import Message

SWEEP_INTERVAL: Final = 60.0  # seconds; an expired log takes memory for no longer
LOGGER: Final = "tidegate.cache"

_log = logging.getLogger(LOGGER)


class _Stored(msgspec.Struct, frozen=True):
    log: CachedLog
    size: int
    expires: float


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
    """Packed logs, bounded in number and in bytes; tenants share both bounds.

    Args:
        limits: the bounds; a log that is larger than all of it is not stored.
        tenants: share the bounds; None for any tenants.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        limits: CacheLimits,
        tenants: Tenants | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, bound in (("max_entries", limits.max_entries), ("max_bytes", limits.max_bytes)):
            if bound < 1:
                message = f"{name} must be positive, got {bound}"
                raise ValueError(message)
        self._max_bytes = limits.max_bytes
        self._clock = clock
        self._logs: FairLru[bytes, _Stored] = FairLru(
            _size, max_bytes=limits.max_bytes, max_entries=limits.max_entries, tenants=tenants
        )
        self._hits = self._misses = self._stores = self._evictions = self._oversized = 0

    def __len__(self) -> int:
        return len(self._logs)

    def get(self, key: bytes, tenant: str = "") -> CachedLog | None:
        """Return a tenant's log with ``key``; None where there is none, or it has expired."""
        stored = self._logs.get(tenant, key)
        if stored is None or stored.expires <= self._clock():
            if stored is not None:
                self._logs.pop(tenant, key)
            self._misses += 1
            return None
        self._hits += 1
        return stored.log

    def put(self, key: bytes, log: CachedLog, ttl: float, tenant: str = "") -> None:
        """Store ``log`` for ``ttl`` seconds in the place of the one with ``key``; a ``ttl`` of 0 only removes that."""
        if ttl <= 0:
            self._logs.pop(tenant, key)
            return
        size = log.size
        evicted = self._logs.put(tenant, key, _Stored(log, size, self._clock() + ttl))
        if evicted is None:
            self._oversized += 1
            _log.debug("a log of %d bytes has no room in the cache of %d bytes: not stored", size, self._max_bytes)
            return
        self._evictions += evicted
        self._stores += 1

    def delete(self, key: bytes, tenant: str = "") -> bool:
        """Remove a tenant's log with ``key``; return whether there was one."""
        return self._logs.pop(tenant, key) is not None

    def sweep(self) -> int:
        """Remove the expired logs; return their number."""
        now = self._clock()
        expired = [(tenant, key) for tenant, key, stored in self._logs.items() if stored.expires <= now]
        for tenant, key in expired:
            self._logs.pop(tenant, key)
        return len(expired)

    def stats(self) -> CacheStats:
        """Return the sizes and the counters."""
        return CacheStats(
            entries=len(self._logs),
            bytes=self._logs.size,
            hits=self._hits,
            misses=self._misses,
            stores=self._stores,
            evictions=self._evictions,
            oversized=self._oversized,
        )


def _size(stored: _Stored) -> int:
    return stored.size


class SweepCache(Message[None], frozen=True):
    """Remove the expired logs."""


class CacheActor(Actor[CacheGet | CachePut | CacheDelete | GetCacheStats | SweepCache]):
    """Stores finished logs of each tenant. Keys are opaque.

    Args:
        limits: how many logs are kept, and how large they are together.
        tenants: share these bounds; None for any tenants.
        clock: seconds, monotonic.
    """

    capacity = 1024
    overflow = "wait"

    def __init__(
        self,
        limits: CacheLimits = DEFAULT_LIMITS,
        tenants: Tenants | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = LogStore(limits, tenants, clock)
        self._sweep_scheduled = False

    @handles(CacheGet)
    async def get(self, message: CacheGet) -> CachedLog | None:
        """Return a log, and set on the span whether it was a hit."""
        log = self._store.get(message.key, message.tenant)
        if self.system.tracing:
            trace.get_current_span().set_attribute(spans.CACHE_HIT, log is not None)
        return log

    @handles(CachePut)
    async def put(self, message: CachePut) -> None:
        """Store a log, and schedule a sweep."""
        self._store.put(message.key, message.log, message.ttl, message.tenant)
        self._sweep_later()

    @handles(CacheDelete)
    async def delete(self, message: CacheDelete) -> bool:
        """Remove a log."""
        return self._store.delete(message.key, message.tenant)

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
