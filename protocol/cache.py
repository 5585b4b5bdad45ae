"""The conversation with the cache: what it keeps is a finished log."""

import msgspec

from protocol.events import Event
from protocol.llm import Attempt, Cost, Usage
from protocol.message import Message


class CachedLog(msgspec.Struct, frozen=True, kw_only=True):
    """A finished log and what a replay's state needs beside it. ``events`` ends with a ``Completed``."""

    events: tuple[Event, ...]
    provider: str = ""
    usage: Usage = Usage()
    cost: Cost | None = None
    attempts: tuple[Attempt, ...] = ()


class CacheGet(Message["CachedLog | None"], frozen=True):
    """The log stored under ``key`` (a tenant-scoped fingerprint), or None."""

    traced = True

    key: bytes


class CachePut(Message[None], frozen=True):
    """Keep ``log`` under ``key`` for ``ttl`` seconds. One that is larger than the whole bound is not kept."""

    key: bytes
    log: CachedLog
    ttl: float


class CacheDelete(Message[bool], frozen=True):
    """Forget ``key``; says whether it was there."""

    key: bytes


class CacheStats(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the cache holds and has done since it started; ``bytes`` counts encoded logs."""

    entries: int
    bytes: int
    hits: int
    misses: int
    stores: int
    evictions: int
    oversized: int


class GetCacheStats(Message[CacheStats], frozen=True):
    """The cache's statistics."""
