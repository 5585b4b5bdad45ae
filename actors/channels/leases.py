"""Leases: they hold members in their channels."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from actors.channels.channel import Channel
from protocol.channels import Peer, PresentSocket

LEASE: Final = 30.0  # seconds

Holder = object  # any key: a socket, or the name of a member without one
Release = Callable[[Holder, Channel, Peer], object]


class _Lease:
    """A holder's lease, and the peer that it holds in each channel."""

    __slots__ = ("expires", "peers", "socket")

    def __init__(self, socket: PresentSocket | None) -> None:
        self.socket = socket
        self.expires = 0.0
        self.peers: dict[Channel, Peer] = {}


class Leases:
    """One lease of ``LEASE`` seconds for each holder. It holds one peer in each of any number of channels.

    ::

        absent --begin--> held --begin, or sweep while the socket is open--> held
                            +---end, revoke, or LEASE seconds without renewal--> released

    A sweep renews a socket's lease as long as the socket is not closing; any other lease is renewed by ``begin``.

    Args:
        release: called for each peer that is released.
    """

    def __init__(self, release: Release) -> None:
        self._release = release
        self._leases: OrderedDict[Holder, _Lease] = OrderedDict()  # by expiry

    def __len__(self) -> int:
        return len(self._leases)

    def begin(self, holder: Holder, socket: PresentSocket | None, channel: Channel, peer: Peer, now: float) -> bool:
        """Let ``holder`` hold ``peer`` in ``channel``, and no other peer; return whether the lease is new."""
        lease = self._leases.get(holder)
        fresh = lease is None
        if lease is None:
            lease = self._leases[holder] = _Lease(socket)
        before = lease.peers.get(channel, peer)
        lease.peers[channel] = peer
        self._renew(holder, lease, now)
        if before != peer:
            self._release(holder, channel, before)
        return fresh

    def end(self, holder: Holder, channel: Channel, peer: Peer) -> bool:
        """Release ``peer`` in ``channel``; return whether ``holder`` held it."""
        lease = self._leases.get(holder)
        if lease is None or lease.peers.get(channel) != peer:
            return False
        del lease.peers[channel]
        if not lease.peers:
            del self._leases[holder]
        self._release(holder, channel, peer)
        return True

    def held(self, holder: Holder) -> tuple[tuple[Channel, Peer], ...]:
        """Return what ``holder`` holds: a peer in each channel."""
        lease = self._leases.get(holder)
        return () if lease is None else tuple(lease.peers.items())

    def revoke(self, holder: Holder) -> None:
        """Release everything that ``holder`` holds."""
        lease = self._leases.pop(holder, None)
        if lease is not None:
            for channel, peer in lease.peers.items():
                self._release(holder, channel, peer)

    def sockets(self) -> tuple[PresentSocket, ...]:
        """Return the sockets that have a lease."""
        return tuple(lease.socket for lease in self._leases.values() if lease.socket is not None)

    def sweep(self, now: float) -> None:
        """Renew the leases of open sockets, and revoke expired ones."""
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
