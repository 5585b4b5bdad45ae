"""Frames that RFC 6455 forbids, and too many of those that it allows: a close code each, and bounded work."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.websocket import reader
from service.websocket.reader import (
    BINARY,
    BURST,
    CLOSE,
    CONTINUATION,
    FRAMES_PER_SECOND,
    MAX_FRAGMENTS,
    MAX_MESSAGE_BYTES,
    MAX_WAITING,
    PING,
    PONG,
    TEXT,
    FrameReader,
    Received,
)
from tests.hostile.edge import KEY, OURS, Edge, heads_of, open_edge
from tests.service.websocket.test_fuzz import HANDSHAKE, frame

ASKED: Final = HANDSHAKE.replace("\r\n\r\n", f"\r\nAuthorization: Bearer {OURS}\r\n\r\n").encode()
HELLO: Final = b'{"type":"ping","id":1}'
EMPTY: Final = frame(CONTINUATION, b"", final=False)


def padded(size: int) -> bytes:
    """A valid message of so many bytes."""
    return b" " * (size - len(HELLO)) + HELLO


def sized(first: int, size: int) -> bytes:
    """The head of a frame that says how long it is, and nothing of its body."""
    return bytes((first, 0xFF)) + struct.pack("!Q", size) + b"\0\0\0\0"


def fragments(count: int) -> bytes:
    """A valid message in so many frames, all but one of them empty."""
    return frame(TEXT, HELLO, final=False) + EMPTY * (count - 2) + frame(CONTINUATION, b"")


REFUSED: Final[dict[str, tuple[bytes, int]]] = {
    "without a mask": (frame(TEXT, HELLO, masked=False), 1002),
    "a ping without a mask": (frame(PING, b"", masked=False), 1002),
    "a reserved bit": (frame(TEXT, HELLO, reserved=1), 1002),
    "compressed": (frame(TEXT, b"\xaa\x56\x2a", reserved=4), 1002),
    "a compressed ping": (frame(PING, b"", reserved=4), 1002),
    "a reserved opcode": (frame(3, b""), 1002),
    "a reserved control opcode": (frame(11, b""), 1002),
    "a long ping": (frame(PING, b"a" * 126), 1002),
    "a long close": (frame(CLOSE, struct.pack("!H", 1000) + b"a" * 124), 1002),
    "a ping in pieces": (frame(PING, b"a", final=False), 1002),
    "a close in pieces": (frame(CLOSE, b"", final=False), 1002),
    "a continuation of nothing": (frame(CONTINUATION, HELLO), 1002),
    "a continuation after the end": (fragments(3) + frame(CONTINUATION, b""), 1002),
    "a message inside a message": (frame(TEXT, b"a", final=False) + frame(TEXT, HELLO), 1002),
    "a message inside an empty one": (frame(TEXT, b"", final=False) + frame(TEXT, HELLO), 1002),
    "no UTF-8": (frame(TEXT, b"\xff\xfe"), 1007),
    "half a character": (frame(TEXT, b'"\xc3'), 1007),
    "a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "a close of one byte": (frame(CLOSE, b"a"), 1002),
    "a reason that is no UTF-8": (frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007),
    **{
        f"close {code}": (frame(CLOSE, struct.pack("!H", code)), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535)
    },
    "one byte too many": (frame(TEXT, padded(MAX_MESSAGE_BYTES + 1)), 1009),
    "one byte too many, in pieces": (
        frame(TEXT, b" ", final=False) + frame(CONTINUATION, padded(MAX_MESSAGE_BYTES)),
        1009,
    ),
    "a length of 2^62": (sized(0x81, 1 << 62), 1009),
    "a length of 2^63": (sized(0x81, 1 << 63), 1002),
    "a ping of 2^62": (sized(0x89, 1 << 62), 1002),
    "a frame too many": (fragments(MAX_FRAGMENTS + 1), 1008),
    "a million empty frames": (frame(TEXT, b"{", final=False) + EMPTY * 1_000_000, 1008),
    "a flood of pings": (frame(PING, b"x") * 40_000, 4013),
    "a flood of pongs": (frame(PONG, b"x" * 125) * 4000, 4013),
    "a flood of messages": (frame(TEXT, HELLO) * 4000, 4013),
}
ACCEPTED: Final[dict[str, bytes]] = {
    "64 KiB": frame(TEXT, padded(MAX_MESSAGE_BYTES)),
    "64 KiB, in pieces": frame(TEXT, b" ", final=False) + frame(CONTINUATION, padded(MAX_MESSAGE_BYTES - 1)),
    "binary": frame(BINARY, HELLO),
    "as many frames as may be": fragments(MAX_FRAGMENTS),
    "a ping in between": frame(TEXT, HELLO[:5], final=False) + frame(PING, b"") + frame(CONTINUATION, HELLO[5:]),
    "an empty beginning": frame(TEXT, b"", final=False) + frame(CONTINUATION, HELLO),
}


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    """A service with a key."""
    async with open_edge(api_keys=(OURS,)) as running:
        yield running


async def talk(edge: Edge, data: bytes) -> list[tuple[int, bytes]]:
    """Open a socket, send bytes, and read frames to the first that answers a message, or that closes."""
    source, writer = await asyncio.open_connection("127.0.0.1", edge.service.port)
    writer.write(ASKED)
    assert (await source.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    writer.write(data)
    found: list[tuple[int, bytes]] = []
    try:
        while not found or found[-1][0] not in {TEXT, CLOSE}:
            opcode, size = await source.readexactly(2)
            assert size < 126
            found.append((opcode & 0x0F, await source.readexactly(size)))
    finally:
        writer.transport.abort()
    return found


async def closed_with(edge: Edge, data: bytes) -> int:
    """Return the code of the close frame that answers bytes; answers to valid messages before it are dropped."""
    source, writer = await asyncio.open_connection("127.0.0.1", edge.service.port)
    writer.write(ASKED)
    await source.readuntil(b"\r\n\r\n")
    writer.write(data)
    try:
        while True:
            opcode, size = await source.readexactly(2)
            payload = await source.readexactly(size)
            if opcode & 0x0F == CLOSE:
                return int.from_bytes(payload[:2], "big")
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_forbidden_closes_with_its_code(case: str) -> None:
    """The close code says why; the log has one line of it, at `info`, without what was sent."""
    data, code = REFUSED[case]
    async with open_edge(api_keys=(OURS,)) as edge:
        assert await closed_with(edge, data) == code
    edge.check_log(KEY, "hello")
    (line,) = edge.named("socket_refused")
    assert (line["level"], line["close"]) == ("info", code)
    assert set(line) <= {"timestamp", "level", "event", "logger", "close", "reason", "request_id", "trace_id", "tenant"}


@pytest.mark.parametrize("case", ACCEPTED)
async def test_what_is_allowed_is_answered(edge: Edge, case: str) -> None:
    """Bounds are inclusive; a control frame may come inside of a message."""
    answers = await talk(edge, ACCEPTED[case])
    assert json.loads(answers[-1][1])["type"] == "pong"


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999])
async def test_a_close_is_answered_with_its_code(edge: Edge, code: int) -> None:
    """A valid close code comes back; what is sent after it is not read."""
    data = frame(CLOSE, struct.pack("!H", code) + "bye é".encode()) + frame(TEXT, HELLO) + b"\xff" * 100
    assert await talk(edge, data) == [(CLOSE, struct.pack("!H", code))]


async def test_a_close_without_a_code_is_a_normal_one(edge: Edge) -> None:
    """An empty close frame is answered with 1000."""
    assert await talk(edge, frame(CLOSE, b"")) == [(CLOSE, struct.pack("!H", 1000))]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        (("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"), 426),
        (("Sec-WebSocket-Version: 13\r\n", ""), 426),
        (("Upgrade: websocket\r\n", ""), 426),
        (("Upgrade: websocket", "Upgrade: h2c"), 426),
        (("Connection: Upgrade\r\n", ""), 426),
        (("GET", "HEAD"), 426),
        (("HTTP/1.1", "HTTP/1.0"), 426),
        (("GET", "POST"), 405),
        (("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400),
        (("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400),
        (("dGhlIHNhbXBsZSBub25jZQ==", "é" * 24), 400),
        (("Connection: Upgrade", "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400),
    ],
)
async def test_an_upgrade_that_is_none_says_so(changed: tuple[str, str], status: int) -> None:
    """426 names the version and the protocol; a wrong key is the client's mistake, not ours."""
    async with open_edge() as edge:
        answer = await edge.send(HANDSHAKE.replace(*changed).encode())
        ((found, headers), *_) = heads_of(answer)
        assert found == status
        assert headers["server"] == "tidegate"
        if status == 426:
            assert (headers["upgrade"], headers["sec-websocket-version"]) == ("websocket", "13")
    edge.check_log()


