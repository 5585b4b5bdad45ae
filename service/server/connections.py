"""HTTP connections with a timeout for a request's headers.

aiohttp limits the size of headers and the idle time of a connection, but lets a client send a byte a minute.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, cast

from aiohttp import web

from service.server.route_table import RouteTable

HEADERS_TIMEOUT: Final = 20.0  # seconds in which all headers of a request have to arrive, from its first byte on
LINGER: Final = 5.0  # seconds for which the unread rest of a body is read and dropped


class Connection(web.RequestHandler):
    """A connection that is closed when the headers of a request are late.

    The time of the first request begins with the connection. Between requests the connection may be idle; whoever reads
    a body limits its time.
    """

    __slots__ = ("_headers_timer",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timeout of the first request."""
        super().connection_made(transport)
        self._headers_timer: asyncio.TimerHandle | None = self._loop.call_later(
            HEADERS_TIMEOUT, self._headers_timed_out
        )

    def data_received(self, data: bytes) -> None:
        """Parse received bytes; start the timeout where they are only the beginning of a request."""
        super().data_received(data)
        if self._messages or self._current_request is not None:
            self._cancel_timeout()
        elif self._headers_timer is None:
            self._headers_timer = self._loop.call_later(HEADERS_TIMEOUT, self._headers_timed_out)

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - as the base class has it
        """Resume reading where it is paused: aiohttp calls this with every piece of a body, paused or not."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Cancel the timeout."""
        self._cancel_timeout()
        super().connection_lost(exc)

    def _cancel_timeout(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None

    def _headers_timed_out(self) -> None:
        self._headers_timer = None
        if self._waiter is not None and not self._waiter.done():
            self.force_close()


class Server(web.Server):
    """Makes a ``Connection`` for each client."""

    def __call__(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application on ``Connection``, with the route table in front."""

    async def _make_server(self) -> Server:
        plain = await super()._make_server()
        route_table = RouteTable(self.app, plain.request_handler)
        return Server(
            cast("Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]", route_table),
            request_factory=plain.request_factory,
            handler_cancellation=True,
            auto_decompress=False,  # a handler that reads a body inflates it, within bounds
            access_log=None,
            lingering_time=LINGER,
        )
