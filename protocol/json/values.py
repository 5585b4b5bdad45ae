"""The number of values in JSON text, before it is decoded."""

from collections.abc import Iterator
from typing import Final

MAX_VALUES: Final = 50_000  # of one body
PIECE: Final = 1024 * 1024  # bytes that are looked at in one go
STRUCTURE: Final = (b",", b"[", b"{")  # before each value but the first stands one of these, or a colon after a name
QUOTES: Final = 4  # at most, for each value: its own and those of its name


def has_more_values(data: bytes, limit: int = MAX_VALUES) -> bool:
    """Whether JSON text has more than ``limit`` values: members, items, arrays and objects; invalid text is guessed.

    It takes a few passes over the bytes without an object for each value. Commas in texts are not counted, but only
    where it matters.
    """
    if _structure(data) <= limit:
        return False
    quotes = found = 0
    for outside, more in without_texts(data):
        quotes += more
        found += _structure(outside)
        if quotes > QUOTES * limit or found > limit:
            return True
    return False


def without_texts(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield what stands outside of texts, without their quotes, and the number of quotes, a piece at a time."""
    inside = start = 0
    while start < len(data):
        piece = data[start : start + PIECE]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2 and len(piece) > 1:
            piece = piece[:-1]  # an escape is not cut
        start += len(piece)
        texts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        yield b"".join(texts[inside::2]), len(texts) - 1
        inside = (inside + len(texts) - 1) % 2


def _structure(data: bytes) -> int:
    return sum([data.count(mark) for mark in STRUCTURE])
