"""``/api/channels``: publish, look back, and see who is there. Following a channel is for the socket."""

from typing import Final

import msgspec
from aiohttp import web

from protocol.channels import MAX_PAGE, NULL, GetHistory, GetPresence, Member, Peer, Publication, Publish, check_name
from protocol.errors import AccessDenied, FieldError, InvalidRequest
from protocol.events import Position
from protocol.identity import ChannelRight
from service.context import Call, call_of, container_of
from service.http.bodies import decode, idempotency_key_of, read_json
from service.http.json_response import Answer, json_answer

ACCEPTED: Final = 202
REPLAYED: Final = 200
TIMEOUT: Final = 5.0  # seconds, beside what a publisher waits for acknowledgements
PAGE: Final = 100  # publications of a history, where the caller does not say
MAX_ACK_TIMEOUT_MS: Final = 60_000
BODY_BYTES: Final = 64 * 1024


class PublishBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The body of a publication.

    Attributes:
        event: what kind of news it is: 1 to 64 printable characters.
        data: any JSON, up to 32 KiB.
        key: names this publication, so that sending it again publishes nothing; so does the header ``Idempotency-Key``.
        ack_timeout_ms: how long to wait for those who follow the channel to acknowledge it, in milliseconds; 0 for not
            at all.
    """

    event: str
    data: msgspec.Raw = msgspec.field(default_factory=lambda: NULL)  # a plain default would have to be in the schema
    key: str = ""
    ack_timeout_ms: int = 0


class PublishAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a publication.

    Attributes:
        position: where it is in the channel.
        acknowledged: who said in time that they have it; only where that was asked for.
    """

    position: Position
    acknowledged: tuple[Peer, ...] | None = None


class HistoryPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of what was published.

    Attributes:
        position: where the channel is now; None where nothing is known of it.
        publications: in order, with the time of each in Unix seconds.
        next: where the next page begins; None where there is none.
    """

    position: Position | None
    publications: tuple[Publication, ...]
    next: str | None = None


class PresenceList(msgspec.Struct, frozen=True):
    """Who is in a channel, in the order in which they came."""

    members: tuple[Member, ...]


_decoder: Final = msgspec.json.Decoder(PublishBody)


def add_routes(app: web.Application) -> None:
    """Offer the three addresses."""
    router = app.router
    router.add_post("/api/channels/{name:[^/]+}/publish", publish)
    router.add_get("/api/channels/{name:[^/]+}/presence", presence)
    router.add_get("/api/channels/{name:[^/]+}/history", history)


async def publish(request: web.Request) -> Answer:
    """Publish: 202, or 200 for a publication that its key names already."""
    call, container = call_of(request), container_of(request)
    name = _channel(request, call, "publish")
    header = idempotency_key_of(request.headers)
    body = decode(_decoder, await read_json(request, min(BODY_BYTES, container.settings.max_body_bytes)))
    if not 0 <= body.ack_timeout_ms <= MAX_ACK_TIMEOUT_MS:
        raise _wrong("$.ackTimeoutMs", f"must be within 0..{MAX_ACK_TIMEOUT_MS}")
    if header and body.key and header != body.key:
        raise _wrong("$.key", "must be what `Idempotency-Key` says, where both are sent")
    wait = body.ack_timeout_ms / 1000
    message = Publish(
        tenant=call.tenant, channel=name, event=body.event, data=body.data, key=body.key or header, wait=wait
    )
    published = await container.hub.ask(message, timeout=wait + TIMEOUT)
    answer = PublishAnswer(position=published.position, acknowledged=published.acknowledged if wait else None)
    if published.replayed:
        return json_answer(answer, status=REPLAYED, headers={"Idempotent-Replayed": "true"})
    return json_answer(answer, status=ACCEPTED)


async def presence(request: web.Request) -> Answer:
    """Return who is there."""
    call = call_of(request)
    message = GetPresence(tenant=call.tenant, channel=_channel(request, call, "presence"))
    return json_answer(PresenceList(await container_of(request).hub.ask(message, timeout=TIMEOUT)))


async def history(request: web.Request) -> Answer:
    """Return what was published after a position, or from the first publication that is held."""
    call, query = call_of(request), request.query
    name = _channel(request, call, "subscribe")
    after = Position.parse(query["after"]) if query.get("after") else None
    message = GetHistory(tenant=call.tenant, channel=name, after=after, limit=_limit(query.get("limit", "")))
    found = await container_of(request).hub.ask(message, timeout=TIMEOUT)
    last = found.publications[-1].offset if found.publications else 0
    page = HistoryPage(
        position=Position(found.epoch, found.offset) if found.epoch else None,
        publications=found.publications,
        next=str(Position(found.epoch, last)) if found.more else None,
    )
    return json_answer(page)


def _channel(request: web.Request, call: Call, right: ChannelRight) -> str:
    """Return the channel's name, where the caller has that right in it.

    Raises:
        InvalidRequest: it is none.
        AccessDenied: ``channel_denied``.
    """
    name = request.match_info["name"]
    check_name(name, "channel")
    if not call.principal.may(right, name):
        raise AccessDenied(f"You may not {right} in {name!r}", code="channel_denied")
    return name


def _limit(said: str) -> int:
    if not said:
        return PAGE
    if not (said.isascii() and said.isdigit()) or not 1 <= int(said[:9]) <= MAX_PAGE:
        raise _wrong("limit", f"must be within 1..{MAX_PAGE}")
    return int(said)


def _wrong(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"`{path}` {reason}", errors=(FieldError(path, reason),))
