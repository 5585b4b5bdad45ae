"""Streamed calls: posts a request, and yields the deltas of its streamed answer."""

import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Final, Self

from yarl import URL

from actors.wire.connection import Connection
from actors.wire.connector import Connector, system_tls_context
from actors.wire.encoding import Body
from actors.wire.limits import allowances
from actors.wire.pool import ConnectionPool
from actors.wire.post import PostRequest, as_upstream_url
from actors.wire.sse import MAX_EVENT_BYTES, EventSplitter, Splitter
from actors.wire.url import UpstreamUrl
from protocol.errors import ProviderError
from protocol.upstream import Allowance, AnswerReader, Deltas

MAX_CONNECTIONS: Final = 256


class WireClient:
    """A client that all providers of a gateway share. It has to be opened in the event loop that uses it.

    Args:
        max_connections: the most connections, over all upstreams; further requests wait. 0 for no limit: each provider
            then has its own concurrency limit, so that none takes another's connections.
        max_event_bytes: the most bytes of one event of a stream.
        tls_context: makes the TLS context.
    """

    def __init__(
        self,
        *,
        max_connections: int = MAX_CONNECTIONS,
        max_event_bytes: int = MAX_EVENT_BYTES,
        tls_context: Callable[[], ssl.SSLContext] = system_tls_context,
    ) -> None:
        self._max_connections = max_connections
        self._max_event_bytes = max_event_bytes
        self._tls_context = tls_context
        self._pool: ConnectionPool | None = None
        self._users: set[object] = set()

    @property
    def busy(self) -> int:
        """The number of connections in use, or being made."""
        return 0 if self._pool is None else self._pool.busy

    async def open(self, user: object = None) -> None:
        """Open the client for ``user``. Idempotent."""
        self._users.add(user)
        if self._pool is None:
            self._pool = ConnectionPool(Connector(self._tls_context), limit=self._max_connections)

    async def close(self, user: object = None) -> None:
        """Close the client for ``user``; the last user closes every connection. Idempotent."""
        self._users.discard(user)
        if self._users:
            return
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    def stream(
        self,
        url: UpstreamUrl | URL | str,
        body: bytes,
        headers: Mapping[str, str],
        answer: AnswerReader,
        *,
        connect_timeout: float,
        framing: Callable[[int], Splitter] = EventSplitter,
    ) -> "WireStream":
        """Return the streamed answer to ``body``. Entering the stream posts the request.

        Args:
            url: the upstream's URL; a string is parsed at each call.
            body: JSON.
            headers: further headers.
            answer: reads the events of the answer.
            connect_timeout: seconds for making a new connection.
            framing: makes the splitter of the stream's events, from the most bytes of an event.

        Raises:
            ProviderError: ``provider_unavailable``: the client is not open, or the URL can't be used.
        """
        if self._pool is None:
            raise ProviderError(code="provider_unavailable")
        splitter = framing(self._max_event_bytes)
        request = PostRequest(as_upstream_url(url, splitter.content_type), headers, body, connect_timeout)
        return WireStream(self._pool, request, answer, splitter)


class WireStream:
    """One streamed answer: a context that owns the connection, and an iterator over the deltas of each network read.

    Args:
        pool: gives the connection.
        request: is sent when the context is entered.
        answer: reads the events of the answer.
        splitter: splits the stream into events.

    Attributes:
        answer: the reader of the answer, with what it has read so far.
        limits: the rate limits that the answer's headers report; empty before the context is entered.
    """

    __slots__ = ("_body", "_connection", "_failure", "_pool", "_request", "_splitter", "answer", "limits")

    def __init__(self, pool: ConnectionPool, request: PostRequest, answer: AnswerReader, splitter: Splitter) -> None:
        self._pool = pool
        self._request = request
        self._splitter = splitter
        self._connection: Connection | None = None
        self._body: Body | None = None
        self._failure: ProviderError | None = None
        self.answer = answer
        self.limits: tuple[Allowance, ...] = ()

    async def __aenter__(self) -> Self:
        connection, self._body = await self._request.send(self._pool, self._splitter.content_type)
        self._connection = connection
        self.limits = allowances(connection.headers, time.time())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connection, self._connection, self._body = self._connection, None, None
        if connection is None:
            return
        if kind is None and self.answer.ended:
            self._pool.release(connection)
        else:
            self._pool.discard(connection)

    def __aiter__(self) -> AsyncIterator[Deltas]:
        return self

    async def __anext__(self) -> Deltas:
        if self._failure is not None:
            raise self._failure
        answer, body = self.answer, self._body
        while body is not None and not answer.ended:
            try:
                chunk = await body.read()
            except ProviderError:
                if answer.whole:
                    break
                raise
            if not chunk:
                break
            events = self._splitter.feed(chunk)
            if events:
                return self._read(events)
        if not answer.whole:
            raise ProviderError(code="provider_stream_broken")
        raise StopAsyncIteration

    def _read(self, events: list[bytes]) -> Deltas:
        """Return the deltas of ``events``. A failure after some of them is raised at the next step."""
        answer = self.answer
        deltas: Deltas = []
        try:
            for event in events:
                answer.feed(event, deltas)
                if answer.ended:
                    break
        except ProviderError as error:
            self._request.conceal(error)
            if not deltas:
                raise
            self._failure = error
        return deltas
