"""Calls whose answer comes in one piece: JSON there, JSON back."""

import time
from collections.abc import Mapping
from typing import Final

import aiohttp

from actors.wire.failures import connecting, refusal
from protocol.errors import ProviderError

MAX_CONNECTIONS: Final = 64
MAX_BODY_BYTES: Final = 64 * 1024 * 1024
DNS_TTL: Final = 300  # seconds
OK: Final = 200
JSON: Final = "application/json"
BASE_HEADERS: Final = {"content-type": JSON, "accept": JSON, "accept-encoding": "identity", "user-agent": "tidegate"}


class JsonWire:
    """A session for unary calls. ``open`` it in the loop in which it is used.

    Args:
        max_connections: a call beyond them waits for one; 0 leaves the bound to the caller.
        max_bytes: the most bytes of an answer.
        connect_timeout: seconds until a connection stands; how long an answer may take is the caller's business.
    """

    def __init__(
        self,
        *,
        max_connections: int = MAX_CONNECTIONS,
        max_bytes: int = MAX_BODY_BYTES,
        connect_timeout: float,
    ) -> None:
        self._max_connections = max_connections
        self._max_bytes = max_bytes
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Open the session. Idempotent."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._max_connections, ttl_dns_cache=DNS_TTL),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=BASE_HEADERS,
                timeout=self._timeout,
            )

    async def close(self) -> None:
        """Close the session and every connection of it. Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        """Post ``body`` and return the whole answer; being cancelled closes the connection. No redirect is followed.

        Raises:
            ProviderError: it did not come whole, is no JSON by its type, is too large, or is a refusal.
        """
        if self._session is None:
            raise ProviderError(code="provider_unavailable")
        try:
            response = await self._session.post(url, data=body, headers=headers, allow_redirects=False)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise connecting(error) from error
        try:
            return await self._read(response)
        except (aiohttp.ClientError, OSError) as error:
            raise ProviderError(code="provider_stream_broken") from error
        finally:
            response.close()  # one that has been read to its end is back in the pool already

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if response.status != OK:
            raise refusal(response.status, response.headers, time.time())
        if response.content_type != JSON:
            raise ProviderError(code="provider_bad_response")
        chunks: list[bytes] = []
        left = self._max_bytes
        while chunk := await response.content.readany():
            left -= len(chunk)
            if left < 0:
                raise ProviderError(code="response_too_large")
            chunks.append(chunk)
        return b"".join(chunks)
