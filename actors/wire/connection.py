"""One connection to an upstream: a request goes out, its answer is read, and then the next one's."""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from actors.wire.endpoint import Origin
from protocol.errors import ProviderError

READ_AHEAD: Final = 64 * 1024  # bytes that nobody has asked for; beyond them the upstream has to wait
MAX_HEAD_BYTES: Final = 64 * 1024  # with all that is said on the way to it; and of what may follow a body
MAX_FIELDS: Final = 256
FINAL: Final = 200  # statuses from here on are an answer; what is below is said on the way to it
JOINED: Final = 64 * 1024  # bytes of a body that goes out in one piece with its head


class Connection(asyncio.Protocol):
    """One connection. One caller at a time uses it: ``send``, then ``answered``, then ``read`` until nothing comes.

    Whoever is cancelled while waiting may wait again; whoever gives up has to ``close`` it. Bytes that nobody has asked
    for close it too: no answer can be taken for another's.

    Args:
        origin: whom it leads to.
        lost: called once, when it no longer stands.

    Attributes:
        origin: whom it leads to.
        status: of the answer; 0 until its head has come.
        headers: of the answer, by lower-case names; of a name that came several times the first.
        ended: whether the answer has come to its end; True before the first request.
        open: whether it still stands.
        on_end: called at the answer's end; from when it is set on, what comes of the answer is dropped.
    """

    def __init__(self, origin: Origin, lost: "Callable[[Connection], None]") -> None:
        self.origin = origin
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = True
        self.open = False
        self.on_end: Callable[[Connection], None] | None = None
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._fields: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []
        self._bare = 0  # bytes that have come since there was one of a body
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
        """Whether anything may be asked of it: a transport may be closing before it has said so."""
        return self.open and not self._transport.is_closing()

    @property
    def reusable(self) -> bool:
        """Whether it may be kept for the next request."""
        return self.ended and self._kept_alive and self.usable and not self._transport.get_write_buffer_size()

    def send(self, head: bytes, body: bytes) -> None:
        """Begin an exchange. What the upstream does not take at once goes out while its answer is awaited."""
        self.status = self._bare = 0
        self.ended = False
        self._fields.clear()
        if len(body) <= JOINED:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    async def answered(self) -> None:
        """Wait for the answer's head.

        Raises:
            ProviderError: ``provider_unavailable``: the connection has ended before; ``provider_bad_response``: what
                came is no head, or is too large for one.
        """
        while not self.status:
            await self._news()

    async def read(self) -> bytes:
        """Return what has come of the body since it was last asked, once there is something; nothing at its end.

        Raises:
            ProviderError: ``provider_stream_broken``: the connection has ended before, or what came is no body.
        """
        chunks = self._chunks
        while not chunks:
            if self.ended:
                return b""
            await self._news()
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self.drop()
        return data

    def drop(self) -> None:
        """Drop what has come of the body and was not read."""
        self._chunks.clear()
        self._unread = 0
        if self._paused:
            self._paused = False
            if self.usable:
                self._transport.resume_reading()

    def close(self) -> None:
        """Let go of it, at once, with all that was not sent."""
        if self.open:
            self.open = False
            self._transport.abort()

    async def _news(self) -> None:
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

    # what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        self._transport = cast("asyncio.Transport", transport)
        self.open = True

    def data_received(self, data: bytes) -> None:
        """Some of the answer has come, or of what nobody has asked for."""
        unasked = self.ended
        if unasked or not self.open:
            self.close()
            return
        self._bare += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._fail("provider_stream_broken" if self.status else "provider_bad_response")
        if self._chunks:
            self._bare = 0
            self._unread += len(data)
            if self._unread > READ_AHEAD and not self._paused and self.open:
                self._paused = True
                self._transport.pause_reading()
        elif self._bare > MAX_HEAD_BYTES:
            self._fail("provider_stream_broken" if self.status else "provider_bad_response")
        if self._waiter is not None:
            self._wake()
        elif self.on_end is not None:
            self.drop()
            if self.ended:
                self.on_end(self)

    def eof_received(self) -> None:
        """The upstream says nothing more, which is how a body of no declared length ends."""
        if self.status and self.headers.keys().isdisjoint(("content-length", "transfer-encoding")):
            self.ended = True
        self.close()

    def connection_lost(self, _error: Exception | None) -> None:
        """It no longer stands."""
        self.open = False
        self._fail("provider_stream_broken" if self.status else "provider_unavailable")
        self._wake()
        self._lost(self)
        del self._parser  # which holds its callbacks, and so this

    # what the parser calls, with ``on_header`` and ``on_body``

    def on_message_begin(self) -> None:
        """A head begins."""
        if self.ended:
            raise ValueError("an answer to nothing")

    def on_headers_complete(self) -> None:
        """A head is there."""
        status, fields = self._parser.get_status_code(), self._fields
        if status < FINAL:
            fields.clear()
            return
        if len(fields) > MAX_FIELDS or (self._bare > MAX_HEAD_BYTES and _size(fields) > MAX_HEAD_BYTES):
            raise ValueError("too large a head")
        self.headers = {
            name.decode("latin-1").lower(): value.decode("latin-1").rstrip() for name, value in fields.items()
        }
        self.status = status

    def on_message_complete(self) -> None:
        """An answer, or what is said on the way to it, has ended."""
        if self.status:
            self.ended = True
            self._kept_alive = self._parser.should_keep_alive()


def _size(fields: dict[bytes, bytes]) -> int:
    return sum(map(len, fields)) + sum(map(len, fields.values()))
