"""Frames: the bytes around a text."""

import pytest

from service.frames import text_frame


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_the_length_takes_as_few_bytes_as_it_may(size: int, head: bytes) -> None:
    """RFC 6455 allows only the shortest of the three forms."""
    assert text_frame(b"x" * size) == head + b"x" * size
