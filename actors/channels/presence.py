"""The members of a channel, each held by one or more leases."""

from typing import Final

import msgspec

from protocol.channels import Member, Peer
from protocol.errors import Overloaded
from protocol.websocket.channels import Action

MAX_MEMBERS: Final = 1000  # of a channel
MAX_HOLDERS: Final = 64  # of a member


class _Membership:
    """A member, and the holders of its leases."""

    __slots__ = ("holders", "member")

    def __init__(self, member: Member) -> None:
        self.member = member
        self.holders: set[object] = set()


class Presence:
    """The members of one channel in the order in which they joined. A holder is a key of ``Leases``.

    ::

        absent --first holder joins--> present --last holder leaves--> absent
    """

    __slots__ = ("_members",)

    def __init__(self) -> None:
        self._members: dict[Peer, _Membership] = {}

    def __len__(self) -> int:
        return len(self._members)

    def members(self) -> tuple[Member, ...]:
        """Return all members."""
        return tuple(membership.member for membership in self._members.values())

    def member(self, peer: Peer) -> Member | None:
        """Return a peer's membership; None for a peer that is absent."""
        membership = self._members.get(peer)
        return None if membership is None else membership.member

    def join(self, peer: Peer, info: bytes, holder: object) -> Action | None:
        """Add ``holder`` to ``peer``'s holders.

        Returns:
            The event for the other members; None where nothing changes for them.

        Raises:
            Overloaded: the channel has too many members, or this member too many holders.
        """
        membership = self._members.get(peer)
        if membership is None:
            if len(self._members) >= MAX_MEMBERS:
                raise Overloaded(f"a channel has {MAX_MEMBERS} members at most")
            membership = self._members[peer] = _Membership(_member(peer, info))
            membership.holders.add(holder)
            return "join"
        if holder not in membership.holders and len(membership.holders) >= MAX_HOLDERS:
            raise Overloaded(f"a member has {MAX_HOLDERS} sockets at most")
        membership.holders.add(holder)
        if memoryview(membership.member.info) == info:
            return None
        membership.member = _member(peer, info)
        return "update"

    def holders(self, peer: Peer) -> tuple[object, ...]:
        """Return the holders of ``peer``."""
        membership = self._members.get(peer)
        return () if membership is None else tuple(membership.holders)

    def leave(self, peer: Peer, holder: object) -> Member | None:
        """Remove ``holder``; return the member where it was the last holder."""
        membership = self._members.get(peer)
        if membership is None:
            return None
        membership.holders.discard(holder)
        if membership.holders:
            return None
        del self._members[peer]
        return membership.member


def _member(peer: Peer, info: bytes) -> Member:
    return Member(user=peer.user, client=peer.client, info=msgspec.Raw(info))
