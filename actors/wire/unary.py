"""Calls whose answer comes in one piece: JSON there, JSON back."""

import ssl
from collections.abc import Callable, Mapping
from typing import Final

from actors.wire.connector import Dialer, trusting_the_system
from actors.wire.encoding import Body
from actors.wire.endpoint import JSON, Endpoint
from actors.wire.pool import Pool
from actors.wire.post import Post, reached
from protocol.errors import ProviderError

MAX_CONNECTIONS: Final = 64
MAX_BODY_BYTES: Final = 64 * 1024 * 1024


class JsonWire:
    """Connections for unary calls. ``open`` it in the loop in which it is used.

    Args:
        max_connections: a call beyond them waits for one; 0 leaves the bound to the caller.
        max_bytes: the most bytes of an answer.
        connect_timeout: seconds until a connection stands; how long an answer may take is the caller's business.
        trust: makes what TLS goes by.
    """

    def __init__(
        self,
        *,
        max_connections: int = MAX_CONNECTIONS,
        max_bytes: int = MAX_BODY_BYTES,
        connect_timeout: float,
        trust: Callable[[], ssl.SSLContext] = trusting_the_system,
    ) -> None:
        self._max_connections = max_connections
        self._max_bytes = max_bytes
        self._connect_timeout = connect_timeout
        self._trust = trust
        self._pool: Pool | None = None

    async def open(self) -> None:
        """Open it. Idempotent."""
        if self._pool is None:
            self._pool = Pool(Dialer(self._trust), limit=self._max_connections)

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def post(self, endpoint: Endpoint | str, body: bytes, headers: Mapping[str, str]) -> bytes:
        """Post ``body`` and return the whole answer; being cancelled closes the connection. No redirect is followed.

        Raises:
            ProviderError: it did not come whole, is no JSON by its type, is too large, or is a refusal.
        """
        pool = self._pool
        if pool is None:
            raise ProviderError(code="provider_unavailable")
        connection, answer = await Post(reached(endpoint, JSON), headers, body, self._connect_timeout).send(pool, JSON)
        try:
            whole = await self._whole(answer)
        except BaseException:
            pool.discard(connection)
            raise
        pool.release(connection)
        return whole

    async def _whole(self, answer: Body) -> bytes:
        chunks: list[bytes] = []
        left = self._max_bytes
        while chunk := await answer.read():
            left -= len(chunk)
            if left < 0:
                raise ProviderError(code="response_too_large")
            chunks.append(chunk)
        return b"".join(chunks)
