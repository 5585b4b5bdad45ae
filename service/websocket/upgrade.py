"""``GET /ws``: the checks of an upgrade, and the limit on connections. ``session`` reads the frames."""

import asyncio
import logging
import random
import time
from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import structlog
from aiohttp import web

from actors.fair_shares import STRANGERS, FairShares, Tenants
from protocol.errors import PROBLEMS, TidegateError
from protocol.hub import DisconnectAll, DisconnectIdle, Socket, SocketClosed
from protocol.identity import Principal
from protocol.websocket.commands import CLIENT_FRAMES
from protocol.websocket.out import disconnect_json
from service.addresses import AddressTable, Network, Place
from service.capacity import ClientConnection
from service.context import CONTAINER, CallContext, call_of, container_of
from service.frames import Joiner, text_frame
from service.http.operations import SOCKET, Answer, Operation, add_operations
from service.websocket.admission import Admission
from service.websocket.handshake import upgrade_of
from service.websocket.reader import FrameReader
from service.websocket.rights import SocketRights
from service.websocket.session import ROUTE, SocketSession
from service.websocket.transport import SocketTransport

if TYPE_CHECKING:
    from service.container import Container

RECONNECT_SPREAD: Final = 8.0  # seconds over which the clients' reconnects are spread
DISCONNECT_TIMEOUT: Final = 2.0  # seconds in which the hub has to disconnect its sockets
REASON: Final = "shutdown"

_log = structlog.get_logger("service.websocket")


class SocketLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of sockets.

    Attributes:
        total: sockets at once. Each tenant has its share of them; those without a caller are together one tenant.
        strangers: sockets that have not authenticated yet; one more takes the place of the oldest.
        strangers_per_address: such sockets of one address, as ``AddressTable`` counts them.
    """

    total: int = 20_000
    strangers: int = 1000
    strangers_per_address: int = 100


LIMITS: Final = SocketLimits()


class Sockets:
    """The open sockets, with a share for each tenant.

    A socket that has not authenticated holds a place of the strangers, and is closed where another socket needs it.

    Args:
        limits: the bounds.
        proxies: networks whose addresses stand for many clients.
        tenants: share the sockets; None for any tenants.

    Attributes:
        shares: the sockets of each tenant.
        strangers: the places of the sockets that have not authenticated.
        join: makes one message of several; shared by all connections.
    """

    def __init__(self, limits: SocketLimits, proxies: Sequence[Network] = (), tenants: Tenants | None = None) -> None:
        self.shares = FairShares(limits.total, tenants or Tenants(), rule="reserve")
        self.strangers: AddressTable[SocketTransport] = AddressTable(
            limits.strangers, limits.strangers_per_address, proxies
        )
        self._open: dict[SocketTransport, Place[SocketTransport] | str] = {}  # the place of a stranger, or the tenant
        self._disconnecting = False
        self.join = Joiner()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, socket: SocketTransport, tenant: str | None, host: str = "") -> bool:
        """Add a socket; returns False where there is no room.

        Args:
            socket: has been accepted.
            tenant: None for a client that has not authenticated.
            host: the client's address.
        """
        holder = self._seat(socket, host) if tenant is None else self._share_of(tenant)
        if holder is None:
            return False
        self._open[socket] = holder
        if self._disconnecting:
            _disconnect(socket, RECONNECT_SPREAD * random.random())  # noqa: S311 - jitter
        return True

    def authenticated(self, socket: SocketTransport, tenant: str) -> bool:
        """Count a socket as one of ``tenant`` from now on; returns False where that has no room."""
        if not isinstance(self._open.get(socket), Place):
            return True
        self.discard(socket)
        return self.add(socket, tenant)

    def discard(self, socket: SocketTransport) -> None:
        """Remove a socket. Idempotent."""
        holder = self._open.pop(socket, None)
        if isinstance(holder, Place):
            self.strangers.remove(holder)
            self.shares.give_back(STRANGERS)
        elif holder is not None:
            self.shares.give_back(holder)

    def _seat(self, socket: SocketTransport, host: str) -> Place[SocketTransport] | None:
        address = self.strangers.address_of(host)
        if self.strangers.is_full(address) and not self._evict(self.strangers.victim(address)):
            return None
        if not self.shares.take(STRANGERS) and not (
            self._evict(self.strangers.victim(address)) and self.shares.take(STRANGERS)
        ):
            return None
        place = self.strangers.add(socket, self.strangers.address_of(host))
        place.rest()
        return place

    def _share_of(self, tenant: str) -> str | None:
        if self.shares.take(tenant):
            return tenant
        stranger = self.strangers.victim(self.strangers.address_of(""))
        return tenant if self._evict(stranger) and self.shares.take(tenant) else None

    def _evict(self, place: Place[SocketTransport] | None) -> bool:
        """Close the socket of a stranger; returns False where there is none."""
        if place is None:
            return False
        self.discard(place.owner)
        place.owner.end(PROBLEMS["connection_limit"].close, "connection_limit")
        return True

    def disconnect_all(self, keep: "Collection[Socket]" = ()) -> None:
        """Disconnect every connection but those to keep, also each that is added later; their delays are spread."""
        self._disconnecting = True
        sockets = [socket for socket in self._open if not socket.closing and socket not in keep]
        for index, socket in enumerate(sockets):
            _disconnect(socket, RECONNECT_SPREAD * (index + random.random()) / len(sockets))  # noqa: S311 - jitter


SOCKETS: Final = web.AppKey("sockets", Sockets)


def add_routes(app: web.Application, *, limits: SocketLimits = LIMITS) -> None:
    """Add the route of the socket."""
    container = app.get(CONTAINER)
    proxies, tenants = ((), None) if container is None else (container.settings.origins().proxies, container.tenants)
    app[SOCKETS] = Sockets(limits, proxies, tenants)
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
        InvalidRequest: ``upgrade_required``, or the upgrade is not valid.
        AccessDenied: ``invalid_ticket``.
    """
    container, call = container_of(request), call_of(request)
    response = upgrade_of(request)
    principal = _principal(container, request, call)
    if principal is not None:
        call.enter_grants(container.auth.grants, principal)
    writer = await response.prepare(request)
    response.headers.clear()  # they are sent, and would take memory for as long as the socket is open
    if request.transport is None or writer is None:
        return response
    began = time.perf_counter()
    loop = asyncio.get_running_loop()
    later = loop.call_later
    reader = FrameReader(request.protocol, loop.time)
    request.protocol.set_parser(cast("Any", reader))
    request.protocol.keep_alive(val=False)
    socket = SocketTransport(request.transport, later, container.settings.ws_heartbeat_seconds)
    admission = Admission(container.auth, socket, principal, later, SocketRights(container.hub, socket))
    call.leave_grants(container.auth.grants)
    sockets = request.config_dict[SOCKETS]
    connection = request.protocol if isinstance(request.protocol, ClientConnection) else None
    if connection is not None:
        connection.on_stall = partial(socket.close, PROBLEMS["slow_consumer"].close, "slow_consumer")

    def on_authenticated(tenant: str) -> bool:
        if connection is not None:
            connection.protect()
        return sockets.authenticated(socket, tenant)

    session = SocketSession(container, call, socket, admission, on_authenticated=on_authenticated, join=sockets.join)
    try:
        if principal is None and connection is not None:
            connection.expose(partial(socket.end, PROBLEMS["connection_limit"].close, "connection_limit"))
        if not sockets.add(socket, None if principal is None else principal.tenant, request.remote or ""):
            socket.close(PROBLEMS["connection_limit"].close, "connection_limit")
        if _log.is_enabled_for(logging.DEBUG):
            _log.debug("socket_opened", authenticated=admission.authenticated, open=len(sockets))
        await session.run(reader, request.protocol, writer.drain)
    finally:
        admission.stop()
        sockets.discard(socket)
        socket.finish()
        if _log.is_enabled_for(logging.DEBUG):
            seconds = round(time.perf_counter() - began, 3)
            _log.debug("socket_closed", seconds=seconds, frames=session.frames, code=session.close_code)
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
