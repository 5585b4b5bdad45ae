"""Who gets in: open addresses, keys, and nobody new while the service stops."""

from typing import Final

from aiohttp import web

from service.auth import Authenticator, credential
from service.context import Call
from service.lifecycle import Lifecycle

SOCKET: Final = "/ws"
PROBES: Final = frozenset({"/api/health", "/api/health/live", "/api/health/ready"})
OPEN: Final = PROBES | {"/docs", "/openapi.json", "/errors/{code}"}


def check_access(auth: Authenticator, request: web.Request, call: Call, route: str) -> None:
    """Find out whose call it is.

    A socket that brings no key at all gets past here, but its call is not ``authenticated``: the socket's own handler
    looks at the origin first, and then refuses the upgrade.

    Raises:
        AccessDenied: a key is needed, and there is none that is known.
    """
    if not auth.required or route in OPEN:
        return
    key = credential(request)
    if not key and route == SOCKET:
        call.authenticated = False
        return
    call.tenant = auth.authenticate(key)


def check_open(lifecycle: Lifecycle, request: web.Request, route: str) -> None:
    """Keep new work out while the service stops; looking, following and cancelling still work.

    Raises:
        ShuttingDown: the service is stopping.
    """
    if route == SOCKET or (request.method == "POST" and not route.endswith("/cancel")):
        lifecycle.admit()
