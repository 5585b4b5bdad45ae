"""Access: who may send, authentication and scopes, and no new work while the service stops."""

import asyncio
from collections.abc import Awaitable
from typing import Final

from aiohttp import web

from protocol.errors import TidegateError
from protocol.identity import Principal
from service.auth.authenticator import Authenticator, credential
from service.auth.origins import SOCKET, OriginPolicy
from service.auth.permissions import check_route
from service.context import CallContext
from service.lifecycle import Lifecycle

PROBES: Final = frozenset({"/api/health", "/api/health/live", "/api/health/ready"})
PAGES: Final = frozenset({"/", "/client.js", "/docs", "/web/{name}"})
PUBLIC: Final = PAGES | {"/openapi.json", "/errors/{code}"}
PROBE_TIMEOUT: Final = 1.0  # seconds in which a prober's credential is verified; a later one counts as none


def check_access(
    auth: Authenticator, origins: OriginPolicy, request: web.Request, call: CallContext, route: str
) -> Awaitable[None] | None:
    """Check where the call comes from, who sends it, and their scope.

    A key in a header is no ambient authority: such a call is accepted from any page. A socket and a probe without a
    valid credential pass, but their call is not ``authenticated``: the socket's handler checks the ticket, and health
    shows less.

    Returns an awaitable where that can't be done at once, else None.

    Raises:
        AccessDenied: the credential is not valid; or ``forbidden``, ``host_not_allowed`` or ``origin_not_allowed``.
        TryAgainLater: ``auth_unavailable``.
    """
    if route in PROBES:
        return _check_prober(auth, origins, request, call)
    required = auth.required
    origins.check_host(request, keys=required)
    key = credential(request) if required else ""
    if not key:
        origins.check(request, route, keys=required)
    if not required or route in PUBLIC:
        return None
    if not key and route == SOCKET:
        call.authenticated = False
        return None
    principal = auth.known(key)
    if principal is None:
        return _authenticate(auth, key, call, route)
    _enter(auth, principal, call, route)
    return None


def _check_prober(
    auth: Authenticator, origins: OriginPolicy, request: web.Request, call: CallContext
) -> Awaitable[None] | None:
    """Find out who asks for health. Whatever its name for the service and its key, a prober is answered."""
    required = auth.required
    key = credential(request) if required else ""
    if not key:
        origins.check(request, "", keys=required)
        call.authenticated = not required and origins.accepts_host(request, keys=False)
        return None
    principal = auth.known(key)
    if principal is None:
        return _recognise(auth, key, call)
    call.principal = principal
    return None


async def _authenticate(auth: Authenticator, key: str, call: CallContext, route: str) -> None:
    _enter(auth, await auth.authenticate(key), call, route)


def _enter(auth: Authenticator, principal: Principal, call: CallContext, route: str) -> None:
    """Check the scope of a caller, and let the call end with the caller's rights."""
    call.principal = principal
    check_route(principal, route)
    call.route = route
    call.enter_grants(auth.grants, principal)


async def _recognise(auth: Authenticator, key: str, call: CallContext) -> None:
    """Authenticate the caller of a probe, who is not refused."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            call.principal = await auth.authenticate(key)
    except (TidegateError, TimeoutError):
        call.authenticated = False


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
