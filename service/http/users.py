"""``/api/users``: whether a user of the tenant is online; disconnect or unsubscribe a user."""

from typing import Final

import msgspec
from aiohttp import web

from protocol.channels import DisconnectUser, GetStatus, UnsubscribeUser, check_name
from service.auth.permissions import check_scope
from service.context import call_of, container_of
from service.http.bodies import decode, read_json
from service.http.json_response import JsonResponse, json_response

TIMEOUT: Final = 5.0  # seconds
BODY_BYTES: Final = 4096


class UnsubscribeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The channel from which a user is unsubscribed."""

    channel: str


class SocketCount(msgspec.Struct, frozen=True):
    """The number of sockets that were affected."""

    sockets: int


_decoder: Final = msgspec.json.Decoder(UnsubscribeBody)


def add_routes(app: web.Application) -> None:
    """Add the three routes; all of them need the scope ``admin``."""
    router = app.router
    router.add_get("/api/users/{user:[^/]+}/status", status)
    router.add_post("/api/users/{user:[^/]+}/disconnect", disconnect)
    router.add_post("/api/users/{user:[^/]+}/unsubscribe", unsubscribe)


async def status(request: web.Request) -> JsonResponse:
    """Return whether a user is online."""
    tenant, user = _named(request)
    return json_response(await container_of(request).hub.ask(GetStatus(tenant=tenant, user=user), timeout=TIMEOUT))


async def disconnect(request: web.Request) -> JsonResponse:
    """Close a user's sockets with 4503."""
    tenant, user = _named(request)
    sockets = await container_of(request).hub.ask(DisconnectUser(tenant=tenant, user=user), timeout=TIMEOUT)
    return json_response(SocketCount(sockets))


async def unsubscribe(request: web.Request) -> JsonResponse:
    """Unsubscribe a user from a channel."""
    tenant, user = _named(request)
    body = decode(_decoder, await read_json(request, BODY_BYTES))
    check_name(body.channel, "$.channel")
    message = UnsubscribeUser(tenant=tenant, user=user, channel=body.channel)
    return json_response(SocketCount(await container_of(request).hub.ask(message, timeout=TIMEOUT)))


def _named(request: web.Request) -> tuple[str, str]:
    """Return the caller's tenant and the user in the path.

    Raises:
        AccessDenied: ``forbidden``.
        InvalidRequest: the user's name is not valid.
    """
    principal = call_of(request).principal
    check_scope(principal, "admin")
    user = request.match_info["user"]
    check_name(user, "user")
    return principal.tenant, user
