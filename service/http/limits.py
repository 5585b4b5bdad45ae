"""``/api/limits``: what is left of the caller's limits; for administrators, who was refused, and the reset."""

from typing import Annotated

import msgspec
from aiohttp import web

from actors.rate_limits import Violation
from protocol.checks import MAX_NAME, check_name
from protocol.errors import NotFound
from protocol.limits import GENERAL, Per, QuotaStanding, Unit
from service.auth.permissions import check_scope
from service.context import call_of, container_of
from service.http.json_response import JsonResponse, json_response
from service.http.operations import ACCOUNT, USERS, Answer, Operation, add_operations, path_name
from service.middleware.limits import CHAT, EMBEDDINGS, OWN, PUBLISH

NAMED = (CHAT, EMBEDDINGS, PUBLISH, GENERAL)


class LimitStanding(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One limit of the caller, and what is left of it.

    Attributes:
        endpoint: the endpoint, or the pattern of endpoints, that it limits.
        unit: ``requests``, ``tokens``, or ``calls`` at once.
        per: the window of requests and tokens.
        limit: the most in a window, or at once.
        remaining: what is left now.
        reset_ms: milliseconds until all of it is there again, where nothing is used meanwhile.
    """

    endpoint: str
    unit: Unit
    per: Per | None
    limit: int
    remaining: int
    reset_ms: int


class LimitList(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of the caller: none where it is not limited.

    Attributes:
        shadow: whether calls are only counted, and none is refused.
        items: the limits, each once.
    """

    shadow: bool
    items: tuple[LimitStanding, ...]


class ViolationList(msgspec.Struct, frozen=True):
    """The refusals of the tenant's callers, a row for each caller and limit, the latest first."""

    items: Annotated[tuple[Violation, ...], msgspec.Meta(extra_json_schema={"maxItems": 1000})]


def add_routes(app: web.Application) -> None:
    """Add the three routes; two of them need the scope ``admin``."""
    add_operations(app, show, violations, reset)


@Operation(
    "GET",
    OWN,
    name="getLimits",
    tag=ACCOUNT,
    summary="Get the caller's rate limits, and what is left of them.",
    text="Counts as no call.",
    answers=(Answer(200, "The limits.", LimitList),),
)
async def show(request: web.Request) -> JsonResponse:
    """Return what is left of the caller's limits."""
    limits, principal = container_of(request).limits, call_of(request).principal
    if principal.plan is None:
        return json_response(LimitList(shadow=False, items=()))
    found: dict[str, LimitStanding] = {}
    for endpoint in NAMED:
        for standing in (await limits.check(principal, endpoint)).standings:
            found.setdefault(standing.quota.key, _shown(standing))
    return json_response(LimitList(shadow=principal.plan.shadow, items=tuple(found.values())))


@Operation(
    "GET",
    "/api/admin/limits/violations",
    name="listLimitViolations",
    tag=USERS,
    summary="List who was refused by a rate limit.",
    text="Of the tenant, since the start of the service, as far as they are kept. For administrators.",
    answers=(Answer(200, "The refusals.", ViolationList),),
)
async def violations(request: web.Request) -> JsonResponse:
    """Return the refusals of the tenant's callers."""
    principal = call_of(request).principal
    check_scope(principal, "admin")
    return json_response(ViolationList(tuple(container_of(request).limits.violations.of(principal.tenant))))


@Operation(
    "POST",
    "/api/admin/limits/{user:[^/]+}/reset",
    name="resetLimits",
    tag=USERS,
    summary="Forget what was counted for a user of the tenant.",
    text="A user is a key's name, or a token's `sub`. Its limits begin anew. For administrators.",
    parameters=(path_name("user", "The user.", most=MAX_NAME, example="ann"),),
    answers=(Answer(204, "It is forgotten."),),
    errors=("invalid_request", "not_found"),
)
async def reset(request: web.Request) -> web.Response:
    """Reset the limits of a user; 404 where nothing was counted for it."""
    principal, user = call_of(request).principal, request.match_info["user"]
    check_scope(principal, "admin")
    check_name(user, "user")
    if not await container_of(request).limits.reset(principal.tenant, user):
        raise NotFound(f"nothing was counted for {user[:80]!r}")
    return web.Response(status=204)


def _shown(standing: QuotaStanding) -> LimitStanding:
    quota = standing.quota
    return LimitStanding(
        endpoint=quota.endpoint,
        unit=quota.unit,
        per=quota.per if quota.window else None,
        limit=quota.limit,
        remaining=standing.remaining,
        reset_ms=round(standing.reset * 1000),
    )
