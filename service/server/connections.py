"""HTTP connections: each has a place among a bounded number, a time for its headers, and a time to take its answers.

aiohttp limits the size of headers, but lets a client send a byte a minute, stay connected with any number of
connections, and leave its answers unread.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import structlog
from aiohttp import web

from protocol.identity import ANONYMOUS
from service.addresses import Address, AddressTable, ConnectionLimits, Place
from service.context import CALL
from service.server.outgoing import KernelOutgoing
from service.server.refusals import RefusalLog, RefusingHandler
from service.server.route_table import RouteTable
from service.stall import Outgoing, Progress

HEADERS_TIMEOUT: Final = 20.0  # seconds in which all headers of a request have to arrive, from its first byte on
LINGER: Final = 5.0  # seconds for which the unread rest of a body is read and dropped
LINGER_BYTES: Final = 32 * 1024 * 1024  # of such a rest: of the largest body, so that its sender sees the answer
KEEP_ALIVE: Final = ConnectionLimits().keep_alive
SLOW: Final = "slow_consumer"

_log = structlog.get_logger("service.http")


class Connection(RefusingHandler):
    """A connection that is closed when the headers of a request are late, and that may be evicted while no call runs.

    The time of the first request begins with the connection. Between requests the connection may be idle; whoever reads
    a body limits its time. A handler whose client has yet to authenticate may let it be evicted: ``expose``.

    Attributes:
        place: its place in the table; None for a connection without one.
        outgoing: what was written and not taken; None where it is not looked at.
        progress: what ``StallSweep`` has seen.
        on_stall: is called instead of closing the connection when its client takes nothing.
    """

    __slots__ = ("_dropped", "_headers_timer", "_on_evict", "_table", "on_stall", "outgoing", "place", "progress")

    def __init__(self, manager: web.Server, refusals: RefusalLog, **options: Any) -> None:  # noqa: ANN401 - passed on
        super().__init__(manager, refusals, **options)
        self.place: Place[Connection] | None = None
        self.outgoing: Outgoing | None = None
        self.progress: Progress | None = None
        self.on_stall: Callable[[], None] | None = None
        self._on_evict: Callable[[], None] | None = None
        self._table: AddressTable[Connection] | None = None
        self._headers_timer: asyncio.TimerHandle | None = None

    def enter(
        self, table: "AddressTable[Connection]", address: "Address[Connection]", outgoing: KernelOutgoing
    ) -> None:
        """Take a place in the table, before the connection is made."""
        self._table = table
        self.place = table.add(self, address)
        self.outgoing = outgoing

    def leave(self) -> None:
        """Give the place back. Idempotent."""
        place, self.place = self.place, None
        if place is not None and self._table is not None:
            self._table.remove(place)

    def expose(self, on_evict: Callable[[], None]) -> None:
        """Let the connection be evicted although a call runs; ``on_evict`` then ends it."""
        self._on_evict = on_evict
        if self.place is not None:
            self.place.rest()

    def protect(self) -> None:
        """End what ``expose`` began: the client has authenticated."""
        self._on_evict = None
        if self.place is not None:
            self.place.wake()
            self.place.known = True

    def evict(self) -> None:
        """End the connection: another one needs its place."""
        self.leave()
        transport = self.transport
        if self._on_evict is not None:
            self._on_evict()
        elif transport is not None and transport.get_write_buffer_size():
            transport.abort()
        elif transport is not None:
            transport.close()  # the kernel goes on sending the end of the last answer

    def stalled(self, seconds: float) -> None:
        """End the connection: its client has taken nothing for so long."""
        if self.on_stall is not None:
            self.on_stall()
            return
        request = self._current_request
        call = None if request is None else request.get(CALL)
        if call is not None:
            call.failure = SLOW
        waiting = 0 if self.outgoing is None else self.outgoing.waiting
        _log.info("client_stalled", seconds=round(seconds, 1), waiting=waiting, answering=request is not None)
        if isinstance(self.outgoing, KernelOutgoing) and self.outgoing.transport is not None:
            self.outgoing.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timeout of the first request."""
        super().connection_made(transport)
        self._dropped = 0
        self._headers_timer = self._loop.call_later(HEADERS_TIMEOUT, self._headers_timed_out)
        if isinstance(self.outgoing, KernelOutgoing):
            self.outgoing.transport = cast("asyncio.Transport", transport)
        if self.place is not None:
            self.place.rest()

    def data_received(self, data: bytes) -> None:
        """Parse received bytes; start the timeout where they are only the beginning of a request."""
        super().data_received(data)
        if self._current_request is None and self._waiter is None and not self._messages:
            self._drop(len(data))
        elif self._messages or self._current_request is not None:
            self._cancel_timeout()
            if self.place is not None and self._on_evict is None:
                self.place.wake()
        elif self._headers_timer is None:
            self._headers_timer = self._loop.call_later(HEADERS_TIMEOUT, self._headers_timed_out)

    def _drop(self, size: int) -> None:
        """Count bytes of a body that nobody reads; there is an end to them."""
        self._dropped += size
        if self._dropped > LINGER_BYTES:
            self.force_close()

    def log_access(self, request: web.BaseRequest, _response: web.StreamResponse, _time: float | None) -> None:
        """Let the connection be evicted from now on: aiohttp calls this at the end of each call."""
        place = self.place
        if place is None:
            return
        if not place.known:
            call = request.get(CALL)
            place.known = call is not None and call.principal is not ANONYMOUS
        if not self._messages:
            place.rest()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - as the base class has it
        """Resume reading where it is paused: aiohttp calls this with every piece of a body, paused or not."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Cancel the timeout, and give the place back."""
        self._cancel_timeout()
        self.leave()
        self.outgoing = self.on_stall = self._on_evict = None
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
    """Makes a ``Connection`` for each client; they share the log of what they refuse."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - aiohttp's
        super().__init__(*args, **options)
        self._refusals = RefusalLog()

    def __call__(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self, self._refusals, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application on ``Connection``, with the route table in front.

    Args:
        app: the application.
        keep_alive: seconds for which a connection may be idle between two calls.
        options: of ``AppRunner``.
    """

    def __init__(self, app: web.Application, *, keep_alive: float = KEEP_ALIVE, **options: Any) -> None:  # noqa: ANN401 - passed on
        super().__init__(app, **options)
        self._keep_alive = keep_alive

    async def _make_server(self) -> Server:
        plain = await super()._make_server()
        route_table = RouteTable(self.app)
        return Server(
            cast("Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]", route_table),
            request_factory=plain.request_factory,
            handler_cancellation=True,
            auto_decompress=False,  # a handler that reads a body inflates it, within bounds
            access_log=None,
            lingering_time=LINGER,
            keepalive_timeout=self._keep_alive,
        )
