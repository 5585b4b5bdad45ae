"""A WebSocket as the hub writes to it: ready-made frames straight to the transport, and an end that never waits.

The server's frames are not masked, so one frame's bytes are valid for every socket. aiohttp writes whole frames too,
and only ever between ours.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from service.frames import PING, Joiner, close_frame, pong_frame

HIGH_WATER: Final = 64 * 1024  # bytes buffered above which we stop reading from the client
PING_INTERVAL: Final = 25.0  # seconds, below every proxy's 60
PONG_TIMEOUT: Final = 10.0  # seconds
CLOSE_TIMEOUT: Final = 5.0  # seconds that a client has to take what is buffered and to answer the close frame
NO_PONG: Final = 4012

Later = Callable[[float, Callable[[], None]], asyncio.TimerHandle]


class SocketTransport:
    """One client's connection: the hub's ``Socket``, with a heartbeat.

    Args:
        transport: where the bytes go.
        later: calls something after so many seconds; the loop's ``call_later``.

    Attributes:
        write: sends ready-made frames; after the end has begun they are dropped. For a moment after the connection was
            lost it raises ``RuntimeError``, which ``send`` does not.
        closing: whether the end has begun; from then on nothing more is written.
        batch: whether the client takes several frames in one message, a line each.
        heard: whether the client has sent anything since the last ping.
        paused: whether we don't read at present, so that hearing nothing means nothing.
    """

    __slots__ = ("_later", "_timer", "_transport", "closing", "heard", "paused", "write")

    def __init__(self, transport: asyncio.Transport, later: Later) -> None:
        transport.set_write_buffer_limits(high=HIGH_WATER, low=HIGH_WATER // 2)
        self.closing = False
        self.heard = True
        self.paused = False
        self.write: Callable[[bytes], None] = transport.write  # no frame of its own between the hub and the transport
        self._transport = transport
        self._later = later
        self._timer = later(PING_INTERVAL, self._ping)

    @property
    def buffered(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._transport.get_write_buffer_size()

    def batch(self, join: Joiner) -> None:
        """From now on what is written together is one message, a line each."""
        if self.closing:
            return
        write = self._transport.write
        self.write = lambda frames: write(join(frames))

    def pong(self, payload: bytes) -> None:
        """Answer the client's own ping."""
        self.send(pong_frame(payload))

    def send(self, frames: bytes) -> None:
        """Write, where there is still a connection."""
        try:
            self.write(frames)
        except RuntimeError:  # uvloop's word for a connection that is lost, before anybody has said so
            self._end()

    def close(self, code: int, reason: str) -> None:
        """Send the close frame; a client that does not answer it in time is cut off."""
        if self.closing:
            return
        self.send(close_frame(code, reason))
        self._end()
        self._timer = self._later(CLOSE_TIMEOUT, self._transport.abort)

    def finish(self) -> None:
        """Let the connection go: what is buffered may still leave, in the time that closing takes."""
        self._end()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._timer = self._later(CLOSE_TIMEOUT, self._transport.abort)

    def _end(self) -> None:
        self.closing = True
        self.write = _drop
        self._timer.cancel()

    def _ping(self) -> None:
        self.heard = False
        self.send(PING)
        if not self.closing:
            self._timer = self._later(PONG_TIMEOUT, self._check)

    def _check(self) -> None:
        if self.heard or self.paused:
            self._timer = self._later(PING_INTERVAL - PONG_TIMEOUT, self._ping)
        else:
            self.close(NO_PONG, "no pong")


def _drop(_: bytes) -> None:
    """Send nothing: the connection has ended."""
