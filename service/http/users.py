"""``/api/users``: whether a user of the tenant is online; disconnect or unsubscribe a user."""

from typing import Annotated, Final

import msgspec
from aiohttp import web

from protocol.channels import MAX_NAME, DisconnectUser, GetStatus, UnsubscribeUser, UserStatus, check_name
from service.auth.permissions import check_scope
from service.context import call_of, container_of
from service.http.bodies import decode, read_json
from service.http.json_response import JsonResponse, json_response
from service.http.operations import ASKS, USERS, Answer, Body, Operation, add_operations, path_name

TIMEOUT: Final = 5.0  # seconds
BODY_BYTES: Final = 4096
NAMED: Final = (*ASKS, "invalid_request")
USER: Final = path_name("user", "The user's name within the tenant.", most=MAX_NAME, example="ada")


class UnsubscribeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The channel from which a user is unsubscribed."""

    channel: Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_NAME})]


class SocketCount(msgspec.Struct, frozen=True):
    """The number of sockets that were affected."""

    sockets: int


_decoder: Final = msgspec.json.Decoder(UnsubscribeBody)


def add_routes(app: web.Application) -> None:
    """Add the three routes; all of them need the scope ``admin``."""
    add_operations(app, status, disconnect, unsubscribe)


@Operation(
    "GET",
    "/api/users/{user:[^/]+}/status",
    name="getUserStatus",
    tag=USERS,
    summary="Get whether a user is online.",
    parameters=(USER,),
    answers=(Answer(200, "The user's status.", UserStatus),),
    errors=NAMED,
)
async def status(request: web.Request) -> JsonResponse:
    """Return whether a user is online."""
    tenant, user = _named(request)
    return json_response(await container_of(request).hub.ask(GetStatus(tenant=tenant, user=user), timeout=TIMEOUT))


@Operation(
    "POST",
    "/api/users/{user:[^/]+}/disconnect",
    name="disconnectUser",
    tag=USERS,
    summary="Close a user's sockets.",
    text="They are closed with 4503: the user's clients do not reconnect by themselves.",
    parameters=(USER,),
    answers=(Answer(200, "The number of sockets.", SocketCount),),
    errors=NAMED,
)
async def disconnect(request: web.Request) -> JsonResponse:
    """Close a user's sockets with 4503."""
    tenant, user = _named(request)
    sockets = await container_of(request).hub.ask(DisconnectUser(tenant=tenant, user=user), timeout=TIMEOUT)
    return json_response(SocketCount(sockets))


@Operation(
    "POST",
    "/api/users/{user:[^/]+}/unsubscribe",
    name="unsubscribeUser",
    tag=USERS,
    summary="Remove a user from a channel.",
    parameters=(USER,),
    body=Body(UnsubscribeBody, {"channel": "room:7"}),
    answers=(Answer(200, "The number of sockets that were subscribed.", SocketCount),),
    errors=NAMED,
)
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
