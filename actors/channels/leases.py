"""What holds members in their channels, and for how long."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from actors.channels.channel import Channel
from protocol.channels import Peer, PresentSocket

LEASE: Final = 30.0  # seconds

Held = tuple[Channel, Peer]
Holder = object  # anything that can be a key: a socket, or the name of who renews by itself
Release = Callable[[Holder, Channel, Peer], object]


class _Lease:
    """A holder's time, and all that it holds."""

    __slots__ = ("expires", "held", "socket")

    def __init__(self, socket: PresentSocket | None) -> None:
        self.socket = socket
        self.expires = 0.0
        self.held: dict[Held, None] = {}


class Leases:
    """One lease for each holder, whatever it holds. It is for ``LEASE`` seconds.

    A socket's is renewed at each sweep, unless the socket is on its way out; any other by beginning it again.

    Args:
        release: is called for each thing that is held no more.
    """

    def __init__(self, release: Release) -> None:
        self._release = release
        self._leases: OrderedDict[Holder, _Lease] = OrderedDict()  # the first to expire first

    def __len__(self) -> int:
        return len(self._leases)

    def begin(self, holder: Holder, socket: PresentSocket | None, channel: Channel, peer: Peer, now: float) -> bool:
        """Let ``holder`` hold this, from now on or still, and say whether it held nothing before."""
        lease = self._leases.get(holder)
        fresh = lease is None
        if lease is None:
            lease = self._leases[holder] = _Lease(socket)
        lease.held[channel, peer] = None
        self._renew(holder, lease, now)
        return fresh

    def end(self, holder: Holder, channel: Channel, peer: Peer) -> bool:
        """Let ``holder`` hold this no more, and say whether it did."""
        lease = self._leases.get(holder)
        if lease is None or (channel, peer) not in lease.held:
            return False
        del lease.held[channel, peer]
        if not lease.held:
            del self._leases[holder]
        self._release(holder, channel, peer)
        return True

    def revoke(self, holder: Holder) -> None:
        """Let ``holder`` hold nothing any more."""
        lease = self._leases.pop(holder, None)
        for channel, peer in () if lease is None else lease.held:
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
