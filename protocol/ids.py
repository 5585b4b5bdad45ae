"""Identifiers: sortable by time, unguessable, and short enough to read aloud."""

import os
import time

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PREFIX = "req_"
_PAIRS = tuple(high + low for high in CROCKFORD for low in CROCKFORD)
_EPOCH_BYTES = 5  # 40 random bits: 8 characters


def ulid(milliseconds: int | None = None) -> str:
    """Return a ULID: 48 bits of Unix time in milliseconds and 80 random bits, as 26 Crockford base-32 characters."""
    now = time.time_ns() // 1_000_000 if milliseconds is None else milliseconds
    return _base32((now << 80) | int.from_bytes(os.urandom(10), "big"), 26)


def request_id() -> str:
    """Return a new request id: ``req_`` and a ULID."""
    return PREFIX + ulid()


def epoch() -> str:
    """Return a new log epoch: eight lower-case characters that no earlier log has had."""
    return _base32(int.from_bytes(os.urandom(_EPOCH_BYTES), "big"), 8).lower()


def _base32(value: int, length: int) -> str:
    """Return ``value`` as ``length`` characters, an even number, two at a time."""
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(length * 5 - 10, -1, -10)])
