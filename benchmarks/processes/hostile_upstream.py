"""An upstream that answers each model's name with its own kind of malice, until ``FLOOD`` bytes are sent.

``python -m benchmarks.processes.hostile_upstream``: prints its port as a line of JSON, and ends with its own input.
"""

import asyncio
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

FLOOD: Final = 3_000_000_000  # bytes of an answer, decompressed ones where it is compressed
STREAM: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
WHOLE: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
CHUNKED: Final = STREAM + b"Transfer-Encoding: chunked\r\n\r\n"
GZIP: Final = 31
LENGTH: Final = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
STEP: Final = 1_000_000

Pieces = Iterator[bytes]


def chunk(text: str | None = None, finish: str | None = None, **fields: Any) -> bytes:  # noqa: ANN401 - JSON
    """Return an event with a chunk of a chat completion."""
    delta = fields.pop("delta", {} if text is None else {"content": text})
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **fields}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def calls(*pieces: dict[str, Any]) -> bytes:
    """Return an event with pieces of tool calls."""
    return chunk(delta={"tool_calls": list(pieces)})


def call(index: int, arguments: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return a piece of a call."""
    return {"index": index, "function": {"arguments": arguments, **fields}}


DONE: Final = chunk(finish="stop") + b"data: [DONE]\n\n"


def forever(piece: bytes, total: int = FLOOD) -> Pieces:
    """Yield ``piece`` until so many bytes are sent."""
    piece *= max(1, STEP // len(piece))
    for _ in range(max(1, total // len(piece))):
        yield piece


def stream(*pieces: bytes, then: bytes = b"", total: int = FLOOD) -> Pieces:
    """Yield a stream that begins with ``pieces`` and goes on with ``then``."""
    yield STREAM + b"\r\n" + b"".join(pieces)
    if then:
        yield from forever(then, total)


def compressed(piece: bytes, begin: bytes = b"", layers: int = 1, head: bytes = STREAM) -> Pieces:
    """Yield a compressed stream that begins with ``begin`` and goes on with ``piece``."""
    coding = b", ".join([b"gzip"] * layers)
    packers = [zlib.compressobj(9, zlib.DEFLATED, GZIP) for _ in range(layers)]
    piece *= max(1, STEP // len(piece))

    def packed(data: bytes) -> bytes:
        for packer in packers:
            data = packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH)
        return data

    yield head + b"Content-Encoding: " + coding + b"\r\n\r\n" + packed(begin)
    again = b""
    for _ in range(FLOOD // len(piece)):
        again = packed(piece) if layers > 1 or not again else again
        yield again


def after(text: str, pieces: Pieces) -> Pieces:
    """Yield a stream that begins with content."""
    yield STREAM + b"\r\n" + chunk(text)
    next(pieces)
    yield from pieces


def paced(piece: bytes) -> Pieces:
    """Yield content once, and then a piece each time that the socket has taken the last one, slowly."""
    yield STREAM + b"\r\n" + chunk("x")
    for _ in range(100_000):
        yield b""
        yield piece


def own_fields(count: int) -> bytes:
    """Return a chunk with so many fields that no reader knows, and further ones with one each."""
    wide = chunk(delta={f"f{number}": 1 for number in range(count)})
    return wide + chunk(delta={"f0": 1}) * 50_000


def whole_again(size: int, times: int) -> bytes:
    """Return a text of so many characters, and a whole message with its beginning, so many times."""
    message = b'data: {"choices":[{"index":0,"message":{"content":"x y"}}]}\n\n'
    return chunk("x  y " * (size // 5)) * 1 + chunk("x") + message * times


def zeros() -> Pieces:
    """Yield a compressed answer that does not end, and zeros behind it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, GZIP)
    body = packer.compress(chunk("x")) + packer.flush()
    yield STREAM + b"Content-Encoding: gzip\r\n\r\n" + body
    yield from forever(b"\0" * 1000)


