"""Who gets in: open addresses, keys, and nobody new while the service stops."""

from collections.abc import Awaitable
from typing import Final

from aiohttp import web

from service.auth.authenticator import Authenticator, credential
from service.auth.permissions import check_route
from service.context import Call
from service.lifecycle import Lifecycle

SOCKET: Final = "/ws"
PROBES: Final = frozenset({"/api/health", "/api/health/live", "/api/health/ready"})
PAGES: Final = frozenset({"/", "/client.js", "/playground.js", "/playground.css"})
OPEN: Final = PROBES | PAGES | {"/docs", "/openapi.json", "/errors/{code}"}


def check_access(auth: Authenticator, request: web.Request, call: Call, route: str) -> Awaitable[None] | None:
    """Find out who calls, and whether they may use this part of the service; returns what that has to wait for, if any.

    A socket that brings nothing at all gets past here, but its call is not ``authenticated``: the socket's own handler
    looks at the origin first, and then decides.

    Raises:
        AccessDenied: nobody who is known, or ``forbidden``.
        TryAgainLater: ``auth_unavailable``.
    """
    if not auth.required or route in OPEN:
        return None
    key = credential(request)
    if not key and route == SOCKET:
        call.authenticated = False
        return None
    principal = auth.known(key)
    if principal is None:
        return _find_out(auth, key, call, route)
    call.principal = principal
    check_route(principal, route)
    return None


async def _find_out(auth: Authenticator, key: str, call: Call, route: str) -> None:
    call.principal = await auth.authenticate(key)
    check_route(call.principal, route)


def check_open(lifecycle: Lifecycle, request: web.Request, route: str) -> None:
    """Keep new work out while the service stops; looking, following and cancelling still work.

    Raises:
        ShuttingDown: the service is stopping.
    """
    if route == SOCKET or (request.method == "POST" and not route.endswith("/cancel")):
        lifecycle.admit()
