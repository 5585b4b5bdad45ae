"""The one HTTP client: a shared session with a bounded connector, and answers read from its streams."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import lru_cache
from types import TracebackType
from typing import Final, Self

import aiohttp
from yarl import URL

from actors.wire.failures import connecting, refusal
from actors.wire.limits import allowances
from actors.wire.sse import MAX_EVENT_BYTES, EventSplitter, Splitter
from protocol.errors import ProviderError
from protocol.upstream import Allowance, AnswerReader, Pieces

MAX_CONNECTIONS: Final = 256
DNS_TTL: Final = 300  # seconds
LINGER: Final = 1.0  # seconds for which a finished answer's connection may wait for its last bytes
OK: Final = 200
BASE_HEADERS: Final = {
    "content-type": "application/json",
    "accept": "text/event-stream",
    "accept-encoding": "identity",
    "user-agent": "tidegate",
}


class WireClient:
    """The session that all providers of one gateway share. ``open`` it in the loop in which it is used.

    Args:
        max_connections: over all upstreams; a request beyond them waits for one. 0 leaves the bound to the providers'
            own lanes, so that none takes another's connections.
        max_event_bytes: the most bytes of one event of an upstream's stream.
    """

    def __init__(self, *, max_connections: int = MAX_CONNECTIONS, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_connections = max_connections
        self._max_event_bytes = max_event_bytes
        self._session: aiohttp.ClientSession | None = None
        self._lingering: set[aiohttp.ClientResponse] = set()
        self._users: set[object] = set()

    async def open(self, user: object = None) -> None:
        """Open the session, on behalf of ``user``. Idempotent."""
        self._users.add(user)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._max_connections, ttl_dns_cache=DNS_TTL),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=BASE_HEADERS,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            )

    async def close(self, user: object = None) -> None:
        """Close the session and every connection of it, once all that opened it have closed it. Idempotent."""
        self._users.discard(user)
        if self._users:
            return
        while self._lingering:
            self._lingering.pop().close()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def stream(
        self,
        url: str | URL,
        body: bytes,
        headers: Mapping[str, str],
        answer: AnswerReader,
        *,
        connect_timeout: float,
        framing: Callable[[int], Splitter] = EventSplitter,
    ) -> "WireStream":
        """Return the answer to ``body``, posted to ``url`` when the stream is entered.

        ``framing`` takes the stream apart, and is given the most bytes of an event.
        """
        if self._session is None:
            raise ProviderError(code="provider_unavailable")
        timeout = _within(connect_timeout)
        sending = self._session.post(url, data=body, headers=headers, timeout=timeout, allow_redirects=False)
        return WireStream(sending, answer, framing(self._max_event_bytes), self._linger)

    def _linger(self, response: aiohttp.ClientResponse) -> None:
        """Let a connection go back to the pool with its body's last bytes, which follow the end marker."""
        content = response.content
        if content.is_eof():
            response.release()
            return

        def gone() -> None:
            timer.cancel()
            self._lingering.discard(response)

        def late() -> None:
            self._lingering.discard(response)
            response.close()

        timer = asyncio.get_running_loop().call_later(LINGER, late)
        self._lingering.add(response)
        content.on_eof(gone)


@lru_cache(maxsize=64)
def _within(connect_timeout: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)


class WireStream:
    """One answer on the wire: a context that owns the response, and an iterator over what each network read gave.

    Attributes:
        answer: what is known of the answer so far.
        limits: what the upstream says of its rate limits, from entering on.
    """

    __slots__ = ("_failure", "_linger", "_response", "_sending", "_splitter", "answer", "limits")

    def __init__(
        self,
        sending: "aiohttp.client._RequestContextManager",
        answer: AnswerReader,
        splitter: Splitter,
        linger: Callable[[aiohttp.ClientResponse], None],
    ) -> None:
        self._linger = linger
        self._sending = sending
        self._splitter = splitter
        self._response: aiohttp.ClientResponse | None = None
        self._failure: ProviderError | None = None
        self.answer = answer
        self.limits: tuple[Allowance, ...] = ()

    async def __aenter__(self) -> Self:
        try:
            response = self._response = await self._sending
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise connecting(error) from error
        if response.status != OK:
            response.close()
            raise refusal(response.status, response.headers, time.time())
        if response.content_type != self._splitter.content_type:
            response.close()
            raise ProviderError(code="provider_bad_response")
        self.limits = allowances(response.headers, time.time())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        response = self._response
        if response is None or response.closed:
            return
        if kind is None and self.answer.ended:
            self._linger(response)
        else:
            response.close()

    def __aiter__(self) -> AsyncIterator[Pieces]:
        return self

    async def __anext__(self) -> Pieces:
        if self._failure is not None:
            raise self._failure
        answer = self.answer
        while not answer.ended:
            chunk = await self._read()
            if not chunk:
                break
            events = self._splitter.feed(chunk)
            if events:
                return self._pieces(events)
        if not answer.whole:
            raise ProviderError(code="provider_stream_broken")
        raise StopAsyncIteration

    async def _read(self) -> bytes:
        if self._response is None:
            return b""
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            if self.answer.whole:
                return b""
            raise ProviderError(code="provider_stream_broken") from error

    def _pieces(self, events: list[bytes]) -> Pieces:
        """Read ``events``. What came before a failure is given first, and the failure with the next step."""
        answer = self.answer
        pieces: Pieces = []
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
