"""How connections are made: the host looked up, its addresses tried, and the connection encrypted."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

from aiohappyeyeballs import start_connection

from actors.wire.connection import Connection
from actors.wire.dns import Names
from actors.wire.endpoint import Origin

HEAD_START: Final = 0.25  # seconds that an address has before the next one is tried beside it (RFC 8305)


def trusting_the_system() -> ssl.SSLContext:
    """Return what trusts the certificates that this machine trusts; it takes 20 ms."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class Dialer:
    """Makes connections. There is no proxy between.

    Args:
        trust: makes what TLS goes by; called once, in a thread, with the first connection that needs it.
    """

    def __init__(self, trust: Callable[[], ssl.SSLContext] = trusting_the_system) -> None:
        self._loop = asyncio.get_running_loop()
        self._names = Names()
        self._trust = trust
        self._tls: ssl.SSLContext | None = None
        self._turn = asyncio.Lock()

    async def dial(self, origin: Origin, lost: Callable[[Connection], None]) -> Connection:
        """Return a connection that stands; being cancelled leaves nothing behind.

        Args:
            origin: whom it leads to.
            lost: as for every connection.

        Raises:
            OSError: nobody is there, or the certificate is not theirs.
            ValueError: this can be no host's name.
        """
        tls = await self._context() if origin.tls else None
        addresses = await self._names.addresses(origin.host, origin.port)
        try:
            sock = await start_connection(addresses, happy_eyeballs_delay=HEAD_START)
        except OSError:
            self._names.forget(origin.host, origin.port)
            raise
        _, connection = await self._loop.create_connection(
            lambda: Connection(origin, lost),
            sock=sock,
            ssl=tls,
            server_hostname=origin.host.rstrip(".") if tls else None,
        )
        return connection

    def close(self) -> None:
        """Wait for no host's addresses any longer."""
        self._names.close()

    async def _context(self) -> ssl.SSLContext:
        async with self._turn:
            if self._tls is None:
                self._tls = await asyncio.to_thread(self._trust)
        return self._tls