async def test_a_key_as_a_subprotocol_is_not_written_down() -> None:
    """A subprotocol that the service does not know is neither taken nor logged."""
    async with open_edge() as edge:
        source, writer = await asyncio.open_connection("127.0.0.1", edge.service.port)
        writer.write(HANDSHAKE.replace("\r\n\r\n", f"\r\nSec-WebSocket-Protocol: bearer.{KEY}\r\n\r\n").encode())
        head = await source.readuntil(b"\r\n\r\n")
        writer.transport.abort()
    assert b" 101 " in head
    assert b"rotocol:" not in head
    edge.check_log(KEY)
    assert [line for line in edge.lines if line["level"] == "warning"] == []


# -------------------------------------------------------------------------------------------------------- counted work


class Meter(FrameReader):
    """A reader that counts the frames that it takes."""

    __slots__ = ("taken",)

    def __init__(self, flow: "Flow", now: float = 0.0) -> None:
        super().__init__(flow, lambda: flow.now)
        self.taken = 0

    def _take(self, opcode: int, payload: bytes, *, final: bool) -> None:
        self.taken += 1
        super()._take(opcode, payload, final=final)


class Flow:
    """A connection that records whether it is read."""

    def __init__(self) -> None:
        self.reading = True
        self.now = 0.0

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


