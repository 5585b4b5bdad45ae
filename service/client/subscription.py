"""Following something over a socket of its own: at a position, to which it comes back whenever the socket is lost."""

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
from service.client.endpoint import ClientSocket, Endpoint, LostError
from service.client.frames import (
    NO_RETURN,
    Acknowledged,
    Frame,
    decode_acknowledged,
    decode_dismissed,
    decode_frame,
    failure_of,
    failure_of_close,
)

CONNECT_TIMEOUT: Final = 10.0  # seconds until the subscription is acknowledged
STEADY: Final = 10.0  # seconds after which a connection counts as a success, whatever came over it
SUBSCRIBE: Final = 1  # the id of the frame that subscribes

EventT = TypeVar("EventT")


class Subscription(ABC, Generic[EventT]):
    """Something to iterate over, event by event, each once and in order.

    The connection is made at the first step, and made again from the last position whenever it is lost. Nothing is read
    ahead: what has not been asked for is in the socket's own bounded buffer, or still with the service. After
    ``aclose`` (or ``async with``) nothing is left open, and whoever iterates comes to the end. One that is dropped lets
    go of its connection, too.

    Args:
        endpoint: where the service is.
        after: the exclusive position to begin at; None for what the subscription itself says.
        first: waits until the first connection.
        later: waits from then on.

    Attributes:
        position: up to where everything has been given; None before the first connection.
    """

    def __init__(self, endpoint: Endpoint, *, after: Position | None, first: Backoff, later: Backoff) -> None:
        self.position = after
        self._endpoint = endpoint
        self._backoff = first
        self._later = later
        self._socket: ClientSocket | None = None
        self._since = 0.0
        self._torn = False
        self._ended = False

    def __del__(self) -> None:
        if self._socket is not None:
            self._socket.abort()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> EventT:
        """Wait for what comes next.

        Raises:
            TidegateError: what ended it; or ``Unreachable``, when there was no progress for too long.
        """
        try:
            while not self._ended:
                before = self.position
                try:
                    event = self._take(await self._receive())
                except (msgspec.DecodeError, RecursionError):
                    await self._pause(LostError(f"{self._endpoint.url} sent what is no frame"))
                except LostError as lost:
                    await self._pause(lost)
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
                await self._drop()
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave. What was followed goes on, and can be followed again from the last position."""
        self._ended = True
        await self._drop()

    # ------------------------------------------------------------------------------------------------ what is followed

    @abstractmethod
    def _frames(self) -> Sequence[dict[str, object]]:
        """Return what to say on a new connection; the frame with the id ``SUBSCRIBE`` is among it."""

    @abstractmethod
    def _acknowledged(self, ack: Acknowledged) -> EventT | None:
        """Return what the acknowledgement of the subscription says that is new."""

    @abstractmethod
    def _heard(self, frame: Frame) -> EventT | None:
        """Return what is new in a frame; None where nothing is.

        Raises:
            LostError: it is not what comes after the position.
            TidegateError: it is the end.
        """

    def _forget(self) -> bool:
        """Give up a position that the service refuses; false where that is not wanted."""
        if self.position is None:
            return False
        self.position = None
        self._torn = True
        return True

    # -------------------------------------------------------------------------------------------------- the connection

    async def _drop(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    async def _pause(self, lost: LostError) -> None:
        if self._socket is not None and time.monotonic() - self._since > STEADY:
            self._backoff.success()
        await self._drop()
        if not self._ended:
            await self._backoff.wait(str(lost), lost.delay)

    async def _receive(self) -> Frame:
        if self._socket is not None:
            return await self._read(self._socket)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await self._connect()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise LostError(f"{self._endpoint.url} does not answer ({cause_of(error)})") from error

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
        if code in NO_RETURN:
            raise failure_of_close(code)
        raise LostError(f"the connection was lost ({code or 'no close code'})")

    # ------------------------------------------------------------------------------------------------------ the frames

    def _take(self, frame: Frame) -> EventT | None:
        if frame.type == "disconnect":
            self._dismissed(frame)
        if frame.type == "error" and not frame.terminal:
            self._refused(frame)
        if frame.type != "ack" or frame.id != SUBSCRIBE:
            return self._heard(frame)
        self._backoff = self._later
        self._since = time.monotonic()
        return self._acknowledged(decode_acknowledged(frame.data))

    def _dismissed(self, frame: Frame) -> NoReturn:
        dismissed = decode_dismissed(frame.data)
        if not dismissed.reconnect:
            raise ShuttingDown(f"the service dismissed this client: {dismissed.reason}")
        delay = None if dismissed.delay_ms is None else max(0.0, dismissed.delay_ms / 1000)
        raise LostError(f"the service asked to reconnect ({dismissed.reason})", delay)

    def _refused(self, frame: Frame) -> NoReturn:
        """The subscription, or a frame of ours, was not accepted."""
        failure = failure_of(frame.error)
        if failure.code == "unrecoverable_position" and self._forget():
            raise LostError(failure.detail)
        if failure.problem.temporary:
            raise LostError(failure.detail, failure.retry_after)
        raise failure
