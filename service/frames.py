"""WebSocket frames of the server: whole and unmasked, so the same bytes are valid for every client."""

import struct
from typing import Final

_TEXT, _CLOSE, _PING, _PONG = 0x81, 0x88, 0x89, 0x8A
_SMALL, _MEDIUM = 126, 1 << 16
_MAX_REASON: Final = 123  # bytes: a control frame's 125 without the code

PING: Final = bytes((_PING, 0))
PING_INTERVAL: Final = 25.0  # seconds, below every proxy's 60


def text_frame(payload: bytes) -> bytes:
    """Return a text message."""
    size = len(payload)
    if size < _SMALL:
        return b"%c%c%b" % (_TEXT, size, payload)
    if size < _MEDIUM:
        return struct.pack("!BBH", _TEXT, 126, size) + payload
    return struct.pack("!BBQ", _TEXT, 127, size) + payload


def close_frame(code: int, reason: str) -> bytes:
    """Return a close frame; a longer reason is cut."""
    payload = code.to_bytes(2, "big") + reason.encode()[:_MAX_REASON].decode(errors="ignore").encode()
    return bytes((_CLOSE, len(payload))) + payload


def pong_frame(payload: bytes) -> bytes:
    """Return the answer to a ping that brought ``payload``."""
    return bytes((_PONG, len(payload))) + payload


class Joiner:
    """Joins several text messages into one, a line each, for clients that accept ``batch``.

    The hub writes the same bytes to one socket after the other, so the last result is cached.
    """

    __slots__ = ("_joined", "_last")

    def __init__(self) -> None:
        self._last = b""
        self._joined = b""

    def __call__(self, frames: bytes) -> bytes:
        """Return whole text messages as one message; control frames are returned unchanged."""
        if frames is not self._last:
            self._last, self._joined = frames, _joined(frames)
        return self._joined


def _joined(frames: bytes) -> bytes:
    lines: list[bytes] = []
    place = 0
    while place < len(frames):
        if frames[place] != _TEXT:
            return frames
        size, place = frames[place + 1], place + 2
        if size >= _SMALL:
            width = 2 if size == _SMALL else 8
            size, place = int.from_bytes(frames[place : place + width], "big"), place + width
        lines.append(frames[place : place + size].replace(b"\r", b" ").replace(b"\n", b" "))
        place += size
    return text_frame(b"\n".join(lines)) if len(lines) > 1 or b"\n" in frames else frames
