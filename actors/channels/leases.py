"""What holds members in their channels, and for how long."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from actors.channels.channel import Channel
from protocol.channels import Peer, PresentSocket

LEASE: Final = 30.0  # seconds

Holder = object  # anything that can be a key: a socket, or the name of who renews by itself
Release = Callable[[Holder, Channel, Peer], object]


class _Lease:
    """A holder's time, and whom it holds in each channel."""

    __slots__ = ("expires", "held", "socket")

    def __init__(self, socket: PresentSocket | None) -> None:
        self.socket = socket
        self.expires = 0.0
        self.held: dict[Channel, Peer] = {}


class Leases:
    """One lease for each holder, for ``LEASE`` seconds, whatever it holds: one peer in a channel.

    A socket's is renewed at each sweep, unless the socket is on its way out; any other by beginning it again.

    Args:
        release: is called for each peer that is held no more.
    """

    def __init__(self, release: Release) -> None:
        self._release = release
        self._leases: OrderedDict[Holder, _Lease] = OrderedDict()  # the first to expire first

    def __len__(self) -> int:
        return len(self._leases)

    def begin(self, holder: Holder, socket: PresentSocket | None, channel: Channel, peer: Peer, now: float) -> bool:
        """Let ``holder`` hold this peer there, and no other; say whether it held nothing anywhere before."""
        lease = self._leases.get(holder)
        fresh = lease is None
        if lease is None:
            lease = self._leases[holder] = _Lease(socket)
        before = lease.held.get(channel, peer)
        lease.held[channel] = peer
        self._renew(holder, lease, now)
        if before != peer:
            self._release(holder, channel, before)
        return fresh

    def end(self, holder: Holder, channel: Channel, peer: Peer) -> bool:
        """Let ``holder`` hold this no more, and say whether it did."""
        lease = self._leases.get(holder)
        if lease is None or lease.held.get(channel) != peer:
            return False
        del lease.held[channel]
        if not lease.held:
            del self._leases[holder]
        self._release(holder, channel, peer)
        return True

    def revoke(self, holder: Holder) -> None:
        """Let ``holder`` hold nothing any more."""
        lease = self._leases.pop(holder, None)
        if lease is not None:
            for channel, peer in lease.held.items():
                self._release(holder, channel, peer)

    def sockets(self) -> tuple[PresentSocket, ...]:
        """Return the sockets that hold something."""
        return tuple(lease.socket for lease in self._leases.values() if lease.socket is not None)

    def sweep(self, now: float) -> None:
        """Renew what is alive and end what has expired."""
        for holder, lease in tuple(self._leases.items()):
            if lease.socket is not None and not lease.socket.closing:
                self._renew(holder, lease, now)
        while self._leases:
            holder, lease = next(iter(self._leases.items()))
            if lease.expires > now:
                return
            self.revoke(holder)

    def _renew(self, holder: Holder, lease: _Lease, now: float) -> None:
        lease.expires = now + LEASE
        self._leases.move_to_end(holder)