async def drain(meter: FrameReader) -> list[Received]:
    """Take what waits."""
    found = []
    while meter._waiting:
        found.append(await meter.receive())
    return found


@pytest.mark.parametrize(
    ("data", "most"),
    [
        (frame(TEXT, b"{", final=False) + EMPTY * 100_000, MAX_FRAGMENTS + 1),
        (frame(PING, b"") * 100_000, BURST + 1),
        (fragments(MAX_FRAGMENTS) * 2000, MAX_FRAGMENTS * (BURST + 1)),
        (frame(CLOSE, b"") + frame(PING, b"") * 100_000, 1),
    ],
)
async def test_a_flood_costs_a_bounded_number_of_frames(data: bytes, most: int) -> None:
    """However many come: frames of a message, and messages and pings without time to send them, are bounded."""
    meter = Meter(Flow())
    for place in range(0, len(data), 1 << 18):
        meter.feed_data(data[place : place + (1 << 18)])
        await drain(meter)
    assert meter.taken <= most
    assert not meter._buffer


async def test_no_more_is_parsed_than_is_taken() -> None:
    """Messages that nobody takes stop the parser and the connection; taking them goes on where it was."""
    flow = Flow()
    meter = Meter(flow)
    meter.feed_data(frame(TEXT, HELLO) * 150)
    assert (meter.taken, flow.reading) == (MAX_WAITING, False)
    assert len(await drain(meter)) == meter.taken == 150
    assert flow.reading


async def test_a_rate_is_allowed_after_the_burst() -> None:
    """Each second has room for as many as the rate; one more closes with 4013."""
    flow = Flow()
    meter = Meter(flow)
    for flow.now, count in ((0.0, int(BURST)), (1.0, int(FRAMES_PER_SECOND))):
        for _ in range(count):
            meter.feed_data(frame(PONG, b""))
            assert [received.opcode for received in await drain(meter)] == [PONG]
    meter.feed_data(frame(PONG, b""))
    assert [(received.opcode, received.code) for received in await drain(meter)] == [(CLOSE, 4013)]


async def test_a_body_that_is_too_large_is_refused_by_its_head() -> None:
    """Nothing of it is kept."""
    meter = Meter(Flow())
    meter.feed_data(sized(0x81, MAX_MESSAGE_BYTES + 1))
    assert [received.code for received in await drain(meter)] == [1009]


async def test_a_message_a_byte_at_a_time_is_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser looks at a frame only when it can be whole: three times, not once a byte."""
    looks: list[int] = []
    meter = Meter(Flow())
    parse = FrameReader._parse

    def look(reader: FrameReader) -> None:
        looks.append(1)
        parse(reader)

    monkeypatch.setattr(FrameReader, "_parse", look)
    for byte in frame(TEXT, padded(MAX_MESSAGE_BYTES)):
        meter.feed_data(bytes((byte,)))
    assert len(looks) == 3
    assert len(await drain(meter)) == 1


messages = st.lists(
    st.tuples(st.sampled_from([TEXT, BINARY, PING]), st.text(max_size=40), st.integers(1, 5)), max_size=8
)
junk = st.one_of(
    st.binary(max_size=300),
    st.lists(
        st.builds(
            frame,
            st.integers(0, 15),
            st.binary(max_size=200),
            final=st.booleans(),
            reserved=st.sampled_from([0, 0, 0, 1, 4]),
            masked=st.sampled_from([True, True, True, False]),
        ),
        max_size=8,
    ).map(b"".join),
)


@given(messages, st.integers(1, 50))
def test_messages_arrive_as_they_were_sent(sent: list[tuple[int, str, int]], step: int) -> None:
    """However a message is cut into frames, and the bytes into reads."""
    data, expected = b"", []
    for kind, text, pieces in sent:
        payload = text.encode()
        if kind == PING:
            payload, pieces = payload[:125], 1  # noqa: PLW2901 - a control frame
        size = len(payload) // pieces + 1
        parts = [payload[place : place + size] for place in range(0, len(payload), size)] or [b""]
        for index, part in enumerate(parts):
            data += frame(CONTINUATION if index else kind, part, final=index == len(parts) - 1)
        expected.append(Received(kind, text if kind == TEXT else payload))
    meter = Meter(Flow())

    async def read() -> list[Received]:
        found = []
        for place in range(0, len(data), step):
            meter.feed_data(data[place : place + step])
            found += await drain(meter)
        return found

    assert asyncio.run(read()) == expected


@given(junk, st.integers(1, 400))
def test_any_bytes_end_with_a_code_or_wait_for_more(data: bytes, step: int) -> None:
    """Nothing is raised; after the end nothing is kept."""
    meter = Meter(Flow())
    for place in range(0, len(data), step):
        assert meter.feed_data(data[place : place + step]) == (False, b"")
    last: Any = meter._waiting[-1] if meter._waiting else None
    if meter._ended:
        assert last.opcode == CLOSE
        assert last.code in reader._SENT_CODES
        assert not meter._buffer
    assert len(meter._buffer) <= max(len(data), 1)
