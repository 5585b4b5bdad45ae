"""``/api/users``: the status of a user of the tenant, and what the user follows; all of it for administrators."""

from functools import partial
from typing import Annotated, Final

import msgspec
from aiohttp import web

from protocol.checks import MAX_NAME, check_name
from protocol.hub import Mode
from protocol.users import (
    DEFAULT_PRESENCE,
    MAX_PRESENCE,
    DisconnectUser,
    GetStatus,
    GetUserChannels,
    Online,
    SetPresence,
    SubscribeUser,
    UnsubscribeUser,
    UserChannel,
    UserStatus,
    UserSubscribed,
)
from protocol.websocket.commands import ResumePosition
from service.auth.permissions import check_scope
from service.context import call_of, container_of
from service.http.bodies import decode, read_json
from service.http.json_response import JsonResponse, json_response
from service.http.operations import ASKS, USERS, Answer, Body, Operation, add_operations, path_name
from service.http.paging import CURSOR, LIMIT, cursor, limit_of, names_after

TIMEOUT: Final = 5.0  # seconds
BODY_BYTES: Final = 4096
NAMED: Final = (*ASKS, "invalid_request")
USER: Final = path_name("user", "The user's name within the tenant.", most=MAX_NAME, example="ada")


class SubscribeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The channel to which a user's sockets are subscribed.

    Attributes:
        channel: its name.
        after: the exclusive position to start after; without it, new publications only.
        mode: ``replay`` for all that is held, or ``live``; as in the socket's ``subscribe``.
        presence: whether the sockets get the changes of presence.
    """

    channel: str
    after: ResumePosition | None = None
    mode: Mode | None = None
    presence: bool = False


class UnsubscribeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The channel from which a user is unsubscribed."""

    channel: Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_NAME})]


class PresenceBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A user's status, as it is set.

    Attributes:
        status: ``online`` or ``offline``.
        metadata: any JSON, up to 1 KiB.
        ttl_ms: for how long it holds, in milliseconds: up to a day; 0 ends what was set before.
    """

    status: Online
    metadata: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
    ttl_ms: Annotated[int, msgspec.Meta(ge=0, le=round(MAX_PRESENCE * 1000))] = round(DEFAULT_PRESENCE * 1000)


class SocketCount(msgspec.Struct, frozen=True):
    """The number of sockets that were affected."""

    sockets: int


class UserChannelPage(msgspec.Struct, frozen=True):
    """A page of the channels that a user follows, by name.

    Attributes:
        items: the channels.
        next: the ``after`` of the next page; None for the last page.
    """

    items: tuple[UserChannel, ...]
    next: str | None = None


_subscribe: Final = msgspec.json.Decoder(SubscribeBody)
_unsubscribe: Final = msgspec.json.Decoder(UnsubscribeBody)
_presence: Final = msgspec.json.Decoder(PresenceBody)


def add_routes(app: web.Application) -> None:
    """Add the six routes; all of them need the scope ``admin``."""
    add_operations(app, status, set_presence, channels, disconnect, subscribe, unsubscribe)


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
    "PUT",
    "/api/users/{user:[^/]+}/presence",
    name="setUserPresence",
    tag=USERS,
    summary="Set whether a user is online, for a time.",
    text="It counts instead of the user's sockets until it ends.",
    parameters=(USER,),
    body=Body(PresenceBody, {"status": "offline", "metadata": {"why": "on holiday"}, "ttlMs": 60000}),
    answers=(Answer(200, "The user's status.", UserStatus),),
    errors=(*NAMED, "overloaded"),
)
async def set_presence(request: web.Request) -> JsonResponse:
    """Set whether a user is online, and return the status."""
    tenant, user = _named(request)
    body = await read_json(request, BODY_BYTES, partial(decode, _presence))
    message = SetPresence(tenant=tenant, user=user, status=body.status, metadata=body.metadata, ttl=body.ttl_ms / 1000)
    return json_response(await container_of(request).hub.ask(message, timeout=TIMEOUT))


@Operation(
    "GET",
    "/api/users/{user:[^/]+}/channels",
    name="listUserChannels",
    tag=USERS,
    summary="List the channels that a user follows, page by page.",
    parameters=(USER, CURSOR, LIMIT),
    answers=(Answer(200, "A page.", UserChannelPage),),
    errors=NAMED,
)
async def channels(request: web.Request) -> JsonResponse:
    """Return a page of the channels that a user follows."""
    tenant, user = _named(request)
    (after,) = names_after(request, 1) or ("",)
    message = GetUserChannels(tenant=tenant, user=user, after=after, limit=limit_of(request))
    found = await container_of(request).hub.ask(message, timeout=TIMEOUT)
    return json_response(UserChannelPage(found.items, cursor(found.items[-1].name) if found.more else None))


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
    "/api/users/{user:[^/]+}/subscribe",
    name="subscribeUser",
    tag=USERS,
    summary="Subscribe a user's sockets to a channel.",
    text="Each client is told by an `ack` without an `id`. Sockets that are opened later are not subscribed.",
    parameters=(USER,),
    body=Body(SubscribeBody, {"channel": "room:7"}),
    answers=(Answer(200, "How many of the sockets follow the channel now, and how many had no room.", UserSubscribed),),
    errors=(*NAMED, "overloaded", "unrecoverable_position"),
)
async def subscribe(request: web.Request) -> JsonResponse:
    """Subscribe a user's sockets to a channel."""
    tenant, user = _named(request)
    body = await read_json(request, BODY_BYTES, partial(decode, _subscribe))
    message = SubscribeUser(
        tenant=tenant, user=user, channel=body.channel, after=body.after, mode=body.mode, presence=body.presence
    )
    return json_response(await container_of(request).hub.ask(message, timeout=TIMEOUT))


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
    body = await read_json(request, BODY_BYTES, partial(decode, _unsubscribe))
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
