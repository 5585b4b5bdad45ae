"""Fetcher: gets documents from addresses that somebody has named, and reaches nothing inside by them.

An address is ``https``, and every IP address that its host resolves to is one of the internet. The connection is made
to the addresses that were checked, so that a second resolution can't lead elsewhere. What the operator lists may be
reached by ``http`` too, at any port, and inside.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aiohappyeyeballs import AddrInfoType, start_connection
from yarl import URL

from actors.wire.connection import Connection
from actors.wire.connector import HEAD_START, system_tls_context
from actors.wire.encoding import body_of
from actors.wire.url import UpstreamUrl
from protocol.errors import FetchError, ProviderError
from protocol.fetching import FetchConfig, Listed, is_on_the_internet

MAX_FETCHES: Final = 16  # at once; others wait, within their time
MAX_ADDRESSES: Final = 16  # of one host that are looked at
MAX_URL: Final = 2048  # characters
OK: Final = 200
REDIRECTS: Final = range(300, 400)
HTTPS: Final = "https"
PORTS: Final = frozenset({443, 8443})  # of addresses that are not listed

Resolve = Callable[[str, int], Awaitable[Sequence[AddrInfoType]]]

_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


class Fetcher:
    """Gets documents. It follows no redirect, sends no credentials, and keeps no connection.

    Args:
        config: what may be fetched.
        resolve: returns the addresses of a host; None for the system's resolver.
        tls_context: makes the TLS context, in a thread.
    """

    def __init__(
        self,
        config: FetchConfig | None = None,
        *,
        resolve: Resolve | None = None,
        tls_context: Callable[[], ssl.SSLContext] = system_tls_context,
    ) -> None:
        self._config = config or FetchConfig()
        self._listed = tuple(map(Listed.of, self._config.allowed))
        self._resolve = resolve or _system_addresses
        self._make_context = tls_context
        self._context: ssl.SSLContext | None = None
        self._places = asyncio.Semaphore(MAX_FETCHES)

    async def get(self, url: str, *, accept: str = "application/json") -> bytes:
        """Return the document at ``url``.

        Raises:
            FetchError: ``fetch_refused``: the address may not be fetched; ``fetch_failed``: it gave no document.
        """
        target = self._checked(url, accept)
        try:
            async with asyncio.timeout(self._config.timeout), self._places:
                return await self._get(target)
        except TimeoutError as error:
            raise FetchError(f"nothing came within {self._config.timeout:g} s", code="fetch_failed") from error
        except (OSError, ValueError) as error:
            raise FetchError("it can't be reached", code="fetch_failed") from error
        except ProviderError as error:
            raise FetchError(f"its answer can't be read ({error.code})", code="fetch_failed") from error

    def _checked(self, url: str, accept: str) -> UpstreamUrl:
        """Return the parsed address, whose scheme and port may be fetched."""
        try:
            target = UpstreamUrl(URL(url[: MAX_URL + 1]), accept=accept, method="GET")
        except ValueError as error:
            raise FetchError("it is no address that can be fetched", code="fetch_refused") from error
        origin = target.origin
        plain = origin.tls and origin.port in PORTS
        if len(url) > MAX_URL:
            raise FetchError("it is too long", code="fetch_refused")
        if not plain and not any(one.has_port(origin.port) for one in self._listed):
            raise FetchError("only https addresses of the usual ports may be fetched", code="fetch_refused")
        return target

    async def _get(self, target: UpstreamUrl) -> bytes:
        origin = target.origin
        addresses = await self._addresses(target)
        context = await self._tls_context() if origin.tls else None
        sock = await start_connection(addresses, happy_eyeballs_delay=HEAD_START)
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(origin, _ignore),
            sock=sock,
            ssl=context,
            server_hostname=origin.host.rstrip(".") if context else None,
        )
        try:
            connection.send(target.head({}, 0), b"")
            await connection.wait_for_head()
            if connection.status != OK:
                what = "it redirects" if connection.status in REDIRECTS else f"its status is {connection.status}"
                raise FetchError(what, code="fetch_failed")
            return await self._body(connection)
        finally:
            connection.close()

    async def _addresses(self, target: UpstreamUrl) -> list[AddrInfoType]:
        """Return the addresses of a host, all of which may be reached."""
        origin = target.origin
        found = [*await self._resolve(origin.host, origin.port)][:MAX_ADDRESSES]
        safe = origin.tls and origin.port in PORTS
        for family, _, _, _, place in found:
            if family not in _FAMILIES or not self._may_reach(origin.host, str(place[0]), origin.port, safe=safe):
                raise FetchError("its host is not on the internet, or not listed", code="fetch_refused")
        if not found:
            raise FetchError("its host has no address", code="fetch_failed")
        return found

    def _may_reach(self, host: str, place: str, port: int, *, safe: bool) -> bool:
        address = ipaddress.ip_address(place.partition("%")[0])
        listed = any(one.has(host, address, port) for one in self._listed)
        return listed or (safe and is_on_the_internet(address))

    async def _body(self, connection: Connection) -> bytes:
        body, whole = body_of(connection), bytearray()
        while chunk := await body.read():
            whole += chunk
            if len(whole) > self._config.max_bytes:
                raise FetchError(f"it has more than {self._config.max_bytes} bytes", code="fetch_failed")
        return bytes(whole)

    async def _tls_context(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = await asyncio.to_thread(self._make_context)
        return self._context


async def _system_addresses(host: str, port: int) -> Sequence[AddrInfoType]:
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _ignore(_connection: Connection) -> None:
    """Nobody keeps the connection."""
