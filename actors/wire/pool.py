"""Connection pool: bounds the connections of a client, and keeps idle ones for the next request."""

import asyncio
import logging
from collections import deque
from typing import Final

from actors.exhausted import exhausted, is_exhausted
from actors.wire.connection import Connection
from actors.wire.connector import Connector
from actors.wire.idle_timer import IdleTimer
from actors.wire.url import Origin
from protocol.errors import ProviderError

IDLE_SECONDS: Final = 15.0  # an idle connection is closed after this
MAX_IDLE: Final = 1024  # idle connections; beyond them the one that was idle longest is closed
LINGER_SECONDS: Final = 1.0  # a released connection is closed after this unless the last bytes of its answer came
TRACE: Final = 5  # a level below DEBUG

_log = logging.getLogger("tidegate.wire")


class ConnectionPool:
    r"""Reuses connections. A caller gets one by ``take`` or ``acquire``, and returns it by ``release`` or ``discard``.

    ::

        connecting --> busy --release--> idle --take--> busy
                        |                 \--15 s, or too many--> closed
                        |--release before the answer's end--> lingering --end of the answer--> idle
                        |                                        \--1 s--> closed
                        \--discard--> closed

    Args:
        connector: makes connections.
        limit: the most connections; 0 for no limit. Beyond it callers wait, first come, first served.

    Attributes:
        busy: connections that are connecting, busy or lingering.
    """

    def __init__(self, connector: Connector, *, limit: int) -> None:
        self.busy = 0
        self._connector = connector
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._idle: dict[Origin, dict[Connection, None]] = {}
        self._idle_timer: IdleTimer[Connection] = IdleTimer(IDLE_SECONDS, self._close_idle)
        self._lingering: IdleTimer[Connection] = IdleTimer(LINGER_SECONDS, self.discard)
        self._open: set[Connection] = set()
        self._connecting: set[asyncio.Timeout] = set()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self._changed = asyncio.Event()

    def take(self, origin: Origin) -> Connection | None:
        """Return an idle connection to ``origin``; None where there is none, or where callers wait for a slot."""
        if self._waiters or 0 < self._limit <= self.busy:
            return None
        connection = self._pop_idle(origin)
        if connection is not None:
            self.busy += 1
        return connection

    async def acquire(self, origin: Origin, timeout: float) -> Connection:  # noqa: ASYNC109 - one part of it is timed
        """Wait for a slot, and return a connection to ``origin``, idle or new. First come, first served.

        Args:
            origin: the host to connect to.
            timeout: seconds for making a new connection, not counting the wait for the slot.

        Raises:
            Overloaded: this machine has no descriptor, thread or memory left for a connection.
            ProviderError: ``provider_timeout``: connecting took longer; ``provider_unavailable``: it failed, or the
                pool is closed.
        """
        await self._acquire_slot()
        try:
            return self._pop_idle(origin) or await self._connect(origin, timeout)
        except BaseException:
            self._release_slot()
            raise

    def release(self, connection: Connection) -> None:
        """Return a connection whose answer has been read. Further bytes of the answer are dropped.

        It becomes idle when the answer ends; it is closed where that takes longer than ``LINGER_SECONDS``.
        """
        connection.drop()
        if connection.open and not connection.ended:
            connection.on_end = self._on_end
            self._lingering.add(connection)
        else:
            self._put_idle(connection)

    def discard(self, connection: Connection) -> None:
        """Return a connection by closing it."""
        connection.close()
        self._release_slot()

    async def close(self) -> None:
        """Close every connection, also busy and connecting ones, and wait until all are closed. Idempotent."""
        self._closed = True
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(ProviderError(code="provider_unavailable"))
        for timeout in self._connecting:
            if not timeout.expired():
                timeout.reschedule(self._loop.time())
        self._idle.clear()
        self._idle_timer.close()
        self.busy -= len(self._lingering)
        self._lingering.close()
        for connection in tuple(self._open):
            connection.close()
        while self._open or self._connecting:
            self._changed.clear()
            await self._changed.wait()
        self._connector.close()

    async def _acquire_slot(self) -> None:
        """Wait until another connection may be busy, and count it."""
        if self._closed:
            raise ProviderError(code="provider_unavailable")
        if not self._waiters and not 0 < self._limit <= self.busy:
            self.busy += 1
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif not waiter.cancelled() and waiter.exception() is None:
                self._release_slot()
            raise

    def _release_slot(self) -> None:
        """Give the slot to the first waiter; where there is none, count one busy connection less."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.busy -= 1

    async def _connect(self, origin: Origin, seconds: float) -> Connection:
        if self._closed:
            raise ProviderError(code="provider_unavailable")
        if self._idle_timer and 0 < self._limit < self.busy + len(self._idle_timer):
            self._close_idle(next(iter(self._idle_timer)))
        timeout = asyncio.timeout(seconds)
        try:
            async with timeout:
                self._connecting.add(timeout)
                connection = await self._connector.connect(origin, self._on_lost)
                if not connection.usable:
                    raise ConnectionResetError
                self._open.add(connection)
            if _log.isEnabledFor(TRACE):
                fields = {"host": origin.host, "port": origin.port, "tls": origin.tls, "open": len(self._open)}
                _log.log(TRACE, "connection_opened", extra={"fields": fields})
        except (OSError, ValueError, RuntimeError) as error:
            if is_exhausted(error):
                raise exhausted(error) from error
            if isinstance(error, RuntimeError):
                raise
            late = isinstance(error, TimeoutError) and not self._closed
            raise ProviderError(code="provider_timeout" if late else "provider_unavailable") from error
        finally:
            self._connecting.discard(timeout)
            self._changed.set()
        return connection

    def _pop_idle(self, origin: Origin) -> Connection | None:
        """Return the connection that has been idle for the shortest time; None where none is idle."""
        idle = self._idle.get(origin)
        while idle:
            connection, _ = idle.popitem()
            self._idle_timer.remove(connection)
            if not idle:
                del self._idle[origin]
            if connection.usable:
                return connection
            connection.close()
        return None

    def _put_idle(self, connection: Connection) -> None:
        if not connection.reusable or self._closed:
            self.discard(connection)
            return
        if len(self._idle_timer) >= MAX_IDLE:
            self._close_idle(next(iter(self._idle_timer)))
        self._idle.setdefault(connection.origin, {})[connection] = None
        self._idle_timer.add(connection)
        self._release_slot()

    def _on_end(self, connection: Connection) -> None:
        """Make a lingering connection idle: its answer has ended."""
        connection.on_end = None
        self._lingering.remove(connection)
        self._put_idle(connection)

    def _close_idle(self, connection: Connection) -> None:
        connection.close()
        self._remove_idle(connection)

    def _remove_idle(self, connection: Connection) -> None:
        self._idle_timer.remove(connection)
        idle = self._idle.get(connection.origin, {})
        idle.pop(connection, None)
        if not idle:
            self._idle.pop(connection.origin, None)

    def _on_lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if _log.isEnabledFor(TRACE):
            origin = connection.origin
            fields = {"host": origin.host, "port": origin.port, "open": len(self._open)}
            _log.log(TRACE, "connection_closed", extra={"fields": fields})
        if connection in self._lingering:
            self._lingering.remove(connection)
            self._release_slot()
        else:
            self._remove_idle(connection)
        self._changed.set()
