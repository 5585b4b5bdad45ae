"""``/api/channels``: publish, history and presence; lists for administrators. Subscribing is for the socket."""

from functools import partial
from typing import Annotated, Final

import msgspec
from aiohttp import web

from protocol.channels import (
    MAX_EVENT,
    MAX_KEY,
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
from protocol.checks import MAX_NAME, check_name, refused
from protocol.events import Position
from protocol.identity import ChannelRight
from service.auth.permissions import check_channel, check_scope
from service.context import CallContext, call_of, container_of
from service.http.bodies import decode, idempotency_key_of, read_json
from service.http.json_response import JsonResponse, json_response
from service.http.operations import (
    ASKS,
    CHANNELS,
    IDEMPOTENCY_KEY,
    Answer,
    Body,
    Operation,
    Parameter,
    add_operations,
    path_name,
)
from service.http.paging import CURSOR, LIMIT, cursor, limit_of, names_after

ACCEPTED: Final = 202
REPLAYED: Final = 200
TIMEOUT: Final = 5.0  # seconds, in addition to the time that a publisher waits for acknowledgements
MAX_ACK_TIMEOUT_MS: Final = 60_000
BODY_BYTES: Final = 64 * 1024
NAMED: Final = (*ASKS, "invalid_request", "channel_denied")
CHANNEL: Final = path_name(
    "name", "The channel's name within the tenant: printable characters.", most=MAX_NAME, example="room:7"
)

_EventName = Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_EVENT})]
_Key = Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": MAX_KEY})]
_Wait = Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": MAX_ACK_TIMEOUT_MS})]


class PublishBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The body of a publication.

    Attributes:
        event: the kind of event: 1 to 64 printable characters.
        data: any JSON, up to 32 KiB.
        key: an idempotency key: sending it again publishes nothing. The header ``Idempotency-Key`` does the same.
        ack_timeout_ms: how long to wait for the subscribers' acknowledgements, in milliseconds; 0 for not at all.
    """

    event: _EventName
    data: msgspec.Raw = msgspec.field(default_factory=lambda: NULL)  # a plain default would have to be in the schema
    key: _Key = ""
    ack_timeout_ms: _Wait = 0


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
    add_operations(app, index, subscribers, publish, presence, history)


@Operation(
    "POST",
    "/api/channels/{name:[^/]+}/publish",
    name="publish",
    tag=CHANNELS,
    summary="Publish to a channel.",
    text="Needs the right `publish` in the channel.",
    parameters=(CHANNEL, IDEMPOTENCY_KEY),
    body=Body(PublishBody, {"event": "said", "data": {"text": "hello"}}),
    answers=(
        Answer(202, "It is published.", PublishAnswer),
        Answer(200, "The key belongs to this earlier publication.", PublishAnswer, headers=("Idempotent-Replayed",)),
    ),
    errors=(*NAMED, "idempotency_key_reused", "publication_too_large", "overloaded"),
)
async def publish(request: web.Request) -> JsonResponse:
    """Publish: 202, or 200 where the key belongs to an earlier publication."""
    call, container = call_of(request), container_of(request)
    name = _channel(request, call, "publish")
    header = idempotency_key_of(request.headers)
    body = await read_json(request, min(BODY_BYTES, container.settings.max_body_bytes), partial(decode, _decoder))
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


@Operation(
    "GET",
    "/api/channels/{name:[^/]+}/presence",
    name="getPresence",
    tag=CHANNELS,
    summary="Get the members of a channel.",
    text="Needs the right `presence` in the channel.",
    parameters=(CHANNEL,),
    answers=(Answer(200, "The members, in the order of their joins.", PresenceList),),
    errors=NAMED,
)
async def presence(request: web.Request) -> JsonResponse:
    """Return the members of a channel."""
    call = call_of(request)
    message = GetPresence(tenant=call.tenant, channel=_channel(request, call, "presence"))
    return json_response(PresenceList(await container_of(request).hub.ask(message, timeout=TIMEOUT)))


@Operation(
    "GET",
    "/api/channels/{name:[^/]+}/history",
    name="getHistory",
    tag=CHANNELS,
    summary="Read what was published in a channel, page by page.",
    text="From the first publication that is kept, or after a position. Needs the right `subscribe` in the channel.",
    parameters=(
        CHANNEL,
        Parameter(
            name="after",
            place="query",
            text="The position after which to begin: the `next` of a page, or a publication's.",
            schema={"type": "string", "pattern": r"^[^\n]+:[0-9]{1,15}$"},
        ),
        LIMIT,
    ),
    answers=(Answer(200, "A page.", HistoryPage),),
    errors=(*NAMED, "invalid_position", "unrecoverable_position"),
)
async def history(request: web.Request) -> JsonResponse:
    """Return a page of the history after a position, or from the first publication that is kept."""
    call, query = call_of(request), request.query
    name = _channel(request, call, "subscribe")
    after = Position.parse(query["after"]) if "after" in query else None
    message = GetHistory(tenant=call.tenant, channel=name, after=after, limit=limit_of(request))
    found = await container_of(request).hub.ask(message, timeout=TIMEOUT)
    last = found.publications[-1].offset if found.publications else 0
    page = HistoryPage(
        position=Position(found.epoch, found.offset) if found.epoch else None,
        publications=found.publications,
        next=str(Position(found.epoch, last)) if found.more else None,
    )
    return json_response(page)


@Operation(
    "GET",
    "/api/channels",
    name="listChannels",
    tag=CHANNELS,
    summary="List the channels that exist, page by page.",
    text="For administrators.",
    parameters=(CURSOR, LIMIT),
    answers=(Answer(200, "A page.", ChannelPage),),
    errors=(*ASKS, "invalid_request"),
)
async def index(request: web.Request) -> JsonResponse:
    """Return a page of the tenant's channels."""
    call = call_of(request)
    check_scope(call.principal, "admin")
    (after,) = names_after(request, 1) or ("",)
    found = await container_of(request).hub.ask(
        ListChannels(tenant=call.tenant, after=after, limit=limit_of(request)), timeout=TIMEOUT
    )
    return json_response(ChannelPage(found.items, cursor(found.items[-1].name) if found.more else None))


@Operation(
    "GET",
    "/api/channels/{name:[^/]+}/subscribers",
    name="listSubscribers",
    tag=CHANNELS,
    summary="List the clients that follow a channel, members or not, page by page.",
    text="For administrators.",
    parameters=(CHANNEL, CURSOR, LIMIT),
    answers=(Answer(200, "A page.", SubscriberPage),),
    errors=(*ASKS, "invalid_request"),
)
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
    check_channel(call.principal, right, name)
    call.needs = partial(check_channel, right=right, channel=name)
    return name
