"""One HTTP/1.1 connection to an upstream: sends a request, reads its answer, then serves the next request."""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from actors.wire.url import Origin
from protocol.errors import ProviderError

READ_AHEAD: Final = 64 * 1024  # unread bytes of a body; beyond them reading from the socket is paused
MAX_READ: Final = 64 * 1024  # bytes that one read returns: what they are is work until other tasks run
MAX_ANSWER_BYTES: Final = 512 * 1024 * 1024  # of one answer, with its head and its framing
MAX_HEAD_BYTES: Final = 64 * 1024  # of a head with the interim heads before it (100, 103), and of a body's trailers
MAX_FIELDS: Final = 256  # headers of one answer
FINAL_STATUS: Final = 200  # statuses below it are interim: another head follows
DECLARED: Final = ("content-length", "transfer-encoding")  # headers that say where the body ends
MAX_JOINED_BYTES: Final = 64 * 1024  # of a body that is written together with its head


class Connection(asyncio.Protocol):
    """A connection for one caller at a time: ``send``, then ``wait_for_head``, then ``read`` until it returns no bytes.

    A caller that was cancelled while waiting may wait again; one that gives up has to ``close`` the connection. Bytes
    that arrive without a request close it too, so that no answer is taken for another request's.

    Args:
        origin: the host that it connects to.
        on_lost: called once, when the connection is lost or closed.

    Attributes:
        origin: the host that it connects to.
        status: the answer's HTTP status; 0 until its head has been read.
        headers: the answer's headers, by lower-case name; the first value of a name that is repeated.
        ended: whether the answer has ended; True before the first request.
        open: whether the connection is open.
        on_end: called when the answer ends; while it is set, the rest of the answer is dropped.
    """

    def __init__(self, origin: Origin, on_lost: "Callable[[Connection], None]") -> None:
        self.origin = origin
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = True
        self.open = False
        self.on_end: Callable[[Connection], None] | None = None
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._fields: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []
        self._left = MAX_ANSWER_BYTES  # bytes that may still come of the answer
        self._left_at_body = MAX_ANSWER_BYTES  # the same, when the last byte of a body had come
        self._unread = 0
        self._paused = False
        self._kept_alive = True
        self._failure = ""
        self._waiter: asyncio.Future[None] | None = None
        self.on_header = self._fields.setdefault
        self.on_body = self._chunks.append
        self._parser = HttpResponseParser(self)

    @property
    def usable(self) -> bool:
        """Whether a request may be sent: a transport may be closing before it reports the loss."""
        return self.open and not self._transport.is_closing()

    @property
    def reusable(self) -> bool:
        """Whether it may serve another request."""
        transport = self._transport
        free = self.ended and self._kept_alive and self.open
        return free and not transport.is_closing() and not transport.get_write_buffer_size()

    def send(self, head: bytes, body: bytes) -> None:
        """Send a request without waiting; the transport buffers what the upstream does not take at once."""
        self.status = 0
        self._left = self._left_at_body = MAX_ANSWER_BYTES
        self.ended = False
        self._fields.clear()
        if len(body) <= MAX_JOINED_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    async def wait_for_head(self) -> None:
        """Wait for the answer's head.

        Raises:
            ProviderError: ``provider_unavailable``: the connection was lost; ``provider_bad_response``: the bytes are
                not an HTTP head, or the head is too large.
        """
        while not self.status:
            await self._wait()

    async def read(self) -> bytes:
        """Wait for bytes of the body, and return those that have come since the last call; no bytes at its end.

        At most ``MAX_READ`` of them: where there are more, other tasks run before it returns.

        Raises:
            ProviderError: ``provider_stream_broken``: the connection was lost, or the bytes are not an HTTP body;
                ``response_too_large``: the answer has more than ``MAX_ANSWER_BYTES``.
        """
        chunks = self._chunks
        while not chunks:
            if self.ended:
                return b""
            await self._wait()
        if self._paused:
            return await self._read_step()
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._unread = 0
        return data

    async def _read_step(self) -> bytes:
        """Return the first of many unread bytes, after other tasks have run."""
        chunks = self._chunks
        data = b"".join(chunks)
        chunks[:] = [data]
        await asyncio.sleep(0)  # a caller that is cancelled here has lost nothing
        if len(data) > MAX_READ:
            chunks[0] = data[MAX_READ:]
            return data[:MAX_READ]
        del chunks[0]
        if not chunks:
            self.drop()
        return data

    def drop(self) -> None:
        """Drop the unread bytes of the body."""
        self._chunks.clear()
        self._unread = 0
        if self._paused:
            self._paused = False
            if self.usable:
                self._transport.resume_reading()

    def close(self) -> None:
        """Close it at once, without sending what is still buffered."""
        if self.open:
            self.open = False
            self._transport.abort()

    def _pause(self) -> None:
        """Read nothing from the socket until the caller has read what has come, a step at a time."""
        if not self._paused:
            self._paused = True
            if self.open:
                self._transport.pause_reading()

    async def _wait(self) -> None:
        if self._failure:
            raise ProviderError(code=self._failure)
        self._waiter = self._loop.create_future()
        await self._waiter

    def _fail(self, code: str) -> None:
        if not self.ended:
            self._failure = self._failure or code
        self.close()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --------------------------------------------------------------------------------------- callbacks of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Mark the connection as open."""
        self._transport = cast("asyncio.Transport", transport)
        self.open = True

    def data_received(self, data: bytes) -> None:
        """Parse bytes of the answer. Bytes without a request close the connection."""
        unrequested = self.ended
        if unrequested or not self.open:
            self.close()
            return
        size = len(data)
        left = self._left = self._left - size
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._fail("provider_stream_broken" if self.status else "provider_bad_response")
        if left < 0:
            self._fail("response_too_large")
        if self._chunks:
            self._left_at_body = left
            self._unread += size
            if self._unread > READ_AHEAD:
                self._pause()
        elif self._left_at_body - left > MAX_HEAD_BYTES:
            self._fail("provider_stream_broken" if self.status else "provider_bad_response")
        if self._waiter is not None:
            self._wake()
        elif self.on_end is not None:
            self.drop()
            if self.ended:
                self.on_end(self)

    def eof_received(self) -> None:
        """Close the connection. A body of no declared length ends here."""
        if self.status and self.headers.keys().isdisjoint(DECLARED):
            self.ended = True
        self.close()

    def connection_lost(self, _error: Exception | None) -> None:
        """Fail the answer that has not ended, and call ``on_lost``."""
        self.open = False
        self._fail("provider_stream_broken" if self.status else "provider_unavailable")
        self._wake()
        self._on_lost(self)
        del self._parser  # it holds its callbacks, and so this connection

    # -------------------------------------------------- callbacks of the parser, with ``on_header`` and ``on_body``

    def on_message_begin(self) -> None:
        """Refuse a head where no request is under way."""
        if self.ended:
            raise ValueError("an answer without a request")

    def on_headers_complete(self) -> None:
        """Take over the status and the headers. An interim head is dropped."""
        status, fields = self._parser.get_status_code(), self._fields
        if status < FINAL_STATUS:
            fields.clear()
            return
        read = self._left_at_body - self._left
        if len(fields) > MAX_FIELDS or (read > MAX_HEAD_BYTES and _size(fields) > MAX_HEAD_BYTES):
            raise ValueError("the head is too large")
        names = b"\n".join(fields).decode("latin-1").lower().split("\n")
        values = b"\n".join(fields.values()).decode("latin-1").split("\n")
        self.headers = dict(zip(names, map(str.rstrip, values), strict=True))
        self.status = status

    def on_message_complete(self) -> None:
        """Mark the answer as ended; the end of an interim head is ignored."""
        if self.status:
            self.ended = True
            self._kept_alive = self._parser.should_keep_alive()


def _size(fields: dict[bytes, bytes]) -> int:
    return sum(map(len, fields)) + sum(map(len, fields.values()))
