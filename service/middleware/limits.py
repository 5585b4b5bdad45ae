"""The rate limits of HTTP calls: which endpoint a call is, and what it takes before its handler runs."""

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from actors.rate_limits import RateLimits, refusal
from protocol.limits import GENERAL
from service.context import CallContext
from service.middleware.access import PROBES, PUBLIC

CHAT: Final = "chat"
EMBEDDINGS: Final = "embeddings"
PUBLISH: Final = "publish"
ENDPOINTS: Final[Mapping[tuple[str, str], str]] = {
    ("POST", "/v1/chat/completions"): CHAT,
    ("POST", "/v1/messages"): CHAT,
    ("POST", "/v1/responses"): CHAT,
    ("POST", "/api/requests"): CHAT,
    ("POST", "/v1/embeddings"): EMBEDDINGS,
    ("POST", "/api/channels/{name}/publish"): PUBLISH,
}
"""The endpoints with a name of their own; every other call is ``general``."""
BY_HANDLER: Final = frozenset({CHAT, EMBEDDINGS})
"""Their handlers take from the limits, once they know how many tokens a call may use."""

ADMIN: Final = "/api/admin/"
OWN: Final = "/api/limits"
BAD_REQUEST: Final = 400
TOO_MANY: Final = 429
SERVER_ERROR: Final = 500


def endpoint_of(method: str, route: str) -> str:
    """Return the endpoint's name."""
    return ENDPOINTS.get((method, route), GENERAL)


def is_free(method: str, route: str) -> bool:
    """Whether a call counts nothing: one that ends work, or that shows or resets limits."""
    return method == "DELETE" or route.endswith("/cancel") or route == OWN or route.startswith(ADMIN)


class CallLimits:
    """Applies the callers' limits to HTTP calls.

    Args:
        limits: decides.
    """

    __slots__ = ("_limits",)

    def __init__(self, limits: RateLimits) -> None:
        self._limits = limits

    async def admit(self, request: web.Request, call: CallContext, route: str) -> None:
        """Take a call from the limits of its caller, who has a plan.

        Where the handler takes it, a call is refused here if it is clear without its body that there is no room.

        Raises:
            RateLimited: a limit has no room.
            TryAgainLater: ``limits_unavailable``.
        """
        if route in PROBES or route in PUBLIC:
            return
        endpoint, caller = endpoint_of(request.method, route), call.principal
        if endpoint in BY_HANDLER:
            decision = self._limits.known(caller, endpoint, path=route)
            call.uncounted = endpoint
        else:
            requests = 0 if is_free(request.method, route) else 1
            decision = await self._limits.decide(caller, endpoint, path=route, requests=requests)
            call.hold = decision.hold
        call.limits = decision.standings
        if decision.refused is not None:
            raise refusal(decision)

    async def count_refused(self, call: CallContext, route: str, status: int) -> None:
        """Count a call whose handler has refused it before it took it: a client's mistakes count, too."""
        if not BAD_REQUEST <= status < SERVER_ERROR or status == TOO_MANY:
            return
        decision = await self._limits.decide(call.principal, call.uncounted, path=route)
        if decision.hold is not None:
            decision.hold.release()
            call.limits = decision.standings
