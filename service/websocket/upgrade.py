"""``GET /ws``: the checks of an upgrade, and the limit on connections. ``session`` reads the frames."""

import asyncio
import logging
import random
import time
from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from protocol.errors import PROBLEMS, InvalidRequest, TidegateError
from protocol.hub import DisconnectAll, DisconnectIdle, Socket, SocketClosed
from protocol.identity import Principal
from protocol.websocket.commands import CLIENT_FRAMES
from protocol.websocket.out import SUBPROTOCOL, disconnect_json
from service.context import CONTAINER, CallContext, call_of, container_of
from service.frames import Joiner, text_frame
from service.http.operations import SOCKET, Answer, Operation, add_operations
from service.websocket.admission import Admission
from service.websocket.rights import SocketRights
from service.websocket.session import ROUTE, SocketSession
from service.websocket.transport import CLOSE_TIMEOUT, SocketTransport

if TYPE_CHECKING:
    from service.container import Container

MAX_CONNECTIONS: Final = 20_000
MAX_UNAUTHENTICATED: Final = 1000  # connections that have not authenticated yet
MAX_MESSAGE_BYTES: Final = 64 * 1024
RECONNECT_SPREAD: Final = 8.0  # seconds over which the clients' reconnects are spread
DISCONNECT_TIMEOUT: Final = 2.0  # seconds in which the hub has to disconnect its sockets
REASON: Final = "shutdown"
_NO_UPGRADE: Final = "The caller may open a socket here, but no `Upgrade: websocket` has arrived"

_log = structlog.get_logger("service.websocket")


class Sockets:
    """The open connections, with a limit, and a lower one for those that have not authenticated.

    Attributes:
        join: makes one message of several; shared by all connections.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: set[SocketTransport] = set()
        self._unauthenticated: set[SocketTransport] = set()
        self._disconnecting = False
        self.join = Joiner()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, socket: SocketTransport, *, unauthenticated: bool) -> bool:
        """Add a connection; returns False where the limit is reached."""
        if len(self._open) >= self._limit or (unauthenticated and len(self._unauthenticated) >= MAX_UNAUTHENTICATED):
            return False
        self._open.add(socket)
        if unauthenticated:
            self._unauthenticated.add(socket)
        if self._disconnecting:
            _disconnect(socket, RECONNECT_SPREAD * random.random())  # noqa: S311 - jitter
        return True

    def authenticated(self, socket: SocketTransport) -> None:
        """Count a connection as authenticated from now on."""
        self._unauthenticated.discard(socket)

    def discard(self, socket: SocketTransport) -> None:
        """Remove a connection."""
        self._open.discard(socket)
        self._unauthenticated.discard(socket)

    def disconnect_all(self, keep: "Collection[Socket]" = ()) -> None:
        """Disconnect every connection but those to keep, also each that is added later; their delays are spread."""
        self._disconnecting = True
        sockets = [socket for socket in self._open if not socket.closing and socket not in keep]
        for index, socket in enumerate(sockets):
            _disconnect(socket, RECONNECT_SPREAD * (index + random.random()) / len(sockets))  # noqa: S311 - jitter


SOCKETS: Final = web.AppKey("sockets", Sockets)


def add_routes(app: web.Application, *, max_connections: int = MAX_CONNECTIONS) -> None:
    """Add the route of the socket, for at most ``max_connections`` clients at once."""
    app[SOCKETS] = Sockets(max_connections)
    add_operations(app, websocket)


async def disconnect_idle(app: web.Application) -> None:
    """Disconnect the sockets that follow no request, now, and each other one when its last request has ended.

    Called once, when the server begins to stop.

    Raises:
        ActorError: the hub did not answer; then all sockets are disconnected now.
    """
    message = DisconnectIdle(reason=REASON, spread=RECONNECT_SPREAD)
    try:
        following = await app[CONTAINER].hub.ask(message, timeout=DISCONNECT_TIMEOUT)
    except TidegateError:
        app[SOCKETS].disconnect_all()
        raise
    app[SOCKETS].disconnect_all(following)


async def disconnect_all(app: web.Application) -> None:
    """Send every socket a ``disconnect`` with its reconnect delay, and close it; waits for no client.

    The hub disconnects the sockets with subscriptions, after their last frames. The other ones, and all of them where
    the hub fails, are disconnected here. Called once, when nothing runs any more.

    Raises:
        ActorError: the hub did not answer; the sockets are disconnected all the same.
    """
    try:
        await app[CONTAINER].hub.ask(DisconnectAll(reason=REASON, spread=RECONNECT_SPREAD), timeout=DISCONNECT_TIMEOUT)
    finally:
        app[SOCKETS].disconnect_all()


@Operation(
    "GET",
    ROUTE,
    name="openSocket",
    tag=SOCKET,
    summary="Open a socket for requests and channels.",
    text="Each message is one JSON object, a frame. `x-frames` names those that a client may send. Without a key, a "
    "token or a ticket, the first frame has to be `authenticate`, within 10 s.",
    answers=(Answer(101, "The connection is a WebSocket now; the subprotocol `tidegate.v1` is optional."),),
    errors=("upgrade_required", "origin_not_allowed", "invalid_ticket"),
    extra={"x-frames": [{"$ref": f"#/components/schemas/{frame.__name__}"} for frame in CLIENT_FRAMES]},
)
async def websocket(request: web.Request) -> web.StreamResponse:
    """Upgrade the connection and run its session. A client without a credential authenticates by its first frame.

    Raises:
        InvalidRequest: ``upgrade_required``.
        AccessDenied: ``invalid_ticket``.
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
        raise InvalidRequest(_NO_UPGRADE, code="upgrade_required")
    principal = _principal(container, request, call)
    if principal is not None:
        call.hold(container.auth.grants, principal)
    writer = await response.prepare(request)
    response.headers.clear()  # they are sent, and would take memory for as long as the socket is open
    if request.transport is None:
        return response
    began = time.perf_counter()
    later = asyncio.get_running_loop().call_later
    socket = SocketTransport(request.transport, later, container.settings.ws_heartbeat_seconds)
    admission = Admission(container.auth, socket, principal, later, SocketRights(container.hub, socket))
    call.release(container.auth.grants)
    sockets = request.config_dict[SOCKETS]
    on_authenticated = partial(sockets.authenticated, socket)
    session = SocketSession(container, call, socket, admission, on_authenticated=on_authenticated, join=sockets.join)
    try:
        if not sockets.add(socket, unauthenticated=principal is None):
            socket.close(PROBLEMS["connection_limit"].close, "connection_limit")
        if _log.is_enabled_for(logging.DEBUG):
            _log.debug("socket_opened", authenticated=admission.authenticated, open=len(sockets))
        await session.run(request, response, writer.drain)
    finally:
        admission.stop()
        sockets.discard(socket)
        socket.finish()
        if _log.is_enabled_for(logging.DEBUG):
            seconds = round(time.perf_counter() - began, 3)
            _log.debug("socket_closed", seconds=seconds, frames=session.frames, code=response.close_code)
        await container.hub.tell(SocketClosed(socket))
    return response


def _principal(container: "Container", request: web.Request, call: CallContext) -> Principal | None:
    """Return the caller that the upgrade's header or ticket names; None where it has neither.

    Raises:
        AccessDenied: ``invalid_ticket``.
    """
    if call.authenticated:
        return call.principal
    ticket = request.query.get("ticket")
    return None if ticket is None else container.auth.authenticate_ticket(ticket)


def _disconnect(socket: SocketTransport, delay: float) -> None:
    socket.send(text_frame(disconnect_json(REASON, delay)))
    socket.close(1000, REASON)
