"""HTTP connections that have to say in time what they want: a request's headers may be slow, but not for ever.

aiohttp bounds the size of headers and how long a connection may be idle, but lets one send a byte a minute.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, cast

from aiohttp import web

from service.server.route_table import Dispatch

HEADERS_TIMEOUT: Final = 20.0  # seconds in which all headers of a request have to arrive once it has begun
LINGER: Final = 5.0  # seconds for which the rest of a body is read and dropped that nobody has asked for


class Connection(web.RequestHandler):
    """A connection that is closed when the headers of a request are overdue: the first one begins with the connection.

    Between two requests it may be idle, and bodies are the business of whoever reads them.
    """

    __slots__ = ("_overdue",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._overdue: asyncio.TimerHandle | None = self._loop.call_later(HEADERS_TIMEOUT, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Take what has come; what makes no whole request yet is the beginning of one."""
        super().data_received(data)
        if self._messages or self._current_request is not None:
            self._on_time()
        elif self._overdue is None:
            self._overdue = self._loop.call_later(HEADERS_TIMEOUT, self._give_up)

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - as the base class has it
        """Read on where reading was paused: aiohttp asks for it with every piece of a body, paused or not."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wait no longer."""
        self._on_time()
        super().connection_lost(exc)

    def _on_time(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _give_up(self) -> None:
        self._overdue = None
        if self._waiter is not None and not self._waiter.done():
            self.force_close()


class Server(web.Server):
    """Makes such connections."""

    def __call__(self) -> Connection:
        """Return a connection's protocol."""
        return Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application on such connections."""

    async def _make_server(self) -> Server:
        plain = await super()._make_server()
        dispatch = Dispatch(self.app, plain.request_handler)
        return Server(
            cast("Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]", dispatch),
            request_factory=plain.request_factory,
            handler_cancellation=True,
            access_log=None,
            lingering_time=LINGER,
        )
