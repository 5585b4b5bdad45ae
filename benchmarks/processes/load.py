"""The load: connections with one call at a time each, on raw protocols, so that the load itself is cheap.

It reports the time from writing each request to its first content.

A call is an OpenAI-compatible chat completion. Every answer is checked: the status, the end of a stream, and the number
of content words in it.
"""

import asyncio
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, cast
from urllib.parse import urlsplit

from benchmarks.processes import control
from benchmarks.processes.upstream import CHUNKS

WITHIN: Final = 100.0  # seconds for all calls of one run
CONTENT: Final = b"token "
END_OF_CHUNKED: Final = b"\r\n0\r\n\r\n"
BODY: Final = (
    '{"model":"gpt-4o-mini","messages":[{"role":"system","content":"You are terse."},'
    '{"role":"user","content":"%s %s"}],"temperature":0%s}'
)


class Calls:
    """The calls of one run, and their results.

    Args:
        kind: ``short`` or ``long``, for the upstream; long answers are streamed.
        count: the number of calls.
        share: the number of equal calls in a row; 1 for all distinct.
        label: makes the calls of this run distinct from those of other runs.
        head: the request's headers, up to the length of the body.

    Attributes:
        words: the number of words of content in each answer.
        stream: whether answers are streamed.
        failed: the number of wrong answers.
        first_failure: the start of the first wrong answer.
        first_content: seconds from each request to its first content.
    """

    def __init__(self, *, kind: str, count: int, share: int, label: str, head: bytes) -> None:
        self.words = CHUNKS if kind == "long" else 1
        self.stream = kind == "long"
        self.failed = 0
        self.first_failure = ""
        self.first_content: list[float] = []
        self._numbers = itertools.count()
        self._kind = kind
        self._count = count
        self._share = share
        self._label = label
        self._head = head

    def next(self) -> bytes | None:
        """Return the next request, or None after the last."""
        number = next(self._numbers)
        if number >= self._count:
            return None
        stream = ',"stream":true' if self.stream else ""
        body = (BODY % (f"bench-{self._kind}", f"{self._label}-{number // self._share}", stream)).encode()
        return b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body)

    def check(self, head: bytes, body: bytes) -> None:
        """Count a wrong answer."""
        whole = head.startswith(b"HTTP/1.1 200") and body.count(CONTENT) == self.words
        if not whole or (self.stream and b"data: [DONE]" not in body):
            self.failed += 1
            self.first_failure = self.first_failure or (head[:200] + b" | " + body[:300]).decode("latin-1")


class Caller(asyncio.Protocol):
    """One connection: sends a request, waits for the whole answer, sends the next one."""

    def __init__(self, calls: Calls, done: "asyncio.Future[None]") -> None:
        self._calls = calls
        self._done = done
        self._buffer = b""
        self._body = 0
        self._length = -1
        self._asked: float | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        """Read a piece of an answer; after the last piece send the next request."""
        self._buffer += data
        if self._asked is not None and CONTENT in self._buffer:
            self._calls.first_content.append(time.perf_counter() - self._asked)
            self._asked = None
        if not self._body and not self._headers():
            return
        body = len(self._buffer) - self._body
        if body >= self._length if self._length >= 0 else self._buffer.endswith(END_OF_CHUNKED):
            self._calls.check(self._buffer[: self._body], self._buffer[self._body :])
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        """Fail, unless all calls are done."""
        if not self._done.done():
            self._done.set_exception(error or ConnectionError("the server closed a connection"))

    def _headers(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        self._length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else -1
        self._body = end + 4 if self._length >= 0 else end + 2
        return True

    def _send(self) -> None:
        self._buffer, self._body, self._length = b"", 0, -1
        request = self._calls.next()
        assert self._transport is not None
        if request is not None:
            self._asked = time.perf_counter()
            self._transport.write(request)
        elif not self._done.done():
            self._done.set_result(None)
            self._transport.close()


def percentile(figures: Sequence[float], share: float) -> float:
    """Return the smallest figure that ``share`` of them do not exceed; 0 for no figures."""
    return sorted(figures)[max(0, math.ceil(len(figures) * share) - 1)] if figures else 0.0


async def call(
    *,
    address: str,
    key: str,
    connections: int,
    kind: str,
    count: int,
    share: int,
    label: str,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Make the calls; return the seconds, the times to the first content, and the number of failures."""
    where = urlsplit(address)
    lines = {"Host": where.netloc, "Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    lines.update(headers or {})
    fields = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{fields}".encode()
    calls = Calls(head=head, kind=kind, count=count, share=share, label=label)
    loop = asyncio.get_running_loop()
    start = time.perf_counter()
    ends: list[asyncio.Future[None]] = [loop.create_future() for _ in range(connections)]
    async with asyncio.timeout(WITHIN):
        for end in ends:
            await loop.create_connection(partial(Caller, calls, end), where.hostname or "", where.port or 0)
        await asyncio.gather(*ends)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "first_p50": percentile(calls.first_content, 0.5),
        "first_p99": percentile(calls.first_content, 0.99),
        "failed": calls.failed,
        "failure": calls.first_failure,
    }


async def main() -> None:
    """Run the parent's commands until it ends."""
    await control.serve({}, call=call)


if __name__ == "__main__":
    control.run(main())
