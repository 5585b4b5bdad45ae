"""The conversation with the cache: what it keeps is a finished log."""

import msgspec

from protocol.events import Completed
from protocol.llm import Attempt, Cost, Usage
from protocol.message import Message
from protocol.packed import PackedEvents

_LOG_BYTES = 512  # of a cached log without its events and attempts


class CachedLog(msgspec.Struct, frozen=True, kw_only=True):
    """A finished log, and what the state of a replay needs besides it. It is immutable, and a replay shares its pages.

    Attributes:
        pages: all events but the last one.
        completed: the last event.
        provider: who answered.
        usage: tokens of all attempts.
        cost: of all attempts; None where it is not known.
        attempts: the calls to the upstream, in order.
    """

    pages: tuple[PackedEvents, ...]
    completed: Completed
    provider: str = ""
    usage: Usage = Usage()
    cost: Cost | None = None
    attempts: tuple[Attempt, ...] = ()

    @property
    def size(self) -> int:
        """Bytes held, estimated."""
        return sum([page.size for page in self.pages]) + self.completed.size() + _LOG_BYTES * (1 + len(self.attempts))


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
    """What the cache holds and has done since it started; ``bytes`` counts packed logs."""

    entries: int
    bytes: int
    hits: int
    misses: int
    stores: int
    evictions: int
    oversized: int


class GetCacheStats(Message[CacheStats], frozen=True):
    """The cache's statistics."""
