"""Server-sent events: a streaming response with a limit for slow readers, and a request's log as such a stream."""

from typing import Final

from aiohttp import web

from actors.log.follow import Batch, Follower, Opening, open_at
from actors.log.frames import snapshot_frame, update_frames
from protocol.errors import FieldError, InvalidRequest
from protocol.events import Entry, EventStream, Position, Snapshot
from protocol.hub import Mode
from protocol.requests import RequestHandle
from protocol.websocket.out import frame_type
from service.context import call_of
from service.http.outcome import mark_cut_off
from service.stall import StallLimit

PING: Final = b": ping\n"  # one newline: some SDKs parse a blank line as an empty event
PING_INTERVAL: Final = 15.0  # seconds of silence, below the 60 of common proxies
STALL_TIMEOUT: Final = 30.0  # seconds after which a client that reads nothing of what was written is disconnected
NOTHING_MORE: Final = 204  # the status at which an EventSource stops reconnecting
HIGH_WATER: Final = 64 * 1024  # bytes, the transport's own

_HEADERS: Final = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
_MODES: Final[dict[str, Mode]] = {"replay": "replay", "snapshot": "snapshot", "live": "live"}


class EventResponse(web.StreamResponse):
    """A ``text/event-stream`` response. A client that does not read for ``STALL_TIMEOUT`` seconds is disconnected."""

    _send_headers_immediately = False  # they are sent with the first data, in one write

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(headers=_HEADERS | headers)

    async def send(self, request: web.Request, data: bytes, *, last: bool = False) -> None:
        """Write ``data``; with ``last``, end the stream in the same write.

        Raises:
            ConnectionResetError: the client has disconnected, or has read nothing for ``STALL_TIMEOUT`` seconds.
        """
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        write = self.write_eof if last else self.write
        if not request.protocol.writing_paused and transport.get_write_buffer_size() + len(data) <= HIGH_WATER:
            await write(data)
            return
        try:
            async with StallLimit(transport.get_write_buffer_size, STALL_TIMEOUT):
                await write(data)
        except TimeoutError:
            transport.abort()
            raise ConnectionResetError("the client has stopped reading") from None


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
    await response.prepare(request)
    if stream.offset <= opening.after and not opening.snapshot:
        await response.send(request, PING)
    async with Follower(stream, after=opening.after, snapshot=opening.snapshot, idle=PING_INTERVAL) as follower:
        while (batch := await follower.next()) is not None:
            last = not isinstance(batch, Snapshot) and bool(batch) and batch[-1].terminal
            await response.send(request, _frames(stream, batch), last=last)
            if last:
                mark_cut_off(call_of(request), batch)
    return response


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
