"""Frames: the bytes around a text."""

import pytest

from service.frames import Joiner, close_frame, pong_frame, text_frame


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


def test_a_close_frame_is_a_control_frame() -> None:
    """A reason that is too long is cut between two characters."""
    assert close_frame(4001, "bye") == b"\x88\x05\x0f\xa1bye"
    long = close_frame(4001, "é" * 100)
    assert long[1] == len(long) - 2 == 124
    assert long[4:].decode() == "é" * 61


def test_a_pong_brings_back_what_the_ping_brought() -> None:
    """A pong has the payload of the ping."""
    assert pong_frame(b"there?") == b"\x8a\x06there?"


@pytest.mark.parametrize("sizes", [(3, 4), (10, 125, 126), (0, 65_535, 65_536), (70_000,)])
def test_several_messages_become_one(sizes: tuple[int, ...]) -> None:
    """The payloads become lines, of any length; the same bytes are joined once."""
    payloads = [b"x" * size for size in sizes]
    frames = b"".join(map(text_frame, payloads))
    join = Joiner()
    joined = join(frames)
    assert joined == text_frame(b"\n".join(payloads))
    assert join(frames) is joined


def test_a_payload_stays_on_its_line() -> None:
    """Newlines between JSON tokens become spaces."""
    assert Joiner()(text_frame(b'{\r\n"a":1}')) == text_frame(b'{  "a":1}')


def test_control_frames_are_not_joined() -> None:
    """A close frame is not joined."""
    frame = close_frame(1000, "bye")
    assert Joiner()(frame) is frame
