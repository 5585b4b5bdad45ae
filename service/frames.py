"""What a frame's JSON is wrapped in on the socket."""

import struct
from typing import Final

TEXT: Final = 0x81  # a final fragment of text
SMALL: Final = 126
MEDIUM: Final = 1 << 16


def text_frame(payload: bytes) -> bytes:
    """Return a whole, unmasked text message: the same bytes are valid for every socket."""
    size = len(payload)
    if size < SMALL:
        return b"%c%c%b" % (TEXT, size, payload)
    if size < MEDIUM:
        return struct.pack("!BBH", TEXT, 126, size) + payload
    return struct.pack("!BBQ", TEXT, 127, size) + payload