MODES: Final[dict[str, Callable[[], Pieces]]] = {
    "gzip-comments": lambda: compressed(b": c\n\n"),
    "gzip-blank": lambda: compressed(b"\n"),
    "gzip-data-lines": lambda: compressed(b"data: x\n"),
    "gzip-empty-data": lambda: compressed(b"data:\n"),
    "gzip-empty-events": lambda: compressed(b"data: {}\n\n"),
    "gzip-one-event": lambda: compressed(b"x" * 1000, b"data: "),
    "gzip-gzip": lambda: compressed(b": c\n\n", layers=2),
    "gzip-content": lambda: compressed(chunk("x")),
    "gzip-error": lambda: compressed(b"x" * 1000, head=b"HTTP/1.1 500 X\r\nContent-Type: application/json\r\n"),
    "gzip-zeros": zeros,
    "headers": lambda: iter([STREAM, *[b"X-A: " + b"a" * 1000 + b"\r\n"] * 100_000]),
    "one-header": lambda: iter([STREAM + b"X: ", *[b"a" * 100_000] * 2000]),
    "interim": lambda: forever(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", 200_000_000),
    "status-line": lambda: forever(b"H" * 1000, 200_000_000),
    "chunk-size": lambda: iter([CHUNKED, *[b"0" * 100_000] * 1000]),
    "chunk-extension": lambda: iter([CHUNKED + b"5;", *[b"a" * 100_000] * 1000]),
    "tiny-chunks": lambda: iter([CHUNKED, *forever(b"1;" + b"e" * 1000 + b"\r\n:\r\n", 1_000_000_000)]),
    "trailers": lambda: iter(
        [CHUNKED + b"%x\r\n%b\r\n0\r\n" % (len(DONE), DONE), *[b"X-A: " + b"a" * 1000 + b"\r\n"] * 100_000]
    ),
    "error-body": lambda: iter(
        [b"HTTP/1.1 500 X\r\nContent-Type: application/json\r\n\r\n", *[b"a" * 100_000] * 20_000]
    ),
    "redirect": lambda: iter([b"HTTP/1.1 307 T\r\nLocation: http://127.0.0.1:9/internal\r\nContent-Length: 0\r\n\r\n"]),
    "comments": lambda: stream(then=b": keep\n\n"),
    "data-lines": lambda: stream(then=b"data:\n"),
    "data-lines-x": lambda: stream(then=b"data: xxxxxxxx\n"),
    "blank-lines": lambda: stream(then=b"\n"),
    "carriage-returns": lambda: stream(then=b"data: x\r"),
    "empty-events": lambda: stream(then=chunk("")),
    "empty-objects": lambda: stream(then=b"data: {}\n\n"),
    "empty-after-content": lambda: after("x", stream(then=b"data: {}\n\n")),
    "pings-after-content": lambda: paced(b": ping\n\n"),
    "empty-after-content-paced": lambda: paced(chunk("")),
    "one-delta": lambda: stream(b'data: {"choices":[{"index":0,"delta":{"content":"', then=b"x" * 1000),
    "endless-text": lambda: stream(then=chunk("x" * 1000)),
    "endless-letters": lambda: stream(then=chunk("x")),
    "endless-reasoning": lambda: stream(then=chunk(delta={"reasoning_content": "x" * 1000})),
    "endless-arguments": lambda: stream(calls({"id": "a", **call(0, "", name="f")}), then=calls(call(0, "x" * 1000))),
    "tiny-arguments": lambda: stream(calls({"id": "a", **call(0, "", name="f")}), then=calls(call(0, "x"))),
    "call-indexes": lambda: stream(
        *[calls({"id": f"a{n}", **call(n * 1_000_003, "{}", name="f")}) for n in range(20_000)], DONE
    ),
    "calls-in-one": lambda: stream(calls(*[call(0, "x", name="f") for _ in range(150_000)]), DONE),
    "endless-name": lambda: stream(
        calls({"id": "a", **call(0, "", name="f")}), then=calls(call(0, "", name="f" * 100))
    ),
    "finish-each": lambda: stream(then=chunk("x" * 20, finish="stop")),
    "finish-each-large": lambda: stream(chunk("x" * 3_000_000), chunk("x"), then=chunk("xyz", finish="stop")),
    "whole-again": lambda: stream(whole_again(3_000_000, 5000), DONE),
    "own-fields": lambda: stream(own_fields(20_000), DONE),
    "thought-rows": lambda: stream(chunk(delta={"reasoning_details": [{"type": "thinking"}] * 3}) * 20_000, DONE),
    "deep": lambda: stream(b"data: " + b"[" * 900_000 + b"\n\n"),
    "deep-content": lambda: stream(
        b'data: {"choices":[{"index":0,"delta":{"content":'
        + b"[" * 400
        + b'"x",' * 500_000
        + b'"x"'
        + b"]" * 400
        + b"}}]}\n\n",
        DONE,
    ),
    "many-values": lambda: stream(b'data: {"a":[' + b"[]," * 5_000_000 + b"[]]}\n\n", DONE),
    "many-choices": lambda: stream(b'data: {"choices":[' + b"{}," * 3_000_000 + b"{}]}\n\n", DONE),
    "many-keys": lambda: stream(
        b"data: {" + b",".join(b'"k%d":1' % number for number in range(1_000_000)) + b"}\n\n", DONE
    ),
    "long-number": lambda: stream(b'data: {"choices":[{"index":' + b"9" * 8_000_000 + b"}]}\n\n", DONE),
    "usage-number": lambda: stream(
        chunk("hi"), b'data: {"choices":[],"usage":{"prompt_tokens":' + b"9" * 6000 + b"}}\n\n", DONE
    ),
    "whole-values": lambda: iter([WHOLE, b'{"choices":[' + b"{}," * 4_000_000 + b"{}]}"]),
    "json-lines": lambda: iter([WHOLE, b"{}\n" * 65_000]),
    "whole-endless": lambda: iter([WHOLE + b'{"a":"', *[b"x" * 100_000] * 20_000]),
    "logprobs": lambda: stream(
        chunk("x", delta={"content": "x"})[:-4] + b',"x":[' + b"[1]," * 1_000_000 + b"1]}\n\n",
        DONE,
    ),
}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        found = LENGTH.search(head)
        body = await reader.readexactly(int(found[1]) if found else 0)
        for piece in MODES[json.loads(body)["model"]]():
            writer.write(piece)
            await writer.drain()
            if not piece:
                await asyncio.sleep(0.3)
    except (ConnectionError, asyncio.IncompleteReadError, KeyError):
        pass
    finally:
        writer.close()


async def main() -> None:
    """Serve until the standard input ends."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(json.dumps({"port": port, "modes": [*MODES]}) + "\n")
    sys.stdout.flush()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
