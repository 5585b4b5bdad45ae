"""Messages of the cache of finished logs."""

import msgspec

from protocol.events import Event
from protocol.llm import Attempt, Cost, Usage
from protocol.message import Message


class CachedLog(msgspec.Struct, frozen=True, kw_only=True):
    """A finished log, and what the state of a replayed request needs. The last of ``events`` is a ``Completed``."""

    events: tuple[Event, ...]
    provider: str = ""
    usage: Usage = Usage()
    cost: Cost | None = None
    attempts: tuple[Attempt, ...] = ()


class CacheGet(Message["CachedLog | None"], frozen=True):
    """Get the log stored under ``key`` (a fingerprint that includes the tenant), or None."""

    traced = True

    key: bytes


class CachePut(Message[None], frozen=True):
    """Store ``log`` under ``key`` for ``ttl`` seconds. A log larger than the cache's bound is not stored."""

    key: bytes
    log: CachedLog
    ttl: float


class CacheDelete(Message[bool], frozen=True):
    """Delete ``key``. Replies whether it existed."""

    key: bytes


class CacheStats(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The cache's size now, and its counts since the start; ``bytes`` is the size of the encoded logs."""

    entries: int
    bytes: int
    hits: int
    misses: int
    stores: int
    evictions: int
    oversized: int


class GetCacheStats(Message[CacheStats], frozen=True):
    """Get the cache's statistics."""
