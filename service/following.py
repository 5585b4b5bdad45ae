"""Following one request over the socket: leaving out nothing and repeating nothing, however often it is cut off."""

import asyncio
import time
from types import TracebackType
from typing import Final, NoReturn, Self

import aiohttp
import msgspec

from protocol.errors import PROBLEMS, ConfigurationError, RequestCancelled, ShuttingDown, TidegateError
from protocol.events import Position
from protocol.llm import Usage
from service.backoff import Backoff, cause_of
from service.client_frames import (
    NO_RETURN,
    Frame,
    FrameData,
    decode_frame,
    failure_of,
    failure_of_close,
    failure_of_status,
)

HEARTBEAT: Final = 20.0  # seconds between pings; a service that is silent for half of it more is gone
CONNECT_TIMEOUT: Final = 10.0  # seconds until the subscription is acknowledged
STEADY: Final = 10.0  # seconds after which a connection counts as a success, whatever came over it
CLOSE_TIMEOUT: Final = aiohttp.ClientWSTimeout(ws_close=1.0)  # seconds for the other side's farewell
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
_SUBSCRIBE: Final = 1  # the id of the one frame that asks for an answer
_OVER: Final = frozenset({"completed", "failed", "cancelled"})


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """Something new of the answer.

    Attributes:
        position: where this leads to: ``follow(…, after=position)`` goes on from here.
        text: the text that is new.
        replaces: whether ``text`` takes the place of all the text so far.
        partial: the JSON value so far, where the request asks for it and this update has it.
    """

    position: Position
    text: str = ""
    replaces: bool = False
    partial: msgspec.Raw | None = None


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """The answer is whole.

    Attributes:
        position: of the end.
        result: the validated JSON where a schema was given, otherwise ``{"text": …, "toolCalls": […]}``.
        finish_reason: why the model stopped.
        usage: tokens.
    """

    position: Position
    result: msgspec.Raw
    finish_reason: str
    usage: Usage


class FollowingSocket(aiohttp.ClientWebSocketResponse):
    """A socket that gives its connection back also when the other side has reset it."""

    async def close(self, *, code: int = aiohttp.WSCloseCode.OK, message: bytes = b"") -> bool:
        """Say goodbye where somebody is left to hear it, and let go."""
        try:
            return await super().close(code=code, message=message)
        finally:
            self._response.close()


class _LostError(Exception):
    """The connection is of no more use; ``delay`` is what the server asks to wait, in seconds."""

    def __init__(self, reason: str, delay: float | None = None) -> None:
        self.delay = delay
        super().__init__(reason)


