"""Keeps what a socket has in the hub within the rights of its caller."""

from typing import Final

from actors.runtime import Ref
from protocol.errors import PROBLEMS, MailboxFull, TidegateError
from protocol.hub import LimitSocket, SocketClosed
from protocol.identity import Principal, Scope
from service.websocket.transport import SocketTransport

SOCKET_SCOPES: Final[frozenset[Scope]] = frozenset({"inference", "channels"})
LOST_STATE: Final = 4010  # close code: reconnect, and subscribe again
TIMEOUT: Final = 5.0  # seconds


class SocketRights:
    """Ends a socket's subscriptions and memberships in the hub, as far as its caller has lost the right to them.

    Where the hub does not take the message, the socket is closed: nothing is delivered beyond a right.

    Args:
        hub: delivers to the socket.
        socket: the socket.
    """

    __slots__ = ("_hub", "_socket")

    def __init__(self, hub: Ref[LimitSocket | SocketClosed], socket: SocketTransport) -> None:
        self._hub = hub
        self._socket = socket

    def end(self) -> None:
        """Drop all that a closed socket has, before its client has answered the close frame. Never waits."""
        try:
            self._hub.post(SocketClosed(self._socket))
        except MailboxFull:
            return  # its session reports the end again

    def change(self, before: Principal, after: Principal) -> None:
        """End what ``before`` may have and ``after`` may not. Never waits."""
        if not self._stays(before, after):
            return
        try:
            self._hub.post(LimitSocket(socket=self._socket, before=before, after=after))
        except MailboxFull:
            self._lose()

    async def limit(self, before: Principal, after: Principal) -> None:
        """End what ``before`` may have and ``after`` may not, and wait until that is done."""
        if not self._stays(before, after):
            return
        try:
            await self._hub.ask(LimitSocket(socket=self._socket, before=before, after=after), timeout=TIMEOUT)
        except TidegateError:
            self._lose()

    def _stays(self, before: Principal, after: Principal) -> bool:
        """Return whether the hub has to look; a caller without a scope for sockets loses the socket."""
        if SOCKET_SCOPES.isdisjoint(after.scopes):
            self._socket.close(PROBLEMS["forbidden"].close, "forbidden")
            self.end()
            return False
        return (before.scopes, before.channels) != (after.scopes, after.channels)

    def _lose(self) -> None:
        self._socket.close(LOST_STATE, "insufficient state")
        self.end()
