"""``/api/users``: whether a user of the tenant is there, and what an administrator does about it."""

from typing import Final

import msgspec
from aiohttp import web

from protocol.channels import DisconnectUser, GetStatus, UnsubscribeUser, check_name
from service.auth.permissions import check_scope
from service.context import call_of, container_of
from service.http.bodies import decode, read_json
from service.http.json_response import Answer, json_answer

TIMEOUT: Final = 5.0  # seconds
BODY_BYTES: Final = 4096


class UnsubscribeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a user is taken out of."""

    channel: str


class SocketCount(msgspec.Struct, frozen=True):
    """How many sockets were concerned."""

    sockets: int


_decoder: Final = msgspec.json.Decoder(UnsubscribeBody)


def add_routes(app: web.Application) -> None:
    """Offer the three addresses; all of them are for the scope ``admin``."""
    router = app.router
    router.add_get("/api/users/{user:[^/]+}/status", status)
    router.add_post("/api/users/{user:[^/]+}/disconnect", disconnect)
    router.add_post("/api/users/{user:[^/]+}/unsubscribe", unsubscribe)


async def status(request: web.Request) -> Answer:
    """Say whether a user is online."""
    tenant, user = _named(request)
    return json_answer(await container_of(request).hub.ask(GetStatus(tenant=tenant, user=user), timeout=TIMEOUT))


async def disconnect(request: web.Request) -> Answer:
    """Close a user's sockets with 4503."""
    tenant, user = _named(request)
    sockets = await container_of(request).hub.ask(DisconnectUser(tenant=tenant, user=user), timeout=TIMEOUT)
    return json_answer(SocketCount(sockets))


async def unsubscribe(request: web.Request) -> Answer:
    """Take a user out of a channel."""
    tenant, user = _named(request)
    body = decode(_decoder, await read_json(request, BODY_BYTES))
    check_name(body.channel, "$.channel")
    message = UnsubscribeUser(tenant=tenant, user=user, channel=body.channel)
    return json_answer(SocketCount(await container_of(request).hub.ask(message, timeout=TIMEOUT)))


def _named(request: web.Request) -> tuple[str, str]:
    """Return the caller's tenant, and the user that the address names.

    Raises:
        AccessDenied: ``forbidden``.
        InvalidRequest: that is no name.
    """
    principal = call_of(request).principal
    check_scope(principal, "admin")
    user = request.match_info["user"]
    check_name(user, "user")
    return principal.tenant, user
