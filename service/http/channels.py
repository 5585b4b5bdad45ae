"""``/api/channels``: publish, history and presence; lists for administrators. Subscribing is for the socket."""

from typing import Final

import msgspec
from aiohttp import web

from protocol.channels import (
    NULL,
    ChannelInfo,
    GetHistory,
    GetPresence,
    GetSubscribers,
    ListChannels,
    Member,
    Peer,
    Publication,
    Publish,
    Subscriber,
)
from protocol.checks import check_name, refused
from protocol.errors import AccessDenied
from protocol.events import Position
from protocol.identity import ChannelRight
from service.auth.permissions import check_scope
from service.context import CallContext, call_of, container_of
from service.http.bodies import decode, idempotency_key_of, read_json
from service.http.json_response import JsonResponse, json_response
from service.http.paging import cursor, limit_of, names_after

ACCEPTED: Final = 202
REPLAYED: Final = 200
TIMEOUT: Final = 5.0  # seconds, in addition to the time that a publisher waits for acknowledgements
MAX_ACK_TIMEOUT_MS: Final = 60_000
BODY_BYTES: Final = 64 * 1024


class PublishBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The body of a publication.

    Attributes:
        event: the kind of event: 1 to 64 printable characters.
        data: any JSON, up to 32 KiB.
        key: an idempotency key: sending it again publishes nothing. The header ``Idempotency-Key`` does the same.
        ack_timeout_ms: how long to wait for the subscribers' acknowledgements, in milliseconds; 0 for not at all.
    """

    event: str
    data: msgspec.Raw = msgspec.field(default_factory=lambda: NULL)  # a plain default would have to be in the schema
    key: str = ""
    ack_timeout_ms: int = 0


class PublishAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of a publication.

    Attributes:
        position: its position in the channel.
        subscribers: the sockets that followed the channel at that time; each of them gets it.
        acknowledged: the subscribers that acknowledged it in time; only with ``ackTimeoutMs``.
    """

    position: Position
    subscribers: int
    acknowledged: tuple[Peer, ...] | None = None


class HistoryPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a channel's history.

    Attributes:
        position: the channel's current position; None for an unknown channel.
        publications: in order, with the time of each in Unix seconds.
        next: the ``after`` of the next page; None for the last page.
    """

    position: Position | None
    publications: tuple[Publication, ...]
    next: str | None = None


class PresenceList(msgspec.Struct, frozen=True):
    """The members of a channel, in the order of their joins."""

    members: tuple[Member, ...]


class ChannelPage(msgspec.Struct, frozen=True):
    """A page of the channels that exist, by name.

    Attributes:
        items: the channels.
        next: the ``after`` of the next page; None for the last page.
    """

    items: tuple[ChannelInfo, ...]
    next: str | None = None


class SubscriberPage(msgspec.Struct, frozen=True):
    """A page of the clients that follow a channel, members or not, by user and client.

    Attributes:
        items: the clients.
        next: the ``after`` of the next page; None for the last page.
    """

    items: tuple[Subscriber, ...]
    next: str | None = None


_decoder: Final = msgspec.json.Decoder(PublishBody)


def add_routes(app: web.Application) -> None:
    """Add the five routes; the lists need the scope ``admin``."""
    router = app.router
    router.add_get("/api/channels", index)
    router.add_get("/api/channels/{name:[^/]+}/subscribers", subscribers)
    router.add_post("/api/channels/{name:[^/]+}/publish", publish)
    router.add_get("/api/channels/{name:[^/]+}/presence", presence)
    router.add_get("/api/channels/{name:[^/]+}/history", history)


async def publish(request: web.Request) -> JsonResponse:
    """Publish: 202, or 200 where the key belongs to an earlier publication."""
    call, container = call_of(request), container_of(request)
    name = _channel(request, call, "publish")
    header = idempotency_key_of(request.headers)
    body = decode(_decoder, await read_json(request, min(BODY_BYTES, container.settings.max_body_bytes)))
    if not 0 <= body.ack_timeout_ms <= MAX_ACK_TIMEOUT_MS:
        raise refused("$.ackTimeoutMs", f"must be within 0..{MAX_ACK_TIMEOUT_MS}")
    if header and body.key and header != body.key:
        raise refused("$.key", "must be what `Idempotency-Key` says, where both are sent")
    wait = body.ack_timeout_ms / 1000
    message = Publish(
        tenant=call.tenant, channel=name, event=body.event, data=body.data, key=body.key or header, wait=wait
    )
    published = await container.hub.ask(message, timeout=wait + TIMEOUT)
    answer = PublishAnswer(
        position=published.position,
        subscribers=published.subscribers,
        acknowledged=published.acknowledged if wait else None,
    )
    if published.replayed:
        return json_response(answer, status=REPLAYED, headers={"Idempotent-Replayed": "true"})
    return json_response(answer, status=ACCEPTED)


async def presence(request: web.Request) -> JsonResponse:
    """Return the members of a channel."""
    call = call_of(request)
    message = GetPresence(tenant=call.tenant, channel=_channel(request, call, "presence"))
    return json_response(PresenceList(await container_of(request).hub.ask(message, timeout=TIMEOUT)))


async def history(request: web.Request) -> JsonResponse:
    """Return a page of the history after a position, or from the first publication that is kept."""
    call, query = call_of(request), request.query
    name = _channel(request, call, "subscribe")
    after = Position.parse(query["after"]) if query.get("after") else None
    message = GetHistory(tenant=call.tenant, channel=name, after=after, limit=limit_of(request))
    found = await container_of(request).hub.ask(message, timeout=TIMEOUT)
    last = found.publications[-1].offset if found.publications else 0
    page = HistoryPage(
        position=Position(found.epoch, found.offset) if found.epoch else None,
        publications=found.publications,
        next=str(Position(found.epoch, last)) if found.more else None,
    )
    return json_response(page)


async def index(request: web.Request) -> JsonResponse:
    """Return a page of the tenant's channels."""
    call = call_of(request)
    check_scope(call.principal, "admin")
    (after,) = names_after(request, 1) or ("",)
    found = await container_of(request).hub.ask(
        ListChannels(tenant=call.tenant, after=after, limit=limit_of(request)), timeout=TIMEOUT
    )
    return json_response(ChannelPage(found.items, cursor(found.items[-1].name) if found.more else None))


async def subscribers(request: web.Request) -> JsonResponse:
    """Return a page of a channel's subscribers."""
    call, name = call_of(request), request.match_info["name"]
    check_scope(call.principal, "admin")
    check_name(name, "channel")
    after = names_after(request, 2)
    message = GetSubscribers(
        tenant=call.tenant, channel=name, after=Peer(*after) if after else None, limit=limit_of(request)
    )
    found = await container_of(request).hub.ask(message, timeout=TIMEOUT)
    last = found.items[-1] if found.more else None
    return json_response(SubscriberPage(found.items, cursor(last.user, last.client) if last else None))


def _channel(request: web.Request, call: CallContext, right: ChannelRight) -> str:
    """Return the channel's name, where the caller has the right ``right`` in it.

    Raises:
        InvalidRequest: the name is not valid.
        AccessDenied: ``channel_denied``.
    """
    name = request.match_info["name"]
    check_name(name, "channel")
    if not call.principal.may(right, name):
        raise AccessDenied(f"You may not {right} in {name!r}", code="channel_denied")
    return name
