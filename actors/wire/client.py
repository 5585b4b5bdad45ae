"""Streamed calls: posts a request, and yields the deltas of its streamed answer."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Final, Self

from yarl import URL

from actors.wire.connection import DECLARED, Connection
from actors.wire.connector import Connector, system_tls_context
from actors.wire.encoding import Body
from actors.wire.limits import allowances
from actors.wire.pool import ConnectionPool
from actors.wire.post import PostRequest, as_upstream_url, media_type
from actors.wire.sse import MAX_EVENT_BYTES, EventSplitter, Splitter
from actors.wire.url import JSON, UpstreamUrl
from protocol.errors import ProviderError
from protocol.reading.loose import is_cut
from protocol.upstream import Allowance, AnswerReader, Deltas

MAX_CONNECTIONS: Final = 256
MAX_IDLE_EVENTS: Final = 65_536  # events without content, one after the other
MAX_IDLE_BYTES: Final = 32 * 1024 * 1024  # of these events
FORGIVEN: Final = 64  # events without content that one network read with content makes up for
MAX_STEP_EVENTS: Final = 128  # events that are read before other tasks run
MAX_STEP_BYTES: Final = 64 * 1024  # of these events, where they are several
LEAST_BYTES: Final = MAX_STEP_BYTES // MAX_STEP_EVENTS  # that an event counts
GRACE: Final = 1.0  # seconds that a whole answer is read on for its end marker
GRACE_FOR_USAGE: Final = 3.0  # seconds, while its usage has not come
BROKEN: Final = "provider_stream_broken"
UNREADABLE: Final = "provider_bad_response"
PLAIN: Final = frozenset({EventSplitter.content_type, JSON, "text/json", "text/plain"})  # content types of no framing


class WireClient:
    """A client that all providers of a gateway share. It has to be opened in the event loop that uses it.

    Args:
        max_connections: the most connections, over all upstreams; further requests wait. 0 for no limit: each provider
            then has its own concurrency limit, so that none takes another's connections.
        max_event_bytes: the most bytes of one event of a stream, and of a whole answer.
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
        return WireStream(self._pool, request, answer, splitter, lambda: EventSplitter(self._max_event_bytes))


