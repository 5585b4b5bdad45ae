"""What is said over a socket: who is there; submit, follow, leave, come back and cancel; and the talk about channels.

Frames are read here and the actors asked; what is delivered goes from the hub straight to the transport. Losing the
socket unsubscribes and nothing more.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import WSMsgType, web
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, format_trace_id

from protocol import spans
from protocol.channels import SocketOpened
from protocol.errors import PROBLEMS, AccessDenied, InternalError, TidegateError
from protocol.hub import Subscribe, Unsubscribe
from protocol.identity import Scope
from protocol.requests import CancelRequest, GetRequest, RequestHandle
from protocol.websocket.commands import ack_json, authenticated_json, error_json, pong_json
from protocol.websocket.out import (
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
from service.auth.permissions import check_scope
from service.context import Call
from service.frames import Joiner, text_frame
from service.http.bodies import submit_of
from service.http.inference import FIND_TIMEOUT, SUBMIT_TIMEOUT
from service.stall import StallLimit
from service.websocket.admission import Guard
from service.websocket.channels import ChannelTalk, about_channel
from service.websocket.transport import SocketTransport

if TYPE_CHECKING:
    from service.container import Container

ROUTE: Final = "/ws"
HUB_TIMEOUT: Final = 5.0  # seconds
STALL_TIMEOUT: Final = 30.0  # seconds after which a client that reads none of our answers is closed
GOING: Final = 1001
USEFUL: Final[frozenset[Scope]] = frozenset({"inference", "channels"})

Drain = Callable[[], Awaitable[object]]

_ENDS: Final = frozenset({WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR})
_SENDABLE: Final = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})

_log = structlog.get_logger("service")


class Conversation:
    """What one client says, and the answers to it. Nothing outlives it but the requests.

    Args:
        container: whom to ask.
        call: the upgrade.
        socket: where answers go.
        guard: who is there.
        arrived: is called once it is known who is there.
        join: makes one message of several, for clients that ask for that.
    """

    def __init__(
        self,
        container: "Container",
        call: Call,
        socket: SocketTransport,
        guard: Guard,
        *,
        arrived: Callable[[], None],
        join: Joiner,
    ) -> None:
        self._container = container
        self._call = call
        self._socket = socket
        self._guard = guard
        self._arrived = arrived
        self._join = join
        self._channels: ChannelTalk | None = None

    async def run(self, request: web.Request, response: web.WebSocketResponse, drain: Drain) -> None:
        """Answer frames until either side leaves. What a client does not read, it may not ask for either."""
        socket, guard, protocol = self._socket, self._guard, request.protocol
        time = asyncio.get_running_loop().time
        if guard.known:
            await self._welcome()
        while (message := await response.receive()).type not in _ENDS:
            socket.heard = True
            if socket.closing or not guard.admits(len(message.data), time()):
                continue
            if message.type is WSMsgType.PING:
                socket.pong(message.data)
            elif message.type is not WSMsgType.PONG:
                await self._hear(message.data)
            if protocol.writing_paused:
                await self._drained(drain)
        socket.close(_answer_to(response.close_code), "")

    async def _drained(self, drain: Drain) -> None:
        socket = self._socket
        socket.paused = True
        try:
            async with StallLimit(lambda: socket.buffered, STALL_TIMEOUT):
                await drain()
        except TimeoutError:
            socket.close(PROBLEMS["slow_consumer"].close, "slow_consumer")
        socket.paused = False

    async def _hear(self, text: str | bytes) -> None:
        try:
            frame = decode(text)
        except FrameError as error:
            self._send(error_json(error, frame_id=error.frame_id))
            self._guard.misheard(asyncio.get_running_loop().time())
            return
        if getattr(frame, "batch", False):
            self._socket.batch(self._join)
        try:
            if isinstance(frame, AuthenticateFrame):
                await self._authenticate(frame)
                return
            with self._span(frame) as trace_id:
                await self._obey(frame, trace_id)
        except TidegateError as error:
            self._refuse(frame, error)
        except Exception as error:  # noqa: BLE001 - the boundary at which every failure becomes an answer
            _log.error("frame_failed", frame=frame.__struct_config__.tag, exc_info=error)
            self._refuse(frame, InternalError())

    async def _authenticate(self, frame: AuthenticateFrame) -> None:
        stranger = not self._guard.known
        try:
            principal = await self._guard.authenticate(frame.token)
        except AccessDenied as error:
            self._refuse(frame, error)
            if stranger:
                self._socket.close(error.problem.close, error.code)
            return
        if frame.id is not None:
            self._send(authenticated_json(frame.id, principal))
        if stranger:
            await self._welcome()

    async def _welcome(self) -> None:
        """Let in whoever may do anything here, and let it be known that a user is there, where it is one."""
        self._arrived()
        principal = self._guard.principal
        if not USEFUL.intersection(principal.scopes):
            self._socket.close(PROBLEMS["forbidden"].close, "forbidden")
            return
        if principal.subject:
            opened = SocketOpened(socket=self._socket, tenant=principal.tenant, user=principal.subject)
            await self._container.hub.tell(opened)

    async def _obey(self, frame: ClientFrame, trace_id: str) -> None:
        if isinstance(frame, PingFrame):
            self._send(pong_json(frame.id))
            return
        principal = self._guard.principal
        if about_channel(frame):
            await self._talk().obey(frame)
            return
        check_scope(principal, "inference")
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
                pass  # a log is bounded by its answer, and a client comes back at a position: nothing to keep

    async def _submit(self, frame: SubmitFrame, trace_id: str) -> None:
        self._container.lifecycle.admit()
        submit = submit_of(frame, principal=self._guard.principal, trace_id=trace_id)
        submitted = await self._container.router.ask(submit, timeout=SUBMIT_TIMEOUT)
        await self._follow_new(submitted.handle, frame)

    async def _follow_new(self, handle: RequestHandle, frame: SubmitFrame) -> None:
        """Follow what was just submitted. It runs even where it can't be followed, so the refusal names it."""
        try:
            await self._follow(handle, frame)
        except TidegateError as error:
            self._send(error_json(error, frame_id=frame.id, request_id=handle.request_id))

    async def _follow(self, handle: RequestHandle, frame: SubscribeFrame | SubmitFrame) -> None:
        after, mode = (frame.after, frame.mode) if isinstance(frame, SubscribeFrame) else (None, None)
        message = Subscribe(socket=self._socket, stream=handle.stream, after=after, mode=mode, ack_id=frame.id)
        await self._container.hub.ask(message, timeout=HUB_TIMEOUT)

    def _talk(self) -> ChannelTalk:
        """Return what answers frames about channels; most clients send none."""
        if self._channels is None:
            self._channels = ChannelTalk(self._container.hub, self._socket, self._guard)
        return self._channels

    def _send(self, payload: bytes) -> None:
        self._socket.send(text_frame(payload))

    def _refuse(self, frame: ClientFrame, error: TidegateError) -> None:
        named = "" if frame.id is not None else getattr(frame, "request_id", "")
        self._send(error_json(error, frame_id=frame.id, request_id=named, channel=getattr(frame, "channel", "")))
        if not self._guard.known:
            self._guard.misheard(asyncio.get_running_loop().time())

    @contextmanager
    def _span(self, frame: ClientFrame) -> Iterator[str]:
        """Open a span for a frame that has work done; it begins a trace of its own, linked to the upgrade's caller."""
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


def _answer_to(code: int | None) -> int:
    """Return the code with which a client's close frame is answered: its own, where that may be sent at all."""
    return code if code is not None and code in _SENDABLE else GOING
