"""Identifiers: sortable by time, unguessable and short."""

import os
import time
from functools import lru_cache

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PREFIX = "req_"
_PAIRS = tuple(high + low for high in CROCKFORD for low in CROCKFORD)
_DIGITS = CROCKFORD.encode() * 8  # maps a random byte to a digit; every digit has the same number of bytes
_EPOCH_DIGITS = CROCKFORD.lower().encode() * 8


def ulid(milliseconds: int | None = None) -> str:
    """Return a ULID: 48 bits of Unix time in milliseconds and 80 random bits, as 26 Crockford base-32 characters."""
    now = int(time.time() * 1000) if milliseconds is None else milliseconds
    random = os.urandom(16).translate(_DIGITS).decode()
    return f"{_quarter_hour(now >> 20)}{_PAIRS[now >> 10 & 1023]}{_PAIRS[now & 1023]}{random}"


def request_id() -> str:
    """Return a new request id: ``req_`` and a ULID."""
    return PREFIX + ulid()


def call_id(prefix: str = "call_") -> str:
    """Return an id for a model's tool call that has none."""
    return prefix + os.urandom(12).hex()


def epoch() -> str:
    """Return a new log epoch: eight random lower-case characters (40 bits)."""
    return os.urandom(8).translate(_EPOCH_DIGITS).decode()


@lru_cache(maxsize=1)
def _quarter_hour(number: int) -> str:
    """Return the first six characters of all ULIDs of 2**20 milliseconds."""
    return "".join([_PAIRS[number >> shift & 1023] for shift in (20, 10, 0)])
