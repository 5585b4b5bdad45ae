"""Vectors that have been paid for, under opaque keys, and how those are made."""

import hashlib
from typing import Any, Final

import msgspec
from cachebox import LRUCache

from actors.embeddings.embedder import Target
from protocol.embeddings import Input
from protocol.errors import InvalidRequest

DIGEST_BYTES: Final = 20
ENTRY_BYTES: Final = 200  # what an entry takes beside its vector

_encoder: Final = msgspec.msgpack.Encoder(order="deterministic")


class VectorCache:
    """Vectors, bounded in bytes; the least recently used one goes first.

    Args:
        max_bytes: the most bytes that all of them may take; 0 keeps none.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes must not be negative, got {max_bytes}")
        self._max_bytes = max_bytes
        self._vectors: LRUCache[bytes, bytes] = LRUCache(max_bytes or 1, getsizeof=_size)

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, key: bytes) -> bytes:
        """Return the vector under ``key``; empty where there is none."""
        return self._vectors.get(key, b"")

    def put(self, key: bytes, vector: bytes) -> None:
        """Keep a vector, unless it alone is larger than the bound."""
        size = _size(key, vector)
        if size > self._max_bytes:
            return
        self._vectors.pop(key, None)
        while self._vectors.current_size() + size > self._max_bytes:
            self._vectors.popitem()
        self._vectors.insert(key, vector)


def _size(_: bytes, vector: bytes) -> int:
    return len(vector) + ENTRY_BYTES


def encoded(extra: dict[str, Any]) -> bytes:
    """Return fields for an upstream as bytes that are the same for the same fields.

    Raises:
        InvalidRequest: nobody could read them again.
    """
    if not extra:
        return b""
    try:
        return _encoder.encode(extra)
    except (OverflowError, RecursionError) as error:
        message = "the request holds an integer beyond 64 bits, or is nested too deeply"
        raise InvalidRequest(message) from error


def scope_of(tenant: str, target: Target) -> bytes:
    """Return a digest of all but the input that shapes a vector, and of whose it is."""
    return hashlib.blake2b(_encoder.encode((tenant, target)), digest_size=DIGEST_BYTES).digest()


def key_of(scope: bytes, given: Input) -> bytes:
    """Return the key of an input within a scope; the input can't be had back from it."""
    data = given.encode() if isinstance(given, str) else _encoder.encode(given)
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES, key=scope).digest()
