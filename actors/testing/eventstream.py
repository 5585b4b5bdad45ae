"""Encodes messages of AWS event streams."""

import struct
import zlib
from collections.abc import Mapping
from typing import Final

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
TEXT: Final = 7  # the type of a header's value


def event_message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Return the bytes of one message."""
    block = b"".join(_header(name.encode(), value.encode()) for name, value in headers.items())
    prelude = struct.pack(">II", 16 + len(block) + len(payload), len(block))
    message = prelude + _checksum(prelude) + block + payload
    return message + _checksum(message)


def _header(name: bytes, value: bytes) -> bytes:
    return struct.pack(">B", len(name)) + name + struct.pack(">BH", TEXT, len(value)) + value


def _checksum(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))