class Following:
    """One request's answer, to iterate over: any number of ``Update``, then one ``Finished``.

    A request that does not become whole raises what ended it. The connection is made at the first step, and made again
    from the last position whenever it is lost. After ``aclose`` (or ``async with``) nothing is left open; the request
    goes on all the same.

    Attributes:
        position: up to where everything has been given; None before the first connection.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        request_id: str,
        *,
        after: Position | None,
        first: Backoff,
        later: Backoff,
    ) -> None:
        self.position = after
        self._session = session
        self._url = url + "/ws"
        self._request_id = request_id
        self._backoff = first
        self._later = later
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._since = 0.0
        self._void = False
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update | Finished:
        """Wait for what comes next.

        Raises:
            TidegateError: what ended the request; or ``Unreachable``, when there was no progress for too long.
        """
        try:
            while not self._ended:
                try:
                    event = self._take(await self._receive())
                except _LostError as lost:
                    await self._pause(lost)
                else:
                    if event is not None:
                        self._backoff.success()
                        return event
        except TidegateError:
            self._ended = True
            raise
        finally:
            await self._leave_at_end()
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave. The request goes on, and a later iteration goes on from the last position."""
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    # -------------------------------------------------------------------------------------------------- the connection

    async def _leave_at_end(self) -> None:
        if self._ended:
            await self.aclose()

    async def _pause(self, lost: _LostError) -> None:
        if self._socket is not None and time.monotonic() - self._since > STEADY:
            self._backoff.success()
        await self.aclose()
        await self._backoff.wait(str(lost), lost.delay)

    async def _receive(self) -> Frame:
        if self._socket is None:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    return await self._connect()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise _LostError(f"{self._url} does not answer ({cause_of(error)})") from error
        return await self._read(self._socket)

    async def _connect(self) -> Frame:
        try:
            socket = await self._session.ws_connect(
                self._url, heartbeat=HEARTBEAT, max_msg_size=MAX_FRAME_BYTES, timeout=CLOSE_TIMEOUT
            )
        except aiohttp.InvalidURL:
            raise ConfigurationError(f"{self._url[:80]!r} is no address") from None
        except aiohttp.WSServerHandshakeError as error:
            failure = failure_of_status(error.status)
            if failure.problem.temporary:
                raise _LostError(failure.detail) from None
            raise failure from None
        self._socket = socket
        subscribe: dict[str, object] = {"type": "subscribe", "id": _SUBSCRIBE, "requestId": self._request_id}
        if self.position is not None:
            subscribe["after"] = {"epoch": self.position.epoch, "offset": self.position.offset}
        await socket.send_str(msgspec.json.encode(subscribe).decode())
        while True:
            frame = await self._read(socket)
            if frame.type in {"ack", "error", "disconnect"}:
                return frame

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> Frame:
        message = await socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            try:
                return decode_frame(message.data)
            except (msgspec.DecodeError, RecursionError) as error:
                raise _LostError(f"{self._url} sent what is no frame") from error
        code = socket.close_code or 0
        if code in NO_RETURN:
            raise failure_of_close(code)
        raise _LostError(f"the connection was lost ({code or 'no close code'})")

    # ------------------------------------------------------------------------------------------------------ the frames

    def _take(self, frame: Frame) -> Update | Finished | None:
        """Return what is new in a frame; None for one that says nothing new of the answer."""
        if frame.type == "ack":
            self._acknowledged(frame.data)
            return None
        if frame.type == "disconnect":
            self._dismissed(frame.data)
        if frame.type == "error" and not frame.terminal:
            self._refused(frame)
        if frame.type not in {"update", "complete", "error"} or frame.request_id != self._request_id:
            return None
        return self._content(frame)

    def _acknowledged(self, data: FrameData) -> None:
        self._backoff = self._later
        self._since = time.monotonic()
        if self.position is None:
            self.position = Position(data.epoch, 0)
        elif not data.recovered or self.position.epoch != data.epoch:
            self.position = Position(data.epoch, 0)
            self._void = True
        elif data.state in _OVER and data.offset <= self.position.offset:
            self._ended = True

    def _dismissed(self, data: FrameData) -> NoReturn:
        if not data.reconnect:
            raise ShuttingDown(f"the service dismissed this client: {data.reason}")
        delay = None if data.delay_ms is None else max(0.0, data.delay_ms / 1000)
        raise _LostError(f"the service asked to reconnect ({data.reason})", delay)

    def _refused(self, frame: Frame) -> NoReturn:
        """The subscription, or a frame of ours, was not accepted."""
        failure = failure_of(frame.error)
        if failure.code == "unrecoverable_position" and self.position is not None:
            self.position = None
            self._void = True
            raise _LostError(failure.detail)
        if failure.problem.temporary:
            raise _LostError(failure.detail, failure.retry_after)
        raise failure

    def _content(self, frame: Frame) -> Update | Finished | None:
        position, data = self.position, frame.data
        if position is None:
            raise _LostError("a frame came before the acknowledgement")
        if frame.snapshot:
            self._void = False
            self.position = Position(frame.epoch or position.epoch, frame.offset)
            return Update(position=self.position, text=data.text, replaces=True, partial=data.partial or None)
        if frame.offset <= position.offset:
            return None
        first = frame.offset if frame.first is None else frame.first
        if first != position.offset + 1:
            raise _LostError(f"after offset {position.offset} came {first}")
        self.position = Position(position.epoch, frame.offset)
        if frame.type == "error":
            self._ended = True
            raise _ended_by(frame)
        if frame.type == "complete":
            self._ended = True
            return Finished(
                position=self.position, result=data.core_result, finish_reason=data.finish_reason, usage=data.usage
            )
        replaces = self._void or (data.attempt_failed is not None and data.attempt_failed.restart)
        self._void = False
        return Update(position=self.position, text=data.delta, replaces=replaces, partial=data.partial or None)


def _ended_by(frame: Frame) -> TidegateError:
    if frame.error.code == RequestCancelled.code:
        return RequestCancelled(frame.error.message or PROBLEMS[RequestCancelled.code].title)
    return failure_of(frame.error)
