"""A socket's session: authenticate, submit, subscribe, unsubscribe and cancel; and the commands on channels.

The session reads frames and asks the actors. What is delivered goes from the hub straight to the transport. Losing the
socket only unsubscribes: requests go on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, format_trace_id

from protocol import spans
from protocol.errors import PROBLEMS, AccessDenied, InternalError, TidegateError
from protocol.hub import Subscribe, Unsubscribe
from protocol.requests import CancelRequest, GetRequest, RequestHandle
from protocol.users import SocketOpened
from protocol.websocket.commands import (
    AckFrame,
    AuthenticateFrame,
    CancelFrame,
    ClientFrame,
    FrameError,
    PingFrame,
    SubmitFrame,
    SubscribeFrame,
    UnsubscribeFrame,
    decode,
)
from protocol.websocket.out import ack_json, authenticated_json, error_json, pong_json
from service.context import CallContext
from service.frames import Joiner, text_frame
from service.http.bodies import submit_of
from service.http.outcome import FIND_TIMEOUT
from service.http.submitting import submit as submit_within_limits
from service.websocket.admission import Admission
from service.websocket.channels import ChannelCommands, is_channel_frame
from service.websocket.reader import BINARY, CLOSE, PING, TEXT, FrameReader, Received
from service.websocket.rights import SOCKET_SCOPES
from service.websocket.transport import SocketTransport

if TYPE_CHECKING:
    from service.container import Container

ROUTE: Final = "/ws"
HUB_TIMEOUT: Final = 5.0  # seconds
GOING_AWAY: Final = 1001
SERVER_ERROR: Final = 500

Drain = Callable[[], Awaitable[object]]

_log = structlog.get_logger("service.websocket")


class SocketSession:
    """Reads one client's frames and answers them. Only the requests outlive it.

    ::

        unauthenticated ----authenticate----> authenticated
               |                                    |
               | timeout, invalid token             | close frame, expired token, rate limit, shutdown
               v                                    v
            closing ----the client's close frame, or 5 s----> closed

    An upgrade with a credential begins as ``authenticated``.

    Args:
        container: has the actors.
        call: the HTTP call of the upgrade.
        socket: takes the answers.
        admission: authenticates the client, and limits its rate.
        on_authenticated: is called with the tenant when the client has authenticated; returns whether there is room.
        join: makes one message of several, for clients that ask for that.

    Attributes:
        frames: how many messages the client has sent.
        close_code: with which the client's side has ended; 0 before, and where the connection was lost.
    """

    def __init__(
        self,
        container: "Container",
        call: CallContext,
        socket: SocketTransport,
        admission: Admission,
        *,
        on_authenticated: Callable[[str], bool],
        join: Joiner,
    ) -> None:
        self._container = container
        self._call = call
        self._socket = socket
        self._admission = admission
        self._on_authenticated = on_authenticated
        self._join = join
        self._channels: ChannelCommands | None = None
        self.frames = 0
        self.close_code = 0

    async def run(self, reader: FrameReader, protocol: web.RequestHandler, drain: Drain) -> None:
        """Answer frames until either side closes. Reading pauses while the client does not read our answers."""
        socket, admission = self._socket, self._admission
        if admission.authenticated:
            await self._begin()
        while (received := await reader.receive()).opcode != CLOSE:
            socket.received = True
            self.frames += 1
            if socket.closing or not admission.admits(len(received.payload)):
                continue
            if received.opcode in {TEXT, BINARY}:
                await self._on_message(received.payload)
            elif received.opcode == PING and isinstance(received.payload, bytes):
                socket.pong(received.payload)
            if protocol.writing_paused:
                await self._wait_for_drain(drain)
        await self._end(received)

    async def _end(self, last: Received) -> None:
        """Answer the client's close frame, or refuse what it has sent instead of a valid frame."""
        self.close_code, reason = last.code, str(last.payload)
        if not reason or self._socket.closing:
            self._socket.close(last.code or GOING_AWAY, "")
            return
        _log.info("socket_refused", close=last.code, reason=reason)
        self._socket.close(last.code, reason)
        await self._socket.linger()

    async def _wait_for_drain(self, drain: Drain) -> None:
        socket = self._socket
        socket.paused = True
        await drain()
        socket.paused = False

    async def _on_message(self, text: str | bytes) -> None:
        try:
            frame = decode(text)
        except FrameError as error:
            _log.info("frame_refused", code=error.code, type=None)
            self._send(error_json(error, frame_id=error.frame_id))
            self._admission.count_bad_frame(asyncio.get_running_loop().time())
            return
        if getattr(frame, "batch", False):
            self._socket.batch(self._join)
        try:
            if isinstance(frame, AuthenticateFrame):
                await self._authenticate(frame)
                return
            with self._span(frame) as trace_id:
                await self._dispatch(frame, trace_id)
        except TidegateError as error:
            self._refuse(frame, error)
        except Exception as error:  # noqa: BLE001 - the boundary at which every failure becomes an answer
            _log.error("frame_failed", frame=frame.__struct_config__.tag, exc_info=error)
            self._refuse(frame, InternalError())

    async def _authenticate(self, frame: AuthenticateFrame) -> None:
        first = not self._admission.authenticated
        try:
            principal = await self._admission.authenticate(frame.token)
        except AccessDenied as error:
            self._refuse(frame, error)
            if first:
                self._socket.close(error.problem.close, error.code)
            return
        if frame.id is not None:
            self._send(authenticated_json(frame.id, principal))
        if first:
            await self._begin()

    async def _begin(self) -> None:
        """Close the socket where the caller has no room or no scope for it; otherwise report the user as connected."""
        principal = self._admission.principal
        if not self._on_authenticated(principal.tenant):
            self._socket.close(PROBLEMS["connection_limit"].close, "connection_limit")
            return
        if not SOCKET_SCOPES.intersection(principal.scopes):
            self._socket.close(PROBLEMS["forbidden"].close, "forbidden")
            return
        if principal.subject:
            opened = SocketOpened(socket=self._socket, tenant=principal.tenant, user=principal.subject)
            await self._container.hub.tell(opened)

    async def _dispatch(self, frame: ClientFrame, trace_id: str) -> None:
        if isinstance(frame, PingFrame):
            self._send(pong_json(frame.id))
            return
        principal = self._admission.principal
        if is_channel_frame(frame):
            await self._channel_commands().dispatch(frame)
            return
        self._admission.check("inference")
        match frame:
            case SubmitFrame():
                await self._submit(frame, trace_id)
            case CancelFrame():
                cancel = CancelRequest(frame.request_id, principal.tenant)
                handle = await self._container.router.ask(cancel, timeout=FIND_TIMEOUT)
                if frame.id is not None:
                    state = handle.state()
                    self._send(ack_json(frame.id, frame.request_id, state.position, state.assistant_status))
            case SubscribeFrame():
                find = GetRequest(frame.request_id, principal.tenant)
                handle = await self._container.router.ask(find, timeout=FIND_TIMEOUT)
                await self._follow(handle, frame)
            case UnsubscribeFrame():
                message = Unsubscribe(socket=self._socket, request_id=frame.request_id)
                await self._container.hub.ask(message, timeout=HUB_TIMEOUT)
                if frame.id is not None:
                    self._send(ack_json(frame.id, frame.request_id))
            case AckFrame():
                pass  # nothing to record: a log is bounded by its answer, and a client resumes at a position

    async def _submit(self, frame: SubmitFrame, trace_id: str) -> None:
        lifecycle = self._container.lifecycle
        lifecycle.admit()
        principal = self._admission.principal
        submit = submit_of(frame, principal=principal, trace_id=trace_id, surface="socket")
        submit, _ = self._container.passing.submit(principal, submit)
        lifecycle.enter(self)
        try:
            submitted = await submit_within_limits(self._container, self._admission.principal, submit, path=ROUTE)
            await self._follow_new(submitted.handle, frame)
        finally:
            lifecycle.leave(self)

    async def _follow_new(self, handle: RequestHandle, frame: SubmitFrame) -> None:
        """Subscribe to the new request. It runs even where that fails, so the error names it."""
        try:
            await self._follow(handle, frame)
        except TidegateError as error:
            self._send(error_json(error, frame_id=frame.id, request_id=handle.request_id))

    async def _follow(self, handle: RequestHandle, frame: SubscribeFrame | SubmitFrame) -> None:
        self._admission.check("inference")
        after, mode = (frame.after, frame.mode) if isinstance(frame, SubscribeFrame) else (None, None)
        message = Subscribe(
            socket=self._socket,
            stream=handle.stream,
            after=after,
            mode=mode,
            ack_id=frame.id,
            tenant=self._admission.principal.tenant,
        )
        await self._container.hub.ask(message, timeout=HUB_TIMEOUT)

    def _channel_commands(self) -> ChannelCommands:
        """Return the channel commands, made with the first one: most clients send none."""
        if self._channels is None:
            self._channels = ChannelCommands(self._container.hub, self._socket, self._admission, self._container.limits)
        return self._channels

    def _send(self, payload: bytes) -> None:
        self._socket.send(text_frame(payload))

    def _refuse(self, frame: ClientFrame, error: TidegateError) -> None:
        write = _log.info if error.problem.status < SERVER_ERROR else _log.warning
        write("frame_refused", code=error.code, type=frame.__struct_config__.tag)
        named = "" if frame.id is not None else getattr(frame, "request_id", "")
        self._send(error_json(error, frame_id=frame.id, request_id=named, channel=getattr(frame, "channel", "")))
        if not self._admission.authenticated:
            self._admission.count_bad_frame(asyncio.get_running_loop().time())

    @contextmanager
    def _span(self, frame: ClientFrame) -> Iterator[str]:
        """Open a span for a submit, subscribe or cancel: the root of a new trace, linked to the upgrade's caller."""
        tracer = self._container.telemetry.tracer
        if tracer is None or not isinstance(frame, SubmitFrame | SubscribeFrame | CancelFrame):
            yield self._call.trace_id
            return
        kind = str(frame.__struct_config__.tag)
        links = [] if self._call.parent is None else [Link(self._call.parent)]
        attributes = {spans.HTTP_ROUTE: ROUTE, spans.MESSAGE_TYPE: kind}
        with tracer.start_as_current_span(
            f"{kind} {ROUTE}",
            Context(),
            SpanKind.SERVER,
            attributes,
            links,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield format_trace_id(span.get_span_context().trace_id)
            except TidegateError as error:
                span.set_attribute(spans.ERROR_TYPE, error.code)
                raise
