"""Accepts connections while there is room for them, and leaves a share of the descriptors to running requests.

The event loops accept until no descriptor is left: asyncio then pauses for a second, uvloop accepts and closes
them without a word. Here each connection needs a place in an ``AddressTable`` and a descriptor outside the reserve.
"""

import asyncio
import errno
import secrets
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

import structlog
from aiohttp import web

from protocol.errors import PROBLEMS
from protocol.ids import request_id
from protocol.line_limit import LineLimit
from service.addresses import AddressTable
from service.context import SERVER_NAME
from service.descriptors import Descriptors
from service.server.connections import Connection, Server
from service.server.outgoing import KernelOutgoing, bound_buffers

BACKLOG: Final = 1024  # connections that the kernel keeps until they are accepted
BATCH: Final = 32  # accepted in one iteration of the loop; fewer than the least reserve
PAUSE: Final = 1.0  # seconds without accepting, where no descriptor is left
REFUSED: Final = 16  # refused connections that are open until their clients have read why
REFUSED_SECONDS: Final = 1.0
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
ABSENT: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})  # of a name with an address of each family
CODE: Final = "connection_limit"

_log = structlog.get_logger("service")


class Acceptor:
    """Accepts connections of some listening sockets.

    ::

        accepting --no descriptor--> paused --1 s, or a connection was evicted--> accepting

    A connection that finds the table full, or whose descriptor is of the reserve, takes the place of one that rests.
    Where none rests, it is answered with 503 and closed.

    Args:
        server: makes the protocols.
        listeners: listening sockets, which the acceptor owns.
        table: the places.
        descriptors: the limit of this process.

    Attributes:
        sockets: the listening sockets.
    """

    def __init__(
        self,
        server: Server,
        listeners: Sequence[socket.socket],
        table: AddressTable[Connection],
        descriptors: Descriptors,
    ) -> None:
        self.sockets = tuple(listeners)
        self._loop = asyncio.get_running_loop()
        self._server = server
        self._table = table
        self._ceiling = descriptors.ceiling
        self._attaching: set[asyncio.Task[None]] = set()
        self._refused: deque[socket.socket] = deque(maxlen=REFUSED)
        self._resuming: dict[socket.socket, asyncio.TimerHandle] = {}
        self._full_lines = LineLimit()
        self._pause_lines = LineLimit()

    def start(self) -> None:
        """Begin to accept."""
        for listener in self.sockets:
            self._loop.add_reader(listener, self._accept, listener)

    def close(self) -> None:
        """Accept no more. Accepted connections stay open."""
        for timer in self._resuming.values():
            timer.cancel()
        self._resuming.clear()
        for listener in self.sockets:
            if listener.fileno() >= 0:
                self._loop.remove_reader(listener)
                listener.close()
        while self._refused:
            self._refused.popleft().close()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                sock, peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                self._pause(listener, error)
                return
            sock.settimeout(0)
            self._admit(sock, str(peer[0]) if isinstance(peer, tuple) else "")

    def _admit(self, sock: socket.socket, host: str) -> None:
        """Give a connection a place, or refuse it."""
        table = self._table
        address = table.address_of(host)
        if table.is_full(address) or sock.fileno() >= self._ceiling:
            victim = table.victim(address)
            self._report(address.name, "refused" if victim is None else "evicted")
            if victim is None:
                self._refuse(sock)
                return
            victim.owner.evict()
        connection = self._server()
        connection.enter(table, table.address_of(host), KernelOutgoing(sock))
        task = self._loop.create_task(self._attach(connection, sock))
        self._attaching.add(task)
        task.add_done_callback(self._attaching.discard)

    async def _attach(self, connection: Connection, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, sock)
        except BaseException as error:
            connection.leave()
            sock.close()
            if not isinstance(error, OSError):
                raise

    def _refuse(self, sock: socket.socket) -> None:
        """Answer 503 without reading the request, and close the connection when its client had time to read that."""
        with suppress(OSError):
            sock.send(refusal())
            sock.shutdown(socket.SHUT_WR)
        if len(self._refused) == REFUSED:
            self._refused.popleft().close()
        self._refused.append(sock)
        self._loop.call_later(REFUSED_SECONDS, sock.close)

    def _pause(self, listener: socket.socket, error: OSError) -> None:
        """Stop accepting for a while: the kernel would report the same connection again and again."""
        omitted = self._pause_lines.take()
        if omitted is not None:
            _log.warning("accepting_paused", reason=error.strerror, open=self._table.held, omitted=omitted)
        self._loop.remove_reader(listener)
        victim = self._table.victim(self._table.address_of(""))
        if victim is not None:
            victim.owner.evict()
        seconds = PAUSE if victim is None else 0.0
        self._resuming[listener] = self._loop.call_later(seconds, partial(self._resume, listener))

    def _resume(self, listener: socket.socket) -> None:
        del self._resuming[listener]
        self._loop.add_reader(listener, self._accept, listener)

    def _report(self, address: str, action: str) -> None:
        omitted = self._full_lines.take()
        if omitted is not None:
            held, total = self._table.held, self._table.total
            _log.warning("connections_full", action=action, open=held, limit=total, address=address, omitted=omitted)


class Site(web.BaseSite):
    """An address on which a runner's application is served by an ``Acceptor``.

    Args:
        runner: has been set up.
        host: the address's name or number.
        port: the TCP port; 0 takes a free one.
        table: the connections' places.
        descriptors: the limit of this process.
    """

    __slots__ = ("_address", "_descriptors", "_table")

    def __init__(
        self, runner: web.AppRunner, host: str, port: int, *, table: AddressTable[Connection], descriptors: Descriptors
    ) -> None:
        super().__init__(runner, backlog=BACKLOG)
        self._address = (host, port)
        self._table = table
        self._descriptors = descriptors

    @property
    def name(self) -> str:
        """The address as a URL."""
        return "http://{}:{}".format(*self._address)

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address can't be bound.
        """
        await super().start()
        server = self._runner.server
        if not isinstance(server, Server):
            raise TypeError("the runner has to be a Runner")
        listeners = await listen(*self._address)
        acceptor = Acceptor(server, listeners, self._table, self._descriptors)
        self._server = cast("asyncio.AbstractServer", acceptor)  # a runner uses no more of it than there is
        acceptor.start()


async def listen(host: str, port: int) -> list[socket.socket]:
    """Return a listening socket for each address of ``host``.

    Raises:
        OSError: an address can't be bound.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                listeners.append(_listener(family, address))
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
                absent = error
        if absent is not None and not listeners:
            raise absent
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _listener(family: int, address: Any) -> socket.socket:  # noqa: ANN401 - of the family's form
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound_buffers(listener)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.settimeout(0)
    except OSError:
        listener.close()
        raise
    return listener


def refusal() -> bytes:
    """Return the response to a connection that finds no room."""
    problem, call_id, trace_id = PROBLEMS[CODE], request_id(), secrets.token_hex(16)
    body = (
        f'{{"type":"/errors/{CODE}","title":"{problem.title}","status":{problem.status},"code":"{CODE}",'
        f'"detail":"{problem.title}","remedy":"{problem.remedy}","requestId":"{call_id}","traceId":"{trace_id}",'
        '"retryAfterMs":1000}'
    )
    return (
        f"HTTP/1.1 {problem.status} Service Unavailable\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\nRetry-After: 1\r\nServer: {SERVER_NAME}\r\n"
        f"x-request-id: {call_id}\r\nx-trace-id: {trace_id}\r\n\r\n{body}"
    ).encode()
