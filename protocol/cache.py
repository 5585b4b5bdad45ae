"""Messages of the cache of finished logs."""

import msgspec

from protocol.events import Completed
from protocol.llm import Attempt, Cost, Usage
from protocol.message import Message
from protocol.packed import PackedEvents

_LOG_BYTES = 512  # of a cached log without its events and attempts


class CachedLog(msgspec.Struct, frozen=True, kw_only=True):
    """A finished log, and what the state of a replayed request needs. It is immutable, and replays share its pages.

    Attributes:
        pages: all events but the last one.
        completed: the last event.
        provider: the provider that answered.
        usage: tokens of all attempts.
        cost: of all attempts; None where it is not known.
        attempts: the calls to providers, in order.
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
    """Get the log stored under ``key`` (a fingerprint that includes the tenant), or None."""

    traced = True

    key: bytes
    tenant: str = ""


class CachePut(Message[None], frozen=True):
    """Store ``log`` under ``key`` for ``ttl`` seconds, in the tenant's share, unless there is no room for it."""

    key: bytes
    log: CachedLog
    ttl: float
    tenant: str = ""


class CacheDelete(Message[bool], frozen=True):
    """Delete ``key``. Replies whether it existed."""

    key: bytes
    tenant: str = ""


class CacheStats(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The cache's size now, and its counts since the start; ``bytes`` is the size of the packed logs."""

    entries: int
    bytes: int
    hits: int
    misses: int
    stores: int
    evictions: int
    oversized: int


class GetCacheStats(Message[CacheStats], frozen=True):
    """Get the cache's statistics."""
