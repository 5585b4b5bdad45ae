"""Long polling of a request's log: new events after a position, as JSON; for clients that can't hold a stream."""

import asyncio
from typing import Final

import msgspec
from aiohttp import web

from actors.log.follow import Batch, Follower
from actors.log.frames import snapshot_frame, update_frames
from protocol.errors import FieldError, InvalidRequest
from protocol.events import EventStream, Position, Snapshot
from protocol.requests import RequestHandle
from service.http.json_response import JsonResponse
from service.http.sse import opening_of

MAX_WAIT: Final = 55.0  # seconds, below the 60 after which proxies close a silent connection

_encode: Final = msgspec.json.Encoder().encode


class NewEvents(msgspec.Struct, frozen=True, rename="camel"):
    """The events after a position.

    Attributes:
        request_id: the request.
        position: of the last event: the next call's ``after``.
        ended: whether the last event is the end: there are no more.
        events: each as on the socket, in order; none where nothing came in time.
    """

    request_id: str
    position: Position
    ended: bool
    events: tuple[msgspec.Raw, ...]


def accepts_json(request: web.Request) -> bool:
    """Whether the client accepts JSON and no stream."""
    accept = request.headers.get("Accept", "")
    return "application/json" in accept and "text/event-stream" not in accept


async def respond_new_events(request: web.Request, handle: RequestHandle) -> JsonResponse:
    """Respond with all new events as soon as there are any; after ``wait`` seconds at the latest.

    The new events of a long log come page by page: one page in each response.

    Raises:
        InvalidRequest: ``wait`` or ``mode`` has an invalid value, or ``invalid_position``.
        UnrecoverablePosition: the log can't be read from the position that ``after`` names.
    """
    wait = _wait_of(request)
    stream = handle.stream
    opening = opening_of(request, stream)
    batch: Batch | None = ()
    async with Follower(stream, after=opening.after, snapshot=opening.snapshot) as follower:
        if wait or opening.snapshot or stream.offset > follower.cursor:
            try:
                async with asyncio.timeout(wait or None):
                    batch = await follower.next()
            except TimeoutError:
                batch = ()
        position = Position(stream.epoch, follower.cursor)
    ended = stream.ended and position.offset == stream.offset
    answer = NewEvents(handle.request_id, position, ended, _events(stream, batch or ()))
    headers = {"Cache-Control": "no-store", "x-tidegate-source": handle.source}
    return JsonResponse(_encode(answer), headers=headers)


def _events(stream: EventStream, batch: Batch) -> tuple[msgspec.Raw, ...]:
    if isinstance(batch, Snapshot):
        return (msgspec.Raw(snapshot_frame(stream, batch)),)
    return tuple(map(msgspec.Raw, update_frames(stream, batch))) if batch else ()


def _wait_of(request: web.Request) -> float:
    """Return the seconds to wait, at most ``MAX_WAIT``; 0 by default."""
    text = request.query.get("wait", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= len("3600")):
        reason = "must be a number of seconds"
        raise InvalidRequest(f"`wait` {reason}, got {text[:40]!r}", errors=(FieldError("wait", reason),))
    return min(float(text), MAX_WAIT)
