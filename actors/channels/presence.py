"""Who is in a channel: each member held by the leases of its sockets."""

from typing import Final

import msgspec

from protocol.channels import Member, Peer
from protocol.errors import Overloaded
from protocol.websocket.channels import Action

MAX_MEMBERS: Final = 1000  # of a channel
MAX_HOLDERS: Final = 64  # of a member


class _Membership:
    """A member, and who holds it there."""

    __slots__ = ("holders", "member")

    def __init__(self, member: Member) -> None:
        self.member = member
        self.holders: set[object] = set()


class Presence:
    """The members of one channel, in the order in which they came; a holder is a socket, or whatever has a lease."""

    __slots__ = ("_members",)

    def __init__(self) -> None:
        self._members: dict[Peer, _Membership] = {}

    def __len__(self) -> int:
        return len(self._members)

    def members(self) -> tuple[Member, ...]:
        """Return who is there."""
        return tuple(membership.member for membership in self._members.values())

    def member(self, peer: Peer) -> Member | None:
        """Return what is known of a peer that is there."""
        membership = self._members.get(peer)
        return None if membership is None else membership.member

    def join(self, peer: Peer, info: bytes, holder: object) -> Action | None:
        """Let ``holder`` hold ``peer`` there, and return what the others see of it.

        Raises:
            Overloaded: there are too many members, or this one has too many holders.
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
        """Return who holds ``peer`` there."""
        membership = self._members.get(peer)
        return () if membership is None else tuple(membership.holders)

    def leave(self, peer: Peer, holder: object) -> Member | None:
        """Let ``holder`` go, and return the member where that was the last one."""
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
