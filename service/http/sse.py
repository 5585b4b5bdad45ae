"""Server-sent events: a streaming response with a limit for slow readers, and a request's log as such a stream."""

from collections.abc import Callable
from typing import Final

from aiohttp import web

from actors.log.follow import Batch, Follower, Opening, open_at
from actors.log.frames import snapshot_frame, update_frames
from protocol.errors import AccessDenied, FieldError, InvalidRequest
from protocol.events import Entry, EventStream, Position, Snapshot
from protocol.hub import Mode
from protocol.requests import RequestHandle
from protocol.websocket.out import error_json, frame_type
from service.context import call_of
from service.http.outcome import mark_cut_off

PING: Final = b": ping\n"  # one newline: some SDKs parse a blank line as an empty event
PING_INTERVAL: Final = 15.0  # seconds of silence, below the 60 of common proxies
NOTHING_MORE: Final = 204  # the status at which an EventSource stops reconnecting
HIGH_WATER: Final = 64 * 1024  # bytes, the transport's own

_HEADERS: Final = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
_MODES: Final[dict[str, Mode]] = {"replay": "replay", "snapshot": "snapshot", "live": "live"}


class EventResponse(web.StreamResponse):
    """A ``text/event-stream`` response. ``service.stall`` disconnects a client that takes nothing of it."""

    _send_headers_immediately = False  # they are sent with the first data, in one write

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(headers=_HEADERS | headers)

    async def send(self, request: web.Request, data: bytes, *, last: bool = False) -> None:
        """Write ``data``; with ``last``, end the stream in the same write. Waits while much is not taken.

        Raises:
            ConnectionResetError: the client has disconnected, or was disconnected as it took nothing.
        """
        if request.transport is None:
            raise ConnectionResetError("the client is gone")
        await (self.write_eof if last else self.write)(data)


async def event_stream(request: web.Request, handle: RequestHandle) -> web.StreamResponse:
    """Stream the log of ``handle`` to its end: each entry, or one snapshot and then each entry.

    A client that has the end already gets 204, which stops an ``EventSource`` from reconnecting.

    Raises:
        InvalidRequest: an unknown mode, or ``invalid_position``.
        UnrecoverablePosition: the log can't be read from the position that ``after`` names.
    """
    stream = handle.stream
    opening = opening_of(request, stream)
    if stream.ended and opening.after == stream.offset:
        return web.Response(status=NOTHING_MORE)
    response = EventResponse({"x-tidegate-source": handle.source})
    call = call_of(request)
    async with Follower(stream, after=opening.after, snapshot=opening.snapshot, idle=PING_INTERVAL) as follower:
        call.stop = stopper(request, follower)
        await response.prepare(request)
        if stream.offset <= opening.after and not opening.snapshot:
            await response.send(request, PING)
        while (batch := await follower.next()) is not None:
            last = not isinstance(batch, Snapshot) and bool(batch) and batch[-1].terminal
            await response.send(request, _frames(stream, batch), last=last)
            if last:
                mark_cut_off(call, batch)
    if call.denied is not None:
        call.failure = call.denied.code
        await response.send(request, _denial(stream, follower.cursor, call.denied), last=True)
    return response


def stopper(request: web.Request, follower: Follower) -> Callable[[], None]:
    """Return what ends a stream whose reader has lost the right to it: its handler then sends the reason as the end.

    Of a reader that is behind, what is not sent yet is dropped with the connection.
    """

    def stop() -> None:
        follower.close()
        if request.protocol.writing_paused and request.transport is not None:
            request.transport.abort()

    return stop


def opening_of(request: web.Request, stream: EventStream) -> Opening:
    """Return the position and mode at which the client begins.

    ``after`` in the query gets the entries after it, or an error where it is of another epoch. ``Last-Event-ID`` comes
    from an automatic reconnect, so it gets a snapshot instead of an error.
    """
    query = request.query
    mode = _MODES.get(query.get("mode", ""))
    if mode is None and "mode" in query:
        reason = "must be `replay`, `snapshot` or `live`"
        raise InvalidRequest(f"`mode` {reason}, got {query['mode'][:40]!r}", errors=(FieldError("mode", reason),))
    if "after" in query:
        return open_at(stream, Position.parse(query["after"]), mode or "replay")
    last = request.headers.get("Last-Event-ID")
    if not last:
        return open_at(stream, None, mode)
    return open_at(stream, Position.parse(last), None if mode == "replay" else mode)


def _denial(stream: EventStream, cursor: int, error: AccessDenied) -> bytes:
    """Return the event that ends a stream: its id is the last one again, so that another key can go on from there."""
    return _frame(stream.epoch, cursor, "error", error_json(error, request_id=stream.request_id, terminal=True))


def _frames(stream: EventStream, batch: Batch) -> bytes:
    if isinstance(batch, Snapshot):
        return _frame(stream.epoch, batch.offset, "update", snapshot_frame(stream, batch))
    if not batch:
        return PING
    frames = zip(batch, update_frames(stream, batch), strict=True)
    return b"".join([_entry_frame(stream.epoch, entry, data) for entry, data in frames])


def _entry_frame(epoch: str, entry: Entry, data: bytes) -> bytes:
    if entry.terminal and (b"\n" in data or b"\r" in data):
        data = data.replace(b"\r", b" ").replace(b"\n", b" ")
    return _frame(epoch, entry.offset, frame_type(entry.event), data)


def _frame(epoch: str, offset: int, kind: str, data: bytes) -> bytes:
    return b"id: %b:%d\nevent: %b\ndata: %b\n\n" % (epoch.encode(), offset, kind.encode(), data)
