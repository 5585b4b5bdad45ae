"""The transport of a WebSocket: the hub writes ready-made frames straight to it, and closing it never waits.

The server's frames are not masked, so one frame's bytes are valid for every socket. aiohttp writes whole frames to the
same transport, so the two never mix within a frame.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from service.frames import PING, PING_INTERVAL, Joiner, close_frame, pong_frame

HIGH_WATER: Final = 64 * 1024  # bytes buffered above which we stop reading from the client
PONG_TIMEOUT: Final = 10.0  # seconds; less where the heartbeat is shorter
CLOSE_TIMEOUT: Final = 5.0  # seconds in which a client has to read what is buffered and answer the close frame
LINGER: Final = 1.0  # seconds for which a refused client's bytes are dropped, so that it reads the close frame
NO_PONG: Final = 4012

Later = Callable[[float, Callable[[], None]], asyncio.TimerHandle]


class SocketTransport:
    """One client's connection: the hub's ``Socket``, with a heartbeat.

    ::

        open --25 s--> waiting for a pong --any message--> open
                              |
                              | 10 s without one
                              v
        open --close()--> closing --the client's close frame, or 5 s--> closed

    Args:
        transport: the connection's transport.
        later: calls a function after so many seconds; the loop's ``call_later``.
        heartbeat: seconds between two pings.

    Attributes:
        write: sends ready-made frames; drops them once the socket is closing. Right after the connection was lost it
            may raise ``RuntimeError``; ``send`` does not.
        closing: whether the socket is closing; nothing more is written then.
        received: whether the client has sent anything since the last ping.
        paused: whether reading is paused: silence of the client then means nothing.
    """

    __slots__ = ("_heartbeat", "_later", "_timer", "_transport", "closing", "paused", "received", "write")

    def __init__(self, transport: asyncio.Transport, later: Later, heartbeat: float = PING_INTERVAL) -> None:
        transport.set_write_buffer_limits(high=HIGH_WATER, low=HIGH_WATER // 2)
        self.closing = False
        self.received = True
        self.paused = False
        self.write: Callable[[bytes], None] = transport.write  # no call frame between the hub and the transport
        self._transport = transport
        self._later = later
        self._heartbeat = heartbeat
        self._timer = later(heartbeat, self._ping)

    @property
    def buffered(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._transport.get_write_buffer_size()

    def batch(self, join: Joiner) -> None:
        """Send frames that are written together as one message from now on, a line each."""
        if self.closing:
            return
        write = self._transport.write
        self.write = lambda frames: write(join(frames))

    def pong(self, payload: bytes) -> None:
        """Answer a ping of the client."""
        self.send(pong_frame(payload))

    def send(self, frames: bytes) -> None:
        """Write frames; drops them where the connection is lost."""
        try:
            self.write(frames)
        except RuntimeError:  # uvloop raises it for a lost connection before it calls connection_lost
            self._end()

    def close(self, code: int, reason: str) -> None:
        """Send the close frame, once. The connection is aborted where the client does not answer in time."""
        if self.closing:
            return
        self.send(close_frame(code, reason))
        self._end()
        self._timer = self._later(CLOSE_TIMEOUT, self._transport.abort)

    def end(self, code: int, reason: str) -> None:
        """Send the close frame and close the connection without waiting for the client: its place is needed."""
        if not self.closing:
            self.send(close_frame(code, reason))
        self._end()
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close()

    async def linger(self) -> None:
        """End our direction, and let what the client still sends be dropped for a moment.

        Bytes that nobody reads would reset the connection, and the close frame would be lost.
        """
        if not self._transport.is_closing() and self._transport.can_write_eof():
            self._transport.write_eof()
        await asyncio.sleep(LINGER)

    def finish(self) -> None:
        """Close the connection. Buffered bytes have ``CLOSE_TIMEOUT`` seconds to be sent."""
        self._end()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._timer = self._later(CLOSE_TIMEOUT, self._transport.abort)

    def _end(self) -> None:
        self.closing = True
        self.write = _drop
        self._timer.cancel()

    def _ping(self) -> None:
        self.received = False
        self.send(PING)
        if not self.closing:
            self._timer = self._later(min(PONG_TIMEOUT, self._heartbeat), self._check)

    def _check(self) -> None:
        if self.received or self.paused:
            self._timer = self._later(max(0.0, self._heartbeat - PONG_TIMEOUT), self._ping)
        else:
            self.close(NO_PONG, "no pong")


def _drop(_: bytes) -> None:
    """Drop frames: the socket is closing."""
