"""A request's log by long polling: whatever is new after a position, as JSON; for clients that can hold no stream."""

import asyncio
from typing import Final

import msgspec
from aiohttp import web

from actors.log.follow import Batch, Follower
from actors.log.frames import snapshot_frame, update_frames
from protocol.errors import FieldError, InvalidRequest
from protocol.events import EventStream, Position, Snapshot
from protocol.requests import RequestHandle
from service.http.json_response import Answer
from service.http.sse import opening_of

MAX_WAIT: Final = 55.0  # seconds, below the 60 at which proxies cut a silent call

_encode: Final = msgspec.json.Encoder().encode


class News(msgspec.Struct, frozen=True, rename="camel"):
    """What follows a position.

    Attributes:
        request_id: whose log it is.
        position: up to where ``events`` lead: the next call's ``after``.
        ended: whether the last one is the end: there is nothing more to ask for.
        events: each as on the socket, in order; none where nothing came in time.
    """

    request_id: str
    position: Position
    ended: bool
    events: tuple[msgspec.Raw, ...]


def wanted(request: web.Request) -> bool:
    """Whether the client asks for JSON and not for a stream."""
    accept = request.headers.get("Accept", "")
    return "application/json" in accept and "text/event-stream" not in accept


async def news(request: web.Request, handle: RequestHandle) -> Answer:
    """Answer with what is new, at once or as soon as something is; at the latest after ``wait`` seconds.

    What is new of a long log comes page by page: a page in each answer.

    Raises:
        InvalidRequest: ``wait`` or ``mode`` is not what it may be, or ``invalid_position``.
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
    answer = News(handle.request_id, position, ended, _events(stream, batch or ()))
    headers = {"Cache-Control": "no-store", "x-tidegate-source": handle.source}
    return Answer(_encode(answer), headers=headers)


def _events(stream: EventStream, batch: Batch) -> tuple[msgspec.Raw, ...]:
    if isinstance(batch, Snapshot):
        return (msgspec.Raw(snapshot_frame(stream, batch)),)
    return tuple(map(msgspec.Raw, update_frames(stream, batch))) if batch else ()


def _wait_of(request: web.Request) -> float:
    """Return the seconds to wait, at most ``MAX_WAIT``; 0 where the client does not say."""
    text = request.query.get("wait", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= len("3600")):
        reason = "must be a number of seconds"
        raise InvalidRequest(f"`wait` {reason}, got {text[:40]!r}", errors=(FieldError("wait", reason),))
    return min(float(text), MAX_WAIT)
