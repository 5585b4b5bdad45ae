"""A subscription over a socket of its own, which reconnects and resumes at its position."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Generic, NoReturn, Self, TypeVar

import aiohttp
import msgspec

from protocol.errors import ShuttingDown, TidegateError
from protocol.events import Position
from service.client.backoff import Backoff, cause_of
from service.client.endpoint import ClientSocket, ConnectionLost, Endpoint
from service.client.frames import (
    FATAL_CLOSE_CODES,
    AckData,
    Frame,
    decode_ack,
    decode_disconnect,
    decode_frame,
    failure_of,
    failure_of_close,
)

CONNECT_TIMEOUT: Final = 10.0  # seconds until the subscription is acknowledged
STEADY: Final = 10.0  # seconds after which a connection counts as a success, also without an event
SUBSCRIBE: Final = 1  # the id of the frame that subscribes

EventT = TypeVar("EventT")


class Subscription(ABC, Generic[EventT]):
    """An iterator over events, each once and in order.

    ::

        new --first step--> connecting --ack--> following --the end, a fatal error, aclose()--> ended
                                ^                   |
                                +--connection lost--+   after a delay, from the last position

    Nothing is read ahead: events that have not been asked for are in the socket's own bounded buffer, or still at the
    service. After ``aclose`` (or ``async with``) nothing is open, and the iteration ends. A garbage-collected
    subscription releases its connection, too.

    Args:
        endpoint: the service.
        after: the exclusive position to begin at; None for the subclass's default.
        first: the backoff until the first connection.
        later: the backoff from then on.

    Attributes:
        position: of the last event that was yielded; None before the first connection.
    """

    def __init__(self, endpoint: Endpoint, *, after: Position | None, first: Backoff, later: Backoff) -> None:
        self.position = after
        self._endpoint = endpoint
        self._backoff = first
        self._reconnect_backoff = later
        self._socket: ClientSocket | None = None
        self._connected_at = 0.0
        self._gap = False
        self._ended = False

    def __del__(self) -> None:
        if self._socket is not None:
            self._socket.abort()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> EventT:
        """Wait for the next event.

        Raises:
            TidegateError: the error that ended the subscription; ``Unreachable`` after too long without progress.
        """
        try:
            while not self._ended:
                before = self.position
                try:
                    event = self._process(await self._receive())
                except (msgspec.DecodeError, RecursionError):
                    await self._wait_to_reconnect(ConnectionLost(f"{self._endpoint.url} sent what is no frame"))
                except ConnectionLost as lost:
                    await self._wait_to_reconnect(lost)
                else:
                    if event is not None:
                        if self.position != before:
                            self._backoff.success()
                        return event
        except TidegateError:
            self._ended = True
            raise
        finally:
            if self._ended:
                await self._disconnect()
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Unsubscribe. A later subscription can continue from the last position."""
        self._ended = True
        await self._disconnect()

    # ----------------------------------------------------------------------------------------------- the subscribed log

    @abstractmethod
    def _frames(self) -> Sequence[dict[str, object]]:
        """Return the frames to send on a new connection; the one that subscribes has the id ``SUBSCRIBE``."""

    @abstractmethod
    def _on_ack(self, ack: AckData) -> EventT | None:
        """Process the acknowledgement of the subscription; returns an event, or None."""

    @abstractmethod
    def _on_frame(self, frame: Frame) -> EventT | None:
        """Process a frame; returns an event, or None.

        Raises:
            ConnectionLost: the frame does not follow the position.
            TidegateError: the frame ends the subscription.
        """

    def _drop_position(self) -> bool:
        """Drop a position that the service refuses; returns False where the subscription has to fail instead."""
        if self.position is None:
            return False
        self.position = None
        self._gap = True
        return True

    # -------------------------------------------------------------------------------------------------- the connection

    async def _disconnect(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    async def _wait_to_reconnect(self, lost: ConnectionLost) -> None:
        if self._socket is not None and time.monotonic() - self._connected_at > STEADY:
            self._backoff.success()
        await self._disconnect()
        if not self._ended:
            await self._backoff.wait(str(lost), lost.delay)

    async def _receive(self) -> Frame:
        if self._socket is not None:
            return await self._read(self._socket)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await self._connect()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if not self._connected_at:
                self._endpoint.check_tls(error)
            raise ConnectionLost(f"{self._endpoint.url} does not answer ({cause_of(error)})") from error

    async def _connect(self) -> Frame:
        socket = self._socket = await self._endpoint.connect()
        for frame in self._frames():
            await socket.send_str(msgspec.json.encode(frame).decode())
        while True:
            answer = await self._read(socket)
            if answer.type in {"ack", "error", "disconnect"}:
                return answer

    async def _read(self, socket: ClientSocket) -> Frame:
        message = await socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            return decode_frame(message.data)
        code = socket.close_code or 0
        if code in FATAL_CLOSE_CODES:
            raise failure_of_close(code)
        raise ConnectionLost(f"the connection was lost ({code or 'no close code'})")

    # ------------------------------------------------------------------------------------------------------ the frames

    def _process(self, frame: Frame) -> EventT | None:
        if frame.type == "disconnect":
            self._on_disconnect(frame)
        if frame.type == "error" and not frame.terminal:
            self._on_error(frame)
        if frame.type != "ack" or frame.id != SUBSCRIBE:
            return self._on_frame(frame)
        self._backoff = self._reconnect_backoff
        self._connected_at = time.monotonic()
        return self._on_ack(decode_ack(frame.data))

    def _on_disconnect(self, frame: Frame) -> NoReturn:
        data = decode_disconnect(frame.data)
        if not data.reconnect:
            raise ShuttingDown(f"the service dismissed this client: {data.reason}")
        delay = None if data.delay_ms is None else max(0.0, data.delay_ms / 1000)
        raise ConnectionLost(f"the service asked to reconnect ({data.reason})", delay)

    def _on_error(self, frame: Frame) -> NoReturn:
        """Raise the error of a refused frame, or ``ConnectionLost`` where the subscription can be retried."""
        failure = failure_of(frame.error)
        if failure.code == "unrecoverable_position" and self._drop_position():
            raise ConnectionLost(failure.detail)
        if failure.problem.temporary:
            raise ConnectionLost(failure.detail, failure.retry_after)
        raise failure
