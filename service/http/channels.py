"""``/api/channels``: publish, history and presence. Subscribing is for the socket."""

from typing import Annotated, Final

import msgspec
from aiohttp import web

from protocol.channels import (
    MAX_EVENT,
    MAX_KEY,
    MAX_NAME,
    MAX_PAGE,
    NULL,
    GetHistory,
    GetPresence,
    Member,
    Peer,
    Publication,
    Publish,
    check_name,
)
from protocol.errors import AccessDenied, FieldError, InvalidRequest
from protocol.events import Position
from protocol.identity import ChannelRight
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

ACCEPTED: Final = 202
REPLAYED: Final = 200
TIMEOUT: Final = 5.0  # seconds, in addition to the time that a publisher waits for acknowledgements
PAGE: Final = 100  # publications of a history by default
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
        acknowledged: the subscribers that acknowledged it in time; only with ``ackTimeoutMs``.
    """

    position: Position
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


_decoder: Final = msgspec.json.Decoder(PublishBody)


def add_routes(app: web.Application) -> None:
    """Add the three routes."""
    add_operations(app, publish, presence, history)


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
    body = decode(_decoder, await read_json(request, min(BODY_BYTES, container.settings.max_body_bytes)))
    if not 0 <= body.ack_timeout_ms <= MAX_ACK_TIMEOUT_MS:
        raise _invalid("$.ackTimeoutMs", f"must be within 0..{MAX_ACK_TIMEOUT_MS}")
    if header and body.key and header != body.key:
        raise _invalid("$.key", "must be what `Idempotency-Key` says, where both are sent")
    wait = body.ack_timeout_ms / 1000
    message = Publish(
        tenant=call.tenant, channel=name, event=body.event, data=body.data, key=body.key or header, wait=wait
    )
    published = await container.hub.ask(message, timeout=wait + TIMEOUT)
    answer = PublishAnswer(position=published.position, acknowledged=published.acknowledged if wait else None)
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
        Parameter(
            name="limit",
            place="query",
            text="The most publications of a page.",
            schema={"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": PAGE},
        ),
    ),
    answers=(Answer(200, "A page.", HistoryPage),),
    errors=(*NAMED, "invalid_position", "unrecoverable_position"),
)
async def history(request: web.Request) -> JsonResponse:
    """Return a page of the history after a position, or from the first publication that is kept."""
    call, query = call_of(request), request.query
    name = _channel(request, call, "subscribe")
    after = Position.parse(query["after"]) if "after" in query else None
    message = GetHistory(tenant=call.tenant, channel=name, after=after, limit=_limit(query.get("limit")))
    found = await container_of(request).hub.ask(message, timeout=TIMEOUT)
    last = found.publications[-1].offset if found.publications else 0
    page = HistoryPage(
        position=Position(found.epoch, found.offset) if found.epoch else None,
        publications=found.publications,
        next=str(Position(found.epoch, last)) if found.more else None,
    )
    return json_response(page)


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


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= MAX_PAGE:
        raise _invalid("limit", f"must be within 1..{MAX_PAGE}")
    return int(text)


def _invalid(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"`{path}` {reason}", errors=(FieldError(path, reason),))
