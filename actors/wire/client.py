"""The wire that the providers share, and the answers that are read from it as they come."""

import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Final, Self

from yarl import URL

from actors.wire.connection import Connection
from actors.wire.connector import Dialer, trusting_the_system
from actors.wire.encoding import Body
from actors.wire.endpoint import Endpoint
from actors.wire.limits import allowances
from actors.wire.pool import Pool
from actors.wire.post import Post, reached
from actors.wire.sse import MAX_EVENT_BYTES, EventSplitter, Splitter
from protocol.errors import ProviderError
from protocol.upstream import Allowance, AnswerReader, Deltas

MAX_CONNECTIONS: Final = 256


class WireClient:
    """The connections that all providers of one gateway share. ``open`` it in the loop in which it is used.

    Args:
        max_connections: over all upstreams; a request beyond them waits for one. 0 leaves the bound to the providers'
            own lanes, so that none takes another's connections.
        max_event_bytes: the most bytes of one event of an upstream's stream.
        trust: makes what TLS goes by.
    """

    def __init__(
        self,
        *,
        max_connections: int = MAX_CONNECTIONS,
        max_event_bytes: int = MAX_EVENT_BYTES,
        trust: Callable[[], ssl.SSLContext] = trusting_the_system,
    ) -> None:
        self._max_connections = max_connections
        self._max_event_bytes = max_event_bytes
        self._trust = trust
        self._pool: Pool | None = None
        self._users: set[object] = set()

    @property
    def busy(self) -> int:
        """How many connections are in use, or are being made."""
        return 0 if self._pool is None else self._pool.busy

    async def open(self, user: object = None) -> None:
        """Open it, on behalf of ``user``. Idempotent."""
        self._users.add(user)
        if self._pool is None:
            self._pool = Pool(Dialer(self._trust), limit=self._max_connections)

    async def close(self, user: object = None) -> None:
        """Close every connection, once all that opened it have closed it. Idempotent."""
        self._users.discard(user)
        if self._users:
            return
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    def stream(
        self,
        endpoint: Endpoint | URL | str,
        body: bytes,
        headers: Mapping[str, str],
        answer: AnswerReader,
        *,
        connect_timeout: float,
        framing: Callable[[int], Splitter] = EventSplitter,
    ) -> "WireStream":
        """Return the answer to ``body``, posted to ``endpoint`` when the stream is entered.

        Args:
            endpoint: where to; a URL is read anew each time.
            body: JSON.
            headers: beside those of the endpoint.
            answer: reads it.
            connect_timeout: seconds until a new connection stands.
            framing: takes the stream apart, and is given the most bytes of an event.

        Raises:
            ProviderError: ``provider_unavailable``: it is not open, or no request can go to that URL.
        """
        if self._pool is None:
            raise ProviderError(code="provider_unavailable")
        splitter = framing(self._max_event_bytes)
        endpoint = reached(endpoint, splitter.content_type)
        return WireStream(self._pool, Post(endpoint, headers, body, connect_timeout), answer, splitter)


class WireStream:
    """One answer on the wire: a context that owns the connection, and an iterator over what each network read gave.

    Args:
        pool: whose connection it has.
        post: what is asked, and where.
        answer: reads what is said.
        splitter: takes the stream apart.

    Attributes:
        answer: what is known of the answer so far.
        limits: what the upstream says of its rate limits, from entering on.
    """

    __slots__ = ("_body", "_connection", "_failure", "_pool", "_post", "_splitter", "answer", "limits")

    def __init__(self, pool: Pool, post: Post, answer: AnswerReader, splitter: Splitter) -> None:
        self._pool = pool
        self._post = post
        self._splitter = splitter
        self._connection: Connection | None = None
        self._body: Body | None = None
        self._failure: ProviderError | None = None
        self.answer = answer
        self.limits: tuple[Allowance, ...] = ()

    async def __aenter__(self) -> Self:
        connection, self._body = await self._post.send(self._pool, self._splitter.content_type)
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
                return self._pieces(events)
        if not answer.whole:
            raise ProviderError(code="provider_stream_broken")
        raise StopAsyncIteration

    def _pieces(self, events: list[bytes]) -> Deltas:
        """Read ``events``. What came before a failure is given first, and the failure with the next step."""
        answer = self.answer
        pieces: Deltas = []
        try:
            for event in events:
                answer.feed(event, pieces)
                if answer.ended:
                    break
        except ProviderError as error:
            if not pieces:
                raise
            self._failure = error
        return pieces
