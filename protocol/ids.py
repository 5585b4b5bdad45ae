"""Identifiers: sortable by time, unguessable, and short enough to read aloud."""

import os
import time

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PREFIX = "req_"
_PAIRS = tuple(high + low for high in CROCKFORD for low in CROCKFORD)
_DIGITS = CROCKFORD.encode() * 8  # one for each byte, each as often: five of its eight random bits
_EPOCH_DIGITS = CROCKFORD.lower().encode() * 8


def ulid(milliseconds: int | None = None) -> str:
    """Return a ULID: 48 bits of Unix time in milliseconds and 80 random bits, as 26 Crockford base-32 characters."""
    now = time.time_ns() // 1_000_000 if milliseconds is None else milliseconds
    moment = "".join([_PAIRS[now >> shift & 1023] for shift in (40, 30, 20, 10, 0)])
    return moment + os.urandom(16).translate(_DIGITS).decode()


def request_id() -> str:
    """Return a new request id: ``req_`` and a ULID."""
    return PREFIX + ulid()


def epoch() -> str:
    """Return a new log epoch: eight lower-case characters that no earlier log has had."""
    return os.urandom(8).translate(_EPOCH_DIGITS).decode()
