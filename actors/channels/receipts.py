"""Receipts: a publisher waits until the channel's followers have acknowledged."""

from collections.abc import Callable, Iterable

from protocol.channels import Peer
from protocol.hub import Socket


class ChannelFollower:
    """A socket's subscription to a channel.

    Attributes:
        peer: the user and client.
        acked: the offset up to which it has acknowledged.
    """

    __slots__ = ("acked", "peer")

    def __init__(self, peer: Peer, acked: int) -> None:
        self.peer = peer
        self.acked = acked


class Receipt:
    """The acknowledgements of one publication.

    ::

        open --last outstanding socket acknowledges or is removed--> done
          +----close-----------------------------------------------> done

    Args:
        offset: the publication's offset.
        followers: the channel's followers now.

    Attributes:
        offset: as given.
        outstanding: the sockets that have not acknowledged.
        acknowledged: the peers that have.
    """

    __slots__ = ("_on_done", "acknowledged", "offset", "outstanding")

    def __init__(self, offset: int, followers: Iterable[tuple[Socket, ChannelFollower]]) -> None:
        self.offset = offset
        self.outstanding: set[Socket] = set()
        self.acknowledged: dict[Peer, None] = {}
        self._on_done: Callable[[], object] | None = None
        for socket, follower in followers:
            if follower.acked >= offset:
                self.acknowledged[follower.peer] = None
            else:
                self.outstanding.add(socket)

    def when_done(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once: when no socket is outstanding any more, or at ``close``."""
        self._on_done = callback
        self._check()

    def acked(self, socket: Socket, peer: Peer) -> None:
        """Record an acknowledgement."""
        self.acknowledged[peer] = None
        self.remove(socket)

    def remove(self, socket: Socket) -> None:
        """Wait for ``socket`` no longer."""
        self.outstanding.discard(socket)
        self._check()

    def close(self) -> None:
        """Wait for no socket any more."""
        self.outstanding.clear()
        self._check()

    def _check(self) -> None:
        if not self.outstanding and self._on_done is not None:
            callback, self._on_done = self._on_done, None
            callback()
