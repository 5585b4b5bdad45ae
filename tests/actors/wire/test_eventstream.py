import struct
import zlib

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from actors.testing.eventstream import event_message
from actors.wire.eventstream import MessageSplitter
from protocol.errors import ProviderError

HEADERS = {":message-type": "event", ":event-type": "chunk"}
ALL_KINDS = (
    b"\x01a\x00\x01b\x01\x01c\x02\x01\x01d\x03\x00\x01\x01e\x04\x00\x00\x00\x01\x01f\x05\x00\x00\x00\x00\x00\x00\x00\x01"
    b"\x01g\x06\x00\x02hi\x01h\x07\x00\x02ho\x01i\x08\x00\x00\x00\x00\x00\x00\x00\x01\x01j\x09" + bytes(16)
)


def test_the_scripted_upstream_writes_what_aws_reads() -> None:
    """AWS's own parser reads the scripted messages, checksums included."""
    buffer = EventStreamBuffer()
    buffer.add_data(event_message(HEADERS, b"one") + event_message({}, b""))
    messages = list(buffer)
    assert [(message.headers, message.payload) for message in messages] == [(HEADERS, b"one"), ({}, b"")]


@given(st.lists(st.binary(max_size=40), max_size=5), st.integers(1, 30))
def test_messages_come_whole_wherever_they_are_cut(payloads: list[bytes], size: int) -> None:
    """Messages are returned whole and in order wherever the network cuts the stream."""
    stream = b"".join(event_message(HEADERS, payload) for payload in payloads)
    splitter = MessageSplitter()
    found = [m for at in range(0, len(stream), size) for m in splitter.feed(stream[at : at + size])]
    assert [(message.headers, message.payload) for message in found] == [(HEADERS, one) for one in payloads]


def test_headers_of_every_type_are_read_over() -> None:
    """Headers of every type are parsed, and those with strings are returned."""
    (message,) = MessageSplitter().feed(_with_headers(ALL_KINDS))
    assert message.headers == {"h": "ho"}


@pytest.mark.parametrize("at", [0, 9, 14, -1])
def test_a_wrong_byte_is_detected(at: int) -> None:
    """A wrong byte fails a checksum; the messages before it are returned first."""
    broken = bytearray(event_message(HEADERS, b"two"))
    broken[at] ^= 1
    splitter = MessageSplitter()
    assert [m.payload for m in splitter.feed(event_message(HEADERS, b"one") + broken)] == [b"one"]
    with pytest.raises(ProviderError) as failure:
        splitter.feed(b"")
    assert failure.value.code == "provider_bad_response"


@pytest.mark.parametrize("block", [b"\x05ab", b"\x01a\x0a", b"\x01a\x07\x00", b"\x01\xff\x07\x00\x00"])
def test_headers_that_make_no_sense_are_a_bad_response(block: bytes) -> None:
    """Headers that can't be parsed are a bad response, also with valid checksums."""
    with pytest.raises(ProviderError) as failure:
        MessageSplitter().feed(_with_headers(block))
    assert failure.value.code == "provider_bad_response"


def test_more_headers_than_message_is_a_bad_response() -> None:
    """Headers longer than the message are a bad response."""
    with pytest.raises(ProviderError) as failure:
        MessageSplitter().feed(_prelude(16, 200))
    assert failure.value.code == "provider_bad_response"


def test_a_message_has_a_bound() -> None:
    """A message is refused by its declared length, before it has been received."""
    splitter = MessageSplitter(limit=100)
    assert splitter.feed(event_message({}, b"x" * 84)) != []
    with pytest.raises(ProviderError) as failure:
        splitter.feed(event_message({}, b"x" * 85)[:12])
    assert failure.value.code == "response_too_large"


def _prelude(total: int, headers: int) -> bytes:
    lengths = struct.pack(">II", total, headers)
    return lengths + struct.pack(">I", zlib.crc32(lengths))


def _with_headers(block: bytes) -> bytes:
    message = _prelude(16 + len(block), len(block)) + block
    return message + struct.pack(">I", zlib.crc32(message))
