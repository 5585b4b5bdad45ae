"""Bounds of the caches."""

from typing import Final

from actors.cache import CacheActor, CacheLimits
from actors.embeddings.config import EmbeddingBounds
from service.limits.bound import EVERYBODY, EVICTED, Bound

_CACHE: Final = CacheLimits()
_EMBEDDINGS: Final = EmbeddingBounds()

BOUNDS: Final = (
    Bound(
        "finished logs",
        _CACHE.max_entries,
        EVICTED,
        "the least recently used one of the tenant with the most is dropped",
        setting="cache_max_entries",
    ),
    Bound("finished logs, packed", _CACHE.max_bytes, EVICTED, "as above", setting="cache_max_bytes", unit="bytes"),
    Bound("messages that wait for the cache", CacheActor.capacity, EVERYBODY, "the sender waits, at most a second"),
    Bound("vectors", _EMBEDDINGS.cache_bytes, EVICTED, "as above", setting="embedding_cache_max_bytes", unit="bytes"),
)
