"""Unary JSON calls: posts JSON, and returns the whole JSON answer."""

import ssl
from collections.abc import Callable, Mapping
from typing import Final

from actors.wire.connector import Connector, system_tls_context
from actors.wire.encoding import Body
from actors.wire.pool import ConnectionPool
from actors.wire.post import PostRequest, as_upstream_url
from actors.wire.url import JSON, UpstreamUrl
from protocol.errors import ProviderError

MAX_CONNECTIONS: Final = 64
MAX_BODY_BYTES: Final = 48 * 1024 * 1024


class JsonWire:
    """A client for unary calls. It has to be opened in the event loop that uses it.

    Args:
        max_connections: the most connections; further calls wait. 0 for no limit.
        max_bytes: the most bytes of an answer.
        connect_timeout: seconds for making a connection; the caller bounds the whole call.
        tls_context: makes the TLS context.
    """

    def __init__(
        self,
        *,
        max_connections: int = MAX_CONNECTIONS,
        max_bytes: int = MAX_BODY_BYTES,
        connect_timeout: float,
        tls_context: Callable[[], ssl.SSLContext] = system_tls_context,
    ) -> None:
        self._max_connections = max_connections
        self._max_bytes = max_bytes
        self._connect_timeout = connect_timeout
        self._tls_context = tls_context
        self._pool: ConnectionPool | None = None

    async def open(self) -> None:
        """Open the client. Idempotent."""
        if self._pool is None:
            self._pool = ConnectionPool(Connector(self._tls_context), limit=self._max_connections)

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def post(
        self, url: UpstreamUrl | str, body: bytes, headers: Mapping[str, str], *, most: int | None = None
    ) -> bytes:
        """Post ``body``, and return the whole answer. A cancellation closes the connection. Redirects are not followed.

        Args:
            url: the upstream's URL.
            body: JSON.
            headers: further headers.
            most: the most bytes of this answer; None for the client's own bound, which holds in any case.

        Raises:
            ProviderError: the answer is a refusal, breaks off, is too large, or its content type is not JSON.
        """
        pool = self._pool
        if pool is None:
            raise ProviderError(code="provider_unavailable")
        request = PostRequest(as_upstream_url(url, JSON), headers, body, self._connect_timeout)
        connection, answer = await request.send(pool, JSON)
        try:
            whole = await self._read_all(answer, self._max_bytes if most is None else min(most, self._max_bytes))
        except BaseException:
            pool.discard(connection)
            raise
        pool.release(connection)
        return whole

    async def _read_all(self, answer: Body, left: int) -> bytes:
        chunks: list[bytes] = []
        while chunk := await answer.read():
            left -= len(chunk)
            if left < 0:
                raise ProviderError(code="response_too_large")
            chunks.append(chunk)
        return b"".join(chunks)