class WireStream:
    """One streamed answer: a context that owns the connection, and an iterator over the deltas of each network read.

    ::

        new ──enter──► reading ──finish reason──► finished ──end marker, end of the body, or a short grace──► over
                          └──end of the body──► over

    The end of the grace counts as the end of the body: an upstream that neither closes nor says that it is done holds
    nobody up. Only content after the finish reason, which some upstreams send with every chunk, ends it: then the
    attempt's own timeouts hold.

    What can't be read after the finish reason is passed over, and so is an event that the end of the body cuts. Before
    the finish reason the first is ``provider_bad_response``, the second ``provider_stream_broken``.

    Args:
        pool: gives the connection.
        request: is sent when the context is entered.
        answer: reads the events of the answer.
        splitter: splits the stream into events.
        plain: makes the splitter of an answer that is plain JSON or server-sent events, whatever was asked for.

    Attributes:
        answer: the reader of the answer, with what it has read so far.
        limits: the rate limits that the answer's headers report; empty before the context is entered.
    """

    __slots__ = (
        "_begun",
        "_body",
        "_connection",
        "_grace_ends",
        "_held",
        "_idle_bytes",
        "_idle_events",
        "_late_content",
        "_left",
        "_passed_over",
        "_plain",
        "_pool",
        "_request",
        "_splitter",
        "_unfinished",
        "answer",
        "limits",
    )

    def __init__(
        self,
        pool: ConnectionPool,
        request: PostRequest,
        answer: AnswerReader,
        splitter: Splitter,
        plain: Callable[[], Splitter] = EventSplitter,
    ) -> None:
        self._pool = pool
        self._request = request
        self._splitter = splitter
        self._plain = plain
        self._begun = False  # content has come
        self._late_content = False  # content has come after the finish reason
        self._idle_events = self._idle_bytes = 0
        self._grace_ends = 0.0  # by the loop's clock; 0 before the grace
        self._left = False  # the grace is over
        self._unfinished: list[bytes] = []  # values at the end of the body, which may have cut the last one
        self._passed_over = False  # something that can't be read has come after the finish reason
        self._connection: Connection | None = None
        self._body: Body | None = None
        self._held: ProviderError | list[bytes] | None = None  # what comes next: a failure, or events
        self.answer = answer
        self.limits: tuple[Allowance, ...] = ()

    async def __aenter__(self) -> Self:
        connection, self._body = await self._request.send(self._pool, self._splitter.content_type)
        self._connection = connection
        self.limits = allowances(connection.headers, time.time())
        if not connection.headers.get("content-type", "").startswith(self._splitter.content_type):
            kind = media_type(connection.headers)
            if kind in PLAIN or kind.endswith("+json"):
                self._splitter = self._plain()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connection, self._connection, self._body = self._connection, None, None
        if connection is None:
            return
        if kind is None and (self.answer.ended or connection.ended):
            self._pool.release(connection)
        else:
            self._pool.discard(connection)

    def __aiter__(self) -> AsyncIterator[Deltas]:
        return self

    async def __anext__(self) -> Deltas:
        if self._held is not None:
            return await self._go_on(self._held)
        answer = self.answer
        while self._body is not None and not answer.ended:
            try:
                chunk = await (self._body.read() if answer.finish_reason is None else self._read_last(self._body))
                events = self._splitter.feed(chunk) if chunk else []
            except ProviderError:
                if not (answer.whole or self._left):
                    raise
                return self._end(broken=not self._left)
            if events:
                return self._read(events if len(events) <= MAX_STEP_EVENTS else self._step(events))
            if self._splitter.whole and (events := self._values(last=not chunk)):
                return self._read(self._step(events))
            if not chunk:
                return self._end(broken=False)
        if not answer.whole:
            raise ProviderError(code=BROKEN)
        raise StopAsyncIteration

    async def _go_on(self, held: ProviderError | list[bytes]) -> Deltas:
        """Return the deltas of the events that wait, after other tasks have run; or raise the failure."""
        if isinstance(held, ProviderError):
            self._held = self._body = None
            try:
                raise held
            finally:
                del held  # its traceback holds this frame
        await asyncio.sleep(0)
        self._held = None
        return await self.__anext__() if self.answer.ended else self._read(self._step(held))

    def _step(self, events: list[bytes]) -> list[bytes]:
        """Return the events of one step; the others wait."""
        left, taken = MAX_STEP_BYTES, 0
        for event in events:
            left -= max(len(event), LEAST_BYTES)
            if left < 0 and taken:
                break
            taken += 1
        self._held = events[taken:] or None
        return events[:taken]

    async def _read_last(self, body: Body) -> bytes:
        """Read on after the finish reason, at most until the grace is over; then close the connection."""
        connection = self._connection
        if self._late_content or connection is None or not (self._begun or self.answer.usage is not None):
            return await body.read()
        loop = asyncio.get_running_loop()
        ends = loop.time() + (GRACE if self.answer.usage is not None else GRACE_FOR_USAGE)
        self._grace_ends = min(self._grace_ends or ends, ends)
        timer = loop.call_at(self._grace_ends, self._leave)
        try:
            return await body.read()
        finally:
            timer.cancel()

    def _leave(self) -> None:
        """End the grace. An answer with finish reason and usage has ended properly."""
        self._left = self.answer.usage is not None
        if self._connection is not None:
            self._connection.close()

    def _values(self, *, last: bool) -> list[bytes]:
        """Return the values of a whole answer that are to be read now.

        Args:
            last: whether the body has ended. Then the last value, and a row of values that is one step, are left for
                the end, which may have cut them.
        """
        if not last:
            return [] if self._connection is None or self._connection.ended else self._splitter.complete()
        values = self._unfinished = self._unfinished or self._splitter.end()
        if len(values) <= 1 or sum(map(len, values)) <= MAX_STEP_BYTES >= len(values) * LEAST_BYTES:
            return []
        self._unfinished = values[-1:]
        return values[:-1]

    def _read(self, events: list[bytes]) -> Deltas:
        """Return the deltas of ``events``. A failure after some of them is raised at the next step."""
        answer = self.answer
        before = -1 if answer.finish_reason is None else 0  # deltas before the finish reason; -1 while there is none
        deltas: Deltas = []
        for event in events:
            try:
                answer.feed(event, deltas)
            except ProviderError as error:
                if self._passes_over(error):
                    continue
                if not deltas:
                    raise
                self._held = error
                break
            if answer.finish_reason is None:
                continue
            if answer.ended:
                break
            if before < 0:
                before = len(deltas)
        if not deltas:
            self._count_idle(events)
            return deltas
        self._begun = True
        late = 0 <= before < len(deltas)
        if late or self._idle_events:
            self._on_content(late=late)
        return deltas

    def _passes_over(self, error: ProviderError) -> bool:
        """Return whether a failure is only of what can't be read behind a whole answer; otherwise conceal it."""
        answer = self.answer
        if error.code == UNREADABLE and answer.whole and not (answer.ended or self._late_content):
            self._passed_over = True
            return True
        self._request.conceal(error)
        return False

    def _on_content(self, *, late: bool) -> None:
        """Let content make up for some of the events without, and for all of their bytes.

        Content after the finish reason did not end the answer; what was passed over may be missing.
        """
        self._idle_events = max(0, self._idle_events - FORGIVEN)
        self._idle_bytes = 0
        self._late_content = self._late_content or late
        if late and self._passed_over and not isinstance(self._held, ProviderError):
            self._held = ProviderError(code=UNREADABLE)

    def _count_idle(self, events: list[bytes]) -> None:
        """Count events without content, and check their bounds. After a whole answer the grace ends them."""
        self._idle_events += len(events)
        self._idle_bytes += sum(map(len, events))
        many = self._idle_events > MAX_IDLE_EVENTS or self._idle_bytes > MAX_IDLE_BYTES
        if many and (self._late_content or not self.answer.whole):
            raise ProviderError(code="response_too_large")

    def _end(self, *, broken: bool) -> Deltas:
        """Return the deltas that the end of the body completes.

        Args:
            broken: whether the body broke off; one of no declared length may have.
        """
        answer, connection = self.answer, self._connection
        self._body = None
        declared = connection is not None and not connection.headers.keys().isdisjoint(DECLARED)
        deltas: Deltas = []
        try:
            cut = broken or self._read_unfinished(deltas)
            answer.close(deltas, proper=not cut and (declared or self._left or self._splitter.whole))
        except ProviderError as error:
            self._request.conceal(error)
            cut = error.code == UNREADABLE and not declared
            if not deltas and cut:
                raise ProviderError(code=BROKEN) from error
            if not deltas:
                raise
            self._held = ProviderError(code=BROKEN) if cut else error
        if not deltas and answer.whole:
            raise StopAsyncIteration
        if not deltas:
            raise ProviderError(code=BROKEN)
        return deltas

    def _read_unfinished(self, into: Deltas) -> bool:
        """Read the events that the end of the body completes. Returns whether it cuts one, which is then dropped."""
        answer, splitter, event = self.answer, self._splitter, b""
        try:
            for event in self._unfinished or splitter.end():
                if answer.ended:
                    break
                answer.feed(event, into)
        except ProviderError as error:
            cut = answer.whole or not splitter.whole or is_cut(event)
            if error.code not in (UNREADABLE, BROKEN) or answer.ended or not cut:
                raise
            return True
        return False
