"""Makes connections to upstreams: DNS, TCP with happy eyeballs, and TLS."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

from aiohappyeyeballs import start_connection

from actors.exhausted import check_descriptor_left
from actors.wire.connection import Connection
from actors.wire.dns import DnsCache
from actors.wire.url import Origin

HEAD_START: Final = 0.25  # seconds that an address has before the next one is tried beside it (RFC 8305)


def system_tls_context() -> ssl.SSLContext:
    """Return a TLS context that trusts the certificates of this machine. Making it takes 20 ms."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class Connector:
    """Makes connections. It uses no proxy.

    Args:
        tls_context: makes the TLS context; called once, in a thread, for the first connection that needs it.
    """

    def __init__(self, tls_context: Callable[[], ssl.SSLContext] = system_tls_context) -> None:
        self._loop = asyncio.get_running_loop()
        self._dns = DnsCache()
        self._make_context = tls_context
        self._context: ssl.SSLContext | None = None
        self._lock = asyncio.Lock()

    async def connect(self, origin: Origin, on_lost: Callable[[Connection], None]) -> Connection:
        """Return an open connection. A cancellation leaves nothing behind.

        Args:
            origin: the host to connect to.
            on_lost: called once when the connection is lost.

        Raises:
            OSError: no address answers, or the certificate is not valid for the host.
            ValueError: the host's name is not valid.
        """
        tls = await self._tls_context() if origin.tls else None
        addresses = await self._dns.addresses(origin.host, origin.port)
        try:
            sock = await start_connection(addresses, happy_eyeballs_delay=HEAD_START)
        except OSError:
            self._dns.forget(origin.host, origin.port)
            raise
        _, connection = await self._loop.create_connection(
            lambda: Connection(origin, on_lost),
            sock=sock,
            ssl=tls,
            server_hostname=origin.host.rstrip(".") if tls else None,
        )
        return connection

    def close(self) -> None:
        """Cancel the DNS lookups that are running."""
        self._dns.close()

    async def _tls_context(self) -> ssl.SSLContext:
        async with self._lock:
            if self._context is None:
                context = await asyncio.to_thread(self._make_context)
                check_descriptor_left()  # without one the certificates were not read, which is no error for OpenSSL
                self._context = context
        return self._context
