"""What was written to a connection, and has yet to be taken by the client's system."""

import asyncio
import socket
import sys
from typing import Final

SEND_BUFFER: Final = 256 * 1024  # bytes; Linux keeps twice as many. Set, it does not grow with what a client leaves
BYTES_ACKED: Final = 120  # where ``tcpi_bytes_acked`` begins in ``struct tcp_info``
BYTES_ACKED_END: Final = 128

if sys.platform == "linux":
    from fcntl import ioctl
    from termios import TIOCOUTQ

    ASKS_KERNEL: Final = True
else:
    ASKS_KERNEL: Final = False

_NUMBER: Final = b"\0" * 4


class KernelOutgoing:
    """Bytes written to a TCP connection that the client's system has not acknowledged.

    On Linux the kernel says how many there are and how many have been acknowledged; elsewhere only the bytes that the
    kernel has not accepted are known. What the client's system has acknowledged is in its buffers, and can't be seen.

    Args:
        sock: the connection's.
    """

    __slots__ = ("_sock", "transport")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.transport: asyncio.Transport | None = None

    @property
    def waiting(self) -> int:
        """Bytes that are written and not acknowledged."""
        buffered = 0 if self.transport is None else self.transport.get_write_buffer_size()
        descriptor = self._sock.fileno()
        if not ASKS_KERNEL or descriptor < 0:
            return buffered
        try:
            return buffered + int.from_bytes(ioctl(descriptor, TIOCOUTQ, _NUMBER), sys.byteorder)
        except OSError:  # the connection is lost
            return buffered

    @property
    def taken(self) -> int | None:
        """Bytes that were acknowledged since the connection was made; None where the system does not say."""
        if not ASKS_KERNEL or self._sock.fileno() < 0:
            return None
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_ACKED_END)
        except OSError:
            return None
        return (
            int.from_bytes(info[BYTES_ACKED:BYTES_ACKED_END], sys.byteorder) if len(info) == BYTES_ACKED_END else None
        )


def bound_buffers(listener: socket.socket) -> None:
    """Bound what the kernel keeps for each connection that ``listener`` accepts.

    ``TCP_USER_TIMEOUT`` is not set: the kernel's own limit also ends clients that read slowly and steadily.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
