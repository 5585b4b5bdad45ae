"""``GET /ws``: the upgrade, who may have it, and how many; what is then said is in ``ws_conversation``."""

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING, Final

from aiohttp import web

from protocol.errors import PROBLEMS, AccessDenied, InvalidRequest
from protocol.hub import DisconnectAll, SocketClosed
from protocol.identity import Principal
from protocol.websocket.out import SUBPROTOCOL, disconnect_json
from service.context import CONTAINER, Call, call_of, container_of
from service.frames import Joiner, text_frame
from service.websocket.admission import Guard
from service.websocket.session import ROUTE, Conversation
from service.websocket.transport import CLOSE_TIMEOUT, SocketTransport

if TYPE_CHECKING:
    from service.container import Container

MAX_CONNECTIONS: Final = 20_000
MAX_STRANGERS: Final = 1000  # connections that have not shown yet who they are
MAX_MESSAGE_BYTES: Final = 64 * 1024
FAREWELL_SPREAD: Final = 8.0  # seconds over which the clients come back
FAREWELL_TIMEOUT: Final = 2.0  # seconds that the hub has to tell its sockets
REASON: Final = "shutdown"


class Sockets:
    """The connections that are open now, bounded; those of strangers more narrowly.

    Attributes:
        join: what they share to make one message of several.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: set[SocketTransport] = set()
        self._strangers: set[SocketTransport] = set()
        self._leaving = False
        self.join = Joiner()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, socket: SocketTransport, *, stranger: bool) -> bool:
        """Count a connection in, and say whether there was room for it."""
        if len(self._open) >= self._limit or (stranger and len(self._strangers) >= MAX_STRANGERS):
            return False
        self._open.add(socket)
        if stranger:
            self._strangers.add(socket)
        if self._leaving:
            _send_away(socket, FAREWELL_SPREAD * random.random())  # noqa: S311 - jitter
        return True

    def arrived(self, socket: SocketTransport) -> None:
        """Know from now on who is there."""
        self._strangers.discard(socket)

    def discard(self, socket: SocketTransport) -> None:
        """Count a connection off."""
        self._open.discard(socket)
        self._strangers.discard(socket)

    def farewell(self) -> None:
        """Send away whoever is still here, each to come back at its own time, and from now on whoever comes."""
        self._leaving = True
        sockets = [socket for socket in self._open if not socket.closing]
        for index, socket in enumerate(sockets):
            _send_away(socket, FAREWELL_SPREAD * (index + random.random()) / len(sockets))  # noqa: S311 - jitter


SOCKETS: Final = web.AppKey("sockets", Sockets)


def add_routes(app: web.Application, *, max_connections: int = MAX_CONNECTIONS) -> None:
    """Offer the socket, to so many clients at once."""
    app[SOCKETS] = Sockets(max_connections)
    app.router.add_get(ROUTE, websocket)


async def farewell(app: web.Application) -> None:
    """Tell every socket that the server goes and when to come back; waits for no client.

    Those that follow something are told by the hub, after their last frames; where it fails, and those that follow
    nothing, from here. Asked for once, by whoever stops the server.

    Raises:
        ActorError: the hub did not answer; the sockets are told all the same.
    """
    try:
        await app[CONTAINER].hub.ask(DisconnectAll(reason=REASON, spread=FAREWELL_SPREAD), timeout=FAREWELL_TIMEOUT)
    finally:
        app[SOCKETS].farewell()


async def websocket(request: web.Request) -> web.StreamResponse:
    """Upgrade, and talk until either side leaves. Who brings nothing that says who it is, has to authenticate there.

    Raises:
        InvalidRequest: ``upgrade_required``.
        AccessDenied: the origin may not connect, or ``invalid_ticket``.
    """
    container, call = container_of(request), call_of(request)
    response = web.WebSocketResponse(
        autoclose=False,
        autoping=False,
        compress=False,
        max_msg_size=MAX_MESSAGE_BYTES,
        protocols=(SUBPROTOCOL,),
        timeout=CLOSE_TIMEOUT,
    )
    if not response.can_prepare(request).ok:
        raise InvalidRequest(code="upgrade_required")
    _check_origin(container, request)
    principal = _principal(container, request, call)
    writer = await response.prepare(request)
    response.headers.clear()  # they have been sent, and would be kept for as long as the socket
    if request.transport is None:
        return response
    later = asyncio.get_running_loop().call_later
    socket = SocketTransport(request.transport, later)
    guard = Guard(container.auth, socket, principal, later)
    sockets = request.config_dict[SOCKETS]
    try:
        if not sockets.add(socket, stranger=principal is None):
            socket.close(PROBLEMS["connection_limit"].close, "connection_limit")
        arrived = partial(sockets.arrived, socket)
        conversation = Conversation(container, call, socket, guard, arrived=arrived, join=sockets.join)
        await conversation.run(request, response, writer.drain)
    finally:
        guard.leave()
        sockets.discard(socket)
        socket.finish()
        await container.hub.tell(SocketClosed(socket))
    return response


def _principal(container: "Container", request: web.Request, call: Call) -> Principal | None:
    """Return who the upgrade shows to be there, by a header or a ticket; None where it says nothing.

    Raises:
        AccessDenied: ``invalid_ticket``.
    """
    if call.authenticated:
        return call.principal
    ticket = request.query.get("ticket")
    return None if ticket is None else container.auth.authenticate_ticket(ticket)


def _check_origin(container: "Container", request: web.Request) -> None:
    """Let in programs, which send no origin, and in production only the pages that are allowed.

    Raises:
        AccessDenied: ``origin_not_allowed``.
    """
    origin, settings = request.headers.get("Origin"), container.settings
    if origin is None or settings.environment != "production" or origin in settings.ws_allowed_origins:
        return
    raise AccessDenied(code="origin_not_allowed")


def _send_away(socket: SocketTransport, delay: float) -> None:
    socket.send(text_frame(disconnect_json(REASON, delay)))
    socket.close(1000, REASON)
