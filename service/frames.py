"""What is wrapped around a payload on the socket: whole, unmasked frames, the same bytes for every client."""

import struct
from typing import Final

_TEXT, _CLOSE, _PING, _PONG = 0x81, 0x88, 0x89, 0x8A
_SMALL, _MEDIUM = 126, 1 << 16
_MAX_REASON: Final = 123  # bytes: what a control frame has left beside the code

PING: Final = bytes((_PING, 0))


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
