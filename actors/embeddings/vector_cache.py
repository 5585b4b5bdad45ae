"""Cache of vectors, and its keys."""

import hashlib
from typing import Any, Final

import msgspec

from actors.embeddings.embedder import BatchKey
from actors.fair_lru import FairLru
from actors.fair_shares import Tenants
from protocol.embeddings import Input
from protocol.errors import InvalidRequest

DIGEST_BYTES: Final = 20
ENTRY_BYTES: Final = 300  # memory of an entry beside its vector

_encoder: Final = msgspec.msgpack.Encoder(order="deterministic")


class VectorCache:
    """LRU cache of vectors, bounded in bytes, which the tenants share.

    Args:
        max_bytes: the most bytes of all entries; 0 keeps none.
        tenants: share the bound; None for any tenants.
    """

    def __init__(self, max_bytes: int, tenants: Tenants | None = None) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes must not be negative, got {max_bytes}")
        self._vectors: FairLru[bytes, bytes] = FairLru(_size, max_bytes=max_bytes, tenants=tenants)

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, key: bytes, tenant: str = "") -> bytes:
        """Return the vector of a tenant under ``key``; empty where there is none."""
        return self._vectors.get(tenant, key) or b""

    def put(self, key: bytes, vector: bytes, tenant: str = "") -> None:
        """Add a vector, unless it alone is larger than what the tenant may take."""
        self._vectors.put(tenant, key, vector)


def _size(vector: bytes) -> int:
    return len(vector) + ENTRY_BYTES


def encoded(extra: dict[str, Any]) -> bytes:
    """Encode fields for an upstream; equal fields give equal bytes.

    Raises:
        InvalidRequest: they can't be encoded.
    """
    if not extra:
        return b""
    try:
        return _encoder.encode(extra)
    except (OverflowError, RecursionError) as error:
        message = "the request holds an integer beyond 64 bits, or is nested too deeply"
        raise InvalidRequest(message) from error


def scope_of(tenant: str, key: BatchKey) -> bytes:
    """Return a digest of the tenant and of all the parameters of a vector but its input."""
    return hashlib.blake2b(_encoder.encode((tenant, key)), digest_size=DIGEST_BYTES).digest()


def key_of(scope: bytes, item: Input) -> bytes:
    """Return the key of an input within a scope, a digest: it does not reveal the input."""
    data = item.encode() if isinstance(item, str) else _encoder.encode(item)
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES, key=scope).digest()
