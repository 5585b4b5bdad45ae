"""The rate limits of HTTP calls: which endpoint a call is, and what it takes before its handler runs."""

from collections.abc import Awaitable, Mapping
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


def is_free(method: str, route: str) -> bool:
    """Whether a call counts nothing: one that ends work, or that shows or resets limits."""
    return method == "DELETE" or route.endswith("/cancel") or route == OWN or route.startswith(ADMIN)


class CallLimits:
    """Applies the callers' limits to HTTP calls.

    Args:
        limits: decides; None to let all calls go on.
    """

    __slots__ = ("_limits",)

    def __init__(self, limits: RateLimits | None) -> None:
        self._limits = limits

    def admit(self, request: web.Request, call: CallContext, route: str) -> Awaitable[None] | None:
        """Take a call from the limits of its caller, who has a plan.

        Where the handler takes it, a call is refused here if its caller was refused just now and still has no room: it
        is not read then. Returns an awaitable where that can't be done at once, else None.

        Raises:
            RateLimited: a limit has no room.
            TryAgainLater: ``limits_unavailable``.
        """
        if self._limits is None:
            return None
        endpoint = ENDPOINTS.get((request.method, route), GENERAL)
        if endpoint not in BY_HANDLER:
            return None if route in PROBES or route in PUBLIC else _take(self._limits, request, call, route, endpoint)
        call.uncounted = endpoint
        decision = self._limits.known(call.principal, endpoint, path=route)
        if decision.refused is not None:
            call.limits = decision.standings
            raise refusal(decision)
        return None

    async def count_refused(self, call: CallContext, route: str, status: int) -> None:
        """Count a call whose handler has refused it before it took it: a client's mistakes count, too."""
        if self._limits is None or not call.uncounted:
            return
        if not BAD_REQUEST <= status < SERVER_ERROR or status == TOO_MANY:
            return
        decision = await self._limits.decide(call.principal, call.uncounted, path=route)
        if decision.hold is not None:
            decision.hold.release()
            call.limits = decision.standings


async def _take(limits: RateLimits, request: web.Request, call: CallContext, route: str, endpoint: str) -> None:
    requests = 0 if is_free(request.method, route) else 1
    decision = await limits.decide(call.principal, endpoint, path=route, requests=requests)
    call.hold, call.limits = decision.hold, decision.standings
    if decision.refused is not None:
        raise refusal(decision)
