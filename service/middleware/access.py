"""Access: public routes, authentication and scopes, and no new work while the service stops."""

from collections.abc import Awaitable
from typing import Final

from aiohttp import web

from service.auth.authenticator import Authenticator, credential
from service.auth.permissions import check_route
from service.context import CallContext
from service.lifecycle import Lifecycle

SOCKET: Final = "/ws"
PROBES: Final = frozenset({"/api/health", "/api/health/live", "/api/health/ready"})
PAGES: Final = frozenset({"/", "/client.js", "/docs", "/web/{name}"})
PUBLIC: Final = PROBES | PAGES | {"/openapi.json", "/errors/{code}"}


def check_access(auth: Authenticator, request: web.Request, call: CallContext, route: str) -> Awaitable[None] | None:
    """Authenticate the caller and check their scope. Returns an awaitable where that can't be done at once, else None.

    A socket without a credential passes, but its call is not ``authenticated``: the socket's handler checks the origin
    and the ticket.

    Raises:
        AccessDenied: the credential is not valid, or ``forbidden``.
        TryAgainLater: ``auth_unavailable``.
    """
    if not auth.required or route in PUBLIC:
        return None
    key = credential(request)
    if not key and route == SOCKET:
        call.authenticated = False
        return None
    principal = auth.known(key)
    if principal is None:
        return _authenticate(auth, key, call, route)
    call.principal = principal
    check_route(principal, route)
    return None


async def _authenticate(auth: Authenticator, key: str, call: CallContext, route: str) -> None:
    call.principal = await auth.authenticate(key)
    check_route(call.principal, route)


def check_open(lifecycle: Lifecycle, request: web.Request, route: str) -> None:
    """Refuse new work while the service stops; reading, following and cancelling still work.

    Raises:
        ShuttingDown: the service is stopping.
    """
    if is_new_work(request.method, route):
        lifecycle.admit()


def is_new_work(method: str, route: str) -> bool:
    """Whether a call begins work that outlasts it, or creates something."""
    return route == SOCKET or (method == "POST" and not route.endswith("/cancel"))
