"""Random input to the socket: an answer or a close code each time, and no leaks."""

import asyncio
import json
import os
import random
import struct
from typing import Any, Final

import pytest

from protocol.hub import GetHubStats
from service.websocket.upgrade import SOCKETS
from tests.service.bench import Service, open_service

CASES: Final = int(os.environ.get("FUZZ_CASES", "600"))
HANDSHAKE: Final = (
    "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
TYPES: Final = (
    "authenticate",
    "subscribe",
    "unsubscribe",
    "submit",
    "cancel",
    "publish",
    "presence",
    "ack",
    "ping",
    "nonsense",
    None,
    7,
)
FIELDS: Final = (
    "id",
    "requestId",
    "channel",
    "after",
    "mode",
    "batch",
    "member",
    "client",
    "event",
    "data",
    "key",
    "offset",
    "token",
    "messages",
    "model",
    "options",
    "schema",
    "unknown",
)
PLAIN: Final = (
    *(None, True, False, 0, -1, 1, 2**53, 2**63, 2**64, 10**40, -(2**63) - 1, 0.5, -0.0, 1e308, 1e-320),
    *("", "\0", "\ud83d\ude00", "\u202e", "req_1", "room:7", "k3:1", "x" * 128, "x" * 129, "x" * 5000),
    [{"role": "user", "content": "hi"}],
)


def frame(opcode: int, payload: bytes, *, final: bool = True, reserved: int = 0, masked: bool = True) -> bytes:
    """Return the bytes of a WebSocket frame, valid or not."""
    head = bytes([(final << 7) | (reserved << 4) | opcode])
    mask = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head += bytes([mask | size])
    elif size < 65_536:
        head += struct.pack("!BH", mask | 126, size)
    else:
        head += struct.pack("!BQ", mask | 127, size)
    return head + (b"\0\0\0\0" if masked else b"") + payload


class Fuzzer:
    """Generates random client input, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def value(self, depth: int = 0) -> Any:  # noqa: ANN401 - any JSON
        """Return any JSON."""
        draw = self.random
        if depth <= 3 and draw.random() < 0.2:
            many = range(draw.randrange(4))
            if draw.random() < 0.5:
                return [self.value(depth + 1) for _ in many]
            return {draw.choice(FIELDS): self.value(depth + 1) for _ in many}
        if draw.random() < 0.2:
            return {"epoch": draw.choice(PLAIN), "offset": draw.choice(PLAIN)}
        return draw.choice(PLAIN)

    def json_frame(self) -> bytes:
        """Return a JSON frame, mostly of known types."""
        made = {"type": self.random.choice(TYPES)}
        for name in self.random.sample(FIELDS, self.random.randrange(6)):
            made[name] = self.value()
        return json.dumps(made).encode()

    def garbage(self) -> bytes:
        """Return text that is not JSON, or unusual JSON."""
        draw = self.random
        return draw.choice(
            [
                draw.randbytes(draw.randrange(200)),
                b"[" * draw.choice([10, 1000, 60_000]),
                b'{"type":"publish","channel":"a","event":"b","data":' + b"[" * 5000 + b"]" * 5000 + b"}",
                self.json_frame()[: draw.randrange(1, 40)],
                b'{"type":"ping","type":"submit"}' * draw.randrange(1, 3),
            ]
        )

    def bytes(self) -> bytes:
        """Return the next bytes to send."""
        draw = self.random
        payload = self.json_frame() if draw.random() < 0.6 else self.garbage()
        if draw.random() < 0.5:
            return frame(TEXT, payload)
        middle = draw.randrange(len(payload) + 1)
        return draw.choice(
            [
                frame(TEXT, payload[:middle], final=False) + frame(0, payload[middle:]),
                frame(TEXT, payload[:middle], final=False) + frame(PING, b"") + frame(0, payload[middle:]),
                frame(BINARY, payload),
                frame(PING, payload[:125]),
                frame(PING, b"x" * 200),
                frame(PONG, b""),
                frame(0, payload),
                frame(draw.randrange(16), payload[:100], reserved=draw.randrange(8)),
                frame(CLOSE, draw.choice([b"", b"\3", struct.pack("!H", 4999), struct.pack("!H", 5)])),
                frame(TEXT, b"x" * draw.choice([65_536, 65_537, 200_000])),
                frame(TEXT, payload, masked=False),
            ]
        )


async def converse(service: Service, fuzzer: Fuzzer) -> None:
    """Send some input, and read until the connection ends or a ping is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(HANDSHAKE.encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    try:
        for _ in range(fuzzer.random.randrange(1, 8)):
            writer.write(fuzzer.bytes())
        writer.write(frame(TEXT, b'{"type":"ping","id":"the last"}'))
        await until_answered(reader)
    except ConnectionError:
        pass  # an aborted connection is an answer, too
    finally:
        writer.transport.abort()


async def until_answered(reader: asyncio.StreamReader) -> None:
    """Read frames: each text is JSON of a known type, and a close frame has a code."""
    while head := await reader.read(1):
        size = (await reader.readexactly(1))[0]
        if size >= 126:
            size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
        payload = await reader.readexactly(size)
        opcode = head[0] & 0x0F
        if opcode == CLOSE:
            assert not payload or 1000 <= int.from_bytes(payload[:2], "big") < 5000
            return
        if opcode != TEXT:
            continue
        for line in payload.split(b"\n"):
            said = json.loads(line)
            assert said["type"] in {"ack", "error", "pong", "update", "complete", "presence"}, said
            assert said.get("error", {}).get("code") != "internal_error", said
            if said["type"] == "pong" and said.get("id") == "the last":
                return


@pytest.mark.timeout(120)
async def test_anything_may_be_sent(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """Malformed, deep, huge, fragmented, wrong types: no exception is logged, and no socket or task is left."""
    async with open_service() as service:
        await converse(service, Fuzzer(-1))
        before = len(asyncio.all_tasks())
        for seed in range(CASES):
            async with asyncio.timeout(10):
                await converse(service, Fuzzer(seed))
            while not service.calls.empty():
                await service.calls.get_nowait().end()
        hub, sockets = service.container.hub, service.app[SOCKETS]
        async with asyncio.timeout(10):
            while (stats := await hub.ask(GetHubStats(), timeout=5)).sockets or sockets:
                pass
            while len(asyncio.all_tasks()) > before:
                await hub.ask(GetHubStats(), timeout=5)
        assert (stats.sockets, stats.subscriptions) == (0, 0)
    assert [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}] == []
    assert "frame_failed" not in capsys.readouterr().out
