"""The connections of one client: who may have one, and those that wait for their next request."""

import asyncio
from collections import deque
from typing import Final

from actors.wire.connection import Connection
from actors.wire.connector import Dialer
from actors.wire.endpoint import Origin
from actors.wire.idle_timer import Expiry
from protocol.errors import ProviderError

IDLE: Final = 15.0  # seconds for which a connection waits for its next request
MAX_IDLE: Final = 1024  # connections that wait; beyond them the one that has waited longest is closed
LINGER: Final = 1.0  # seconds for which a finished answer's connection may wait for its last bytes


class Pool:
    """Connections, used one after another: ``take`` or ``acquire``, then ``release`` or ``discard``, each exactly once.

    Args:
        dialer: makes them.
        limit: how many there may be; 0 for any number. Who wants one more waits for its turn.

    Attributes:
        busy: how many are in use, or on their way to it.
    """

    def __init__(self, dialer: Dialer, *, limit: int) -> None:
        self.busy = 0
        self.lingering: Expiry[Connection] = Expiry(LINGER, self.discard)
        self._dialer = dialer
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._idle: dict[Origin, dict[Connection, None]] = {}
        self._resting: Expiry[Connection] = Expiry(IDLE, self._retire)
        self._live: set[Connection] = set()
        self._dialing: set[asyncio.Timeout] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self._gone = asyncio.Event()

    def take(self, origin: Origin) -> Connection | None:
        """Return a connection to ``origin`` that waits for its next request; None where there is none, or no turn."""
        if self._waiting or 0 < self._limit <= self.busy:
            return None
        connection = self._rested(origin)
        if connection is not None:
            self.busy += 1
        return connection

    async def acquire(self, origin: Origin, timeout: float) -> Connection:  # noqa: ASYNC109 - one part of it is timed
        """Return a connection to ``origin``: first come, first served.

        Args:
            origin: whom it leads to.
            timeout: seconds until a new one stands, from when it may be made.

        Raises:
            ProviderError: ``provider_timeout``: that took longer; ``provider_unavailable``: nobody is there, or the
                pool is closed.
        """
        await self._turn()
        try:
            return self._rested(origin) or await self._dial(origin, timeout)
        except BaseException:
            self._pass_on()
            raise

    def release(self, connection: Connection) -> None:
        """Let go of a connection whose answer has been read as far as anyone wants; what comes after that is dropped.

        It is kept for the next request once the answer has ended, for which it has a moment.
        """
        connection.drop()
        if connection.open and not connection.ended:
            connection.on_end = self._settled
            self.lingering.add(connection)
        else:
            self._put_back(connection)

    def discard(self, connection: Connection) -> None:
        """Close a connection."""
        connection.close()
        self._pass_on()

    async def close(self) -> None:
        """Close every connection, also those in use and those being made; returns when that is done. Idempotent."""
        self._closed = True
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(ProviderError(code="provider_unavailable"))
        for timeout in self._dialing:
            if not timeout.expired():
                timeout.reschedule(self._loop.time())
        self._idle.clear()
        self._resting.close()
        self.busy -= len(self.lingering)
        self.lingering.close()
        for connection in tuple(self._live):
            connection.close()
        while self._live or self._dialing:
            self._gone.clear()
            await self._gone.wait()
        self._dialer.close()

    async def _turn(self) -> None:
        """Wait until there may be one connection in use more, and count it."""
        if self._closed:
            raise ProviderError(code="provider_unavailable")
        if not self._waiting and not 0 < self._limit <= self.busy:
            self.busy += 1
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif not waiter.cancelled() and waiter.exception() is None:
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """Give the turn to who waits for it first."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.busy -= 1

    async def _dial(self, origin: Origin, seconds: float) -> Connection:
        if self._closed:
            raise ProviderError(code="provider_unavailable")
        if self._resting and 0 < self._limit < self.busy + len(self._resting):
            self._retire(next(iter(self._resting)))
        timeout = asyncio.timeout(seconds)
        try:
            async with timeout:
                self._dialing.add(timeout)
                connection = await self._dialer.dial(origin, self._lost)
                if not connection.usable:
                    raise ConnectionResetError
                self._live.add(connection)
        except (OSError, ValueError) as error:
            late = isinstance(error, TimeoutError) and not self._closed
            raise ProviderError(code="provider_timeout" if late else "provider_unavailable") from error
        finally:
            self._dialing.discard(timeout)
            self._gone.set()
        return connection

    def _rested(self, origin: Origin) -> Connection | None:
        """Return the one that has waited for the shortest time; None where none waits."""
        idle = self._idle.get(origin)
        while idle:
            connection, _ = idle.popitem()
            self._resting.remove(connection)
            if not idle:
                del self._idle[origin]
            if connection.usable:
                return connection
            connection.close()
        return None

    def _put_back(self, connection: Connection) -> None:
        if not connection.reusable or self._closed:
            self.discard(connection)
            return
        if len(self._resting) >= MAX_IDLE:
            self._retire(next(iter(self._resting)))
        self._idle.setdefault(connection.origin, {})[connection] = None
        self._resting.add(connection)
        self._pass_on()

    def _settled(self, connection: Connection) -> None:
        """The last bytes have come."""
        connection.on_end = None
        self.lingering.remove(connection)
        self._put_back(connection)

    def _retire(self, connection: Connection) -> None:
        """Close one that waits for its next request."""
        connection.close()
        self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        self._resting.remove(connection)
        idle = self._idle.get(connection.origin, {})
        idle.pop(connection, None)
        if not idle:
            self._idle.pop(connection.origin, None)

    def _lost(self, connection: Connection) -> None:
        """A connection no longer stands."""
        self._live.discard(connection)
        if connection in self.lingering:
            self.lingering.remove(connection)
            self._pass_on()
        else:
            self._forget(connection)
        self._gone.set()
