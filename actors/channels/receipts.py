"""Publishers that wait for those who follow to say that they have it."""

from collections.abc import Callable, Iterable

from protocol.channels import Peer
from protocol.hub import Socket


class Follower:
    """Who reads a channel over one socket.

    Attributes:
        peer: who it is.
        acked: up to which offset it has said to have everything.
    """

    __slots__ = ("acked", "peer")

    def __init__(self, peer: Peer, acked: int) -> None:
        self.peer = peer
        self.acked = acked


class Receipt:
    """What is known of who has the publication at ``offset``.

    Args:
        offset: which it is.
        followers: who has to have it.

    Attributes:
        outstanding: the sockets that have not said so.
        acknowledged: who has.
    """

    __slots__ = ("_then", "acknowledged", "offset", "outstanding")

    def __init__(self, offset: int, followers: Iterable[tuple[Socket, Follower]]) -> None:
        self.offset = offset
        self.outstanding: set[Socket] = set()
        self.acknowledged: dict[Peer, None] = {}
        self._then: Callable[[], object] | None = None
        for socket, follower in followers:
            if follower.acked >= offset:
                self.acknowledged[follower.peer] = None
            else:
                self.outstanding.add(socket)

    def then(self, done: Callable[[], object]) -> None:
        """Call ``done`` once: when nobody is outstanding any more, or at ``close``."""
        self._then = done
        self._look()

    def acked(self, socket: Socket, peer: Peer) -> None:
        """``peer`` has it."""
        self.acknowledged[peer] = None
        self.left(socket)

    def left(self, socket: Socket) -> None:
        """``socket`` will not say anything any more."""
        self.outstanding.discard(socket)
        self._look()

    def close(self) -> None:
        """Wait for nobody any more."""
        self.outstanding.clear()
        self._look()

    def _look(self) -> None:
        if not self.outstanding and self._then is not None:
            then, self._then = self._then, None
            then()
