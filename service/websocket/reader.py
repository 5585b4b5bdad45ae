"""Reads a client's WebSocket frames as RFC 6455 has them, within bounds on their size, number and rate.

aiohttp's own reader accepts frames without a mask, and any number of empty ones.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from protocol.errors import PROBLEMS

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

MAX_MESSAGE_BYTES: Final = 64 * 1024
MAX_FRAGMENTS: Final = 128  # frames of one message
FRAMES_PER_SECOND: Final = 100.0  # messages, pings and pongs
BURST: Final = 200.0  # of them at once
MAX_WAITING: Final = 64  # messages that are parsed and not yet taken; then no more are parsed, and nothing is read

PROTOCOL_ERROR: Final = 1002
INVALID_TEXT: Final = 1007
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009
NORMAL: Final = 1000

_FINAL, _RESERVED, _OPCODE, _MASKED, _SIZE = 0x80, 0x70, 0x0F, 0x80, 0x7F
_OPCODES: Final = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
_LONG, _LONGEST, _MASK = 126, 127, 4
_HEADS: Final = {_LONG: 4, _LONGEST: 10}  # bytes of a head before its mask
_SENT_CODES: Final = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})


class Flow(Protocol):
    """The connection, whose reading pauses while messages wait."""

    def pause_reading(self) -> None:
        """Stop reading."""

    def resume_reading(self) -> None:
        """Read on."""


class Received(NamedTuple):
    """What a client has sent: a message (``TEXT`` or ``BINARY``), a ``PING``, a ``PONG``, or the end.

    Attributes:
        opcode: of the frame; ``CLOSE`` is the end.
        payload: of a message or a control frame; at the end the reason for it, empty where the client closes.
        code: at the end the close code to send; 0 where the connection is lost.
    """

    opcode: int
    payload: str | bytes
    code: int = 0


class FrameReader:
    """Parses the bytes of one client, and hands out its messages in order. After the end it drops what still comes.

    ::

        reading --a close frame, or one that is refused--> ended
           ^ |
           | | ``MAX_WAITING`` messages
           | v
         paused

    Args:
        flow: the connection.
        time: the time in seconds; the loop's.
    """

    __slots__ = (
        "_allowance", "_buffer", "_counted_at", "_ended", "_flow", "_fragments", "_kind", "_message", "_needed",
        "_paused", "_time", "_waiter", "_waiting",
    )  # fmt: skip

    def __init__(self, flow: Flow, time: Callable[[], float]) -> None:
        self._flow = flow
        self._time = time
        self._buffer = bytearray()
        self._needed = 2  # bytes in the buffer before which there is nothing to parse
        self._kind = 0  # the opcode of the message that has begun
        self._message = bytearray()
        self._fragments = 0
        self._waiting: deque[Received] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self._ended = False
        self._allowance = BURST
        self._counted_at = time()

    async def receive(self) -> Received:
        """Return the next message, ping or pong; at the end, each time, ``CLOSE``."""
        while not self._waiting:
            if self._ended:
                return Received(CLOSE, "")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        received = self._waiting.popleft()
        if self._paused and len(self._waiting) < MAX_WAITING // 2:
            self._paused = False
            self._parse()
            if not self._paused:
                self._flow.resume_reading()
        return received

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take bytes, as aiohttp calls a parser."""
        if not self._ended:
            self._buffer += data
            if len(self._buffer) >= self._needed and not self._paused:
                self._parse()
        return False, b""

    def feed_eof(self) -> None:
        """Take the end of the connection, as aiohttp calls a parser."""
        if not self._ended:
            self._end(Received(CLOSE, ""))

    def _parse(self) -> None:
        """Parse the frames in the buffer, until one is not whole, is refused, or enough messages wait."""
        now, place = self._time(), 0
        self._allowance = min(BURST, self._allowance + (now - self._counted_at) * FRAMES_PER_SECOND)
        self._counted_at = now
        while not self._ended:
            if len(self._waiting) >= MAX_WAITING:
                self._paused = True
                self._flow.pause_reading()
                break
            end = self._next_frame(place)
            if not end:
                break
            place = end
        del self._buffer[:place]

    def _next_frame(self, place: int) -> int:
        """Take the frame at ``place``; returns the place after it, or 0 where it is not whole yet or refused."""
        buffer = self._buffer
        body = self._body_of(place, len(buffer) - place)
        if body is None:
            return 0
        start, end = body
        if len(buffer) < end:
            self._needed = end - place
            return 0
        first = buffer[place]
        payload = _unmasked(buffer[start - _MASK : start], buffer[start:end])
        self._take(first & _OPCODE, payload, final=bool(first & _FINAL))
        return end

    def _body_of(self, place: int, left: int) -> tuple[int, int] | None:
        """Return where the body of the frame begins and ends; None where its head is not whole yet or refused."""
        buffer = self._buffer
        self._needed = 2
        if left < self._needed:
            return None
        first, second = buffer[place], buffer[place + 1]
        refusal = self._refusal_of(first, second)
        if refusal:
            self._fail(PROTOCOL_ERROR, refusal)
            return None
        short = second & _SIZE
        head = _HEADS.get(short, 2)
        if left < head:
            self._needed = head
            return None
        size = short if short < _LONG else int.from_bytes(buffer[place + 2 : place + head], "big")
        if size >> 63:
            self._fail(PROTOCOL_ERROR, "a frame's length has its highest bit set")
        elif first & _OPCODE < CLOSE and len(self._message) + size > MAX_MESSAGE_BYTES:
            self._fail(TOO_BIG, f"a message has at most {MAX_MESSAGE_BYTES} bytes")
        start = place + head + _MASK
        return None if self._ended else (start, start + size)

    def _refusal_of(self, first: int, second: int) -> str:
        """Return why a frame with this head is no valid one now; empty where it is."""
        opcode = first & _OPCODE
        control, begun = opcode >= CLOSE, self._kind != 0
        faults = (
            (first & _RESERVED, "a reserved bit is set: no extension was agreed on"),
            (opcode not in _OPCODES, "the opcode is reserved"),
            (not second & _MASKED, "a client's frames are masked"),
            (control and not first & _FINAL, "a control frame is in one piece"),
            (control and second & _SIZE >= _LONG, "a control frame has at most 125 bytes"),
            (opcode == CONTINUATION and not begun, "no message has begun that could go on"),
            (opcode in {TEXT, BINARY} and begun, "the message before is not at its end"),
        )
        return next((reason for wrong, reason in faults if wrong), "")

    def _take(self, opcode: int, payload: bytes, *, final: bool) -> None:
        if opcode != CONTINUATION:
            self._allowance -= 1.0
            if self._allowance < 0.0:
                self._fail(PROBLEMS["rate_limited"].close, "rate_limited")
                return
        if opcode >= CLOSE:
            self._take_control(opcode, payload)
            return
        if opcode != CONTINUATION:
            self._kind = opcode
        self._fragments += 1
        if self._fragments > MAX_FRAGMENTS:
            self._fail(POLICY_VIOLATION, f"a message has at most {MAX_FRAGMENTS} frames")
            return
        if not final:
            self._message += payload
            return
        kind, whole = self._kind, bytes(self._message + payload) if self._message else payload
        self._kind = self._fragments = 0
        self._message = bytearray()
        if kind == BINARY:
            self._add(Received(kind, whole))
            return
        try:
            self._add(Received(kind, whole.decode()))
        except UnicodeDecodeError:
            self._fail(INVALID_TEXT, "a text is UTF-8")

    def _take_control(self, opcode: int, payload: bytes) -> None:
        if opcode != CLOSE:
            self._add(Received(opcode, payload))
            return
        if not payload:
            self._end(Received(CLOSE, "", NORMAL))
            return
        code = int.from_bytes(payload[:2], "big")
        if len(payload) < 2 or code not in _SENT_CODES:  # noqa: PLR2004 - bytes of a code
            self._fail(PROTOCOL_ERROR, "the close code is not valid")
            return
        try:
            payload[2:].decode()
        except UnicodeDecodeError:
            self._fail(INVALID_TEXT, "a reason is UTF-8")
            return
        self._end(Received(CLOSE, "", code))

    def _fail(self, code: int, reason: str) -> None:
        self._end(Received(CLOSE, reason, code))

    def _end(self, last: Received) -> None:
        """Hand out ``last`` after what waits; keep nothing else."""
        self._ended = True
        self._buffer = bytearray()
        self._message = bytearray()
        self._add(last)

    def _add(self, received: Received) -> None:
        self._waiting.append(received)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _unmasked(mask: bytes | bytearray, payload: bytes | bytearray) -> bytes:
    size = len(payload)
    key = (bytes(mask) * (size // _MASK + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")
