"""One channel: its publications, its members and its followers."""

from collections.abc import Callable

from actors.channels.keys import PublicationKeys
from actors.channels.limits import HistoryLimits
from actors.channels.log import ChannelLog, FrameEncoder
from actors.channels.presence import Presence
from actors.channels.receipts import ChannelFollower, Receipt
from actors.channels.topics import PresenceTopic, PublicationTopic
from protocol.channels import Peer, Publish, Published
from protocol.events import Position
from protocol.hub import Socket


class Channel:
    """A channel of one tenant.

    Args:
        tenant: the tenant.
        name: the channel's name.
        encode: turns a frame's JSON into wire bytes.
        bounds: of its history.
        deliver: writes to every reader of every topic what it has not been sent yet.

    Attributes:
        key: the tenant and the name.
        name: as given.
        log: the publications; only the channel writes to it.
        presence: the members.
        followers: the sockets that read it.
        publications: the topic of the publications.
        presence_events: the topic of members that join, change and leave.
        counted: bytes that the table of channels has counted for it.
    """

    __slots__ = (
        "_deliver",
        "_keys",
        "_receipts",
        "counted",
        "followers",
        "key",
        "log",
        "name",
        "presence",
        "presence_events",
        "publications",
    )

    def __init__(
        self, tenant: str, name: str, encode: FrameEncoder, *, bounds: HistoryLimits, deliver: Callable[[], object]
    ) -> None:
        self.key = (tenant, name)
        self.name = name
        self.log = ChannelLog(name, encode, bounds)
        self.presence = Presence()
        self.followers: dict[Socket, ChannelFollower] = {}
        self.publications = PublicationTopic(("channel", tenant, name), self.log)
        self.presence_events = PresenceTopic(("presence", tenant, name), name, encode, self.presence.members)
        self.counted = 0
        self._deliver = deliver
        self._keys = PublicationKeys()
        self._receipts: list[Receipt] = []

    @property
    def size(self) -> int:
        """Bytes held, estimated: publications and idempotency keys."""
        return self.log.size + self._keys.size

    @property
    def idle(self) -> bool:
        """Whether it holds nothing but its epoch."""
        return not (self.log or self.used or self._keys)

    @property
    def used(self) -> bool:
        """Whether it has a follower, a member, or a publisher that waits."""
        return bool(self.followers or self.presence or self._receipts)

    def publish(self, message: Publish, now: float) -> Published:
        """Append a publication, or return the earlier one with its key.

        Raises:
            IdempotencyKeyReused: the key was used for another publication.
        """
        key, data = message.key, bytes(message.data)
        if key:
            used = self._keys.find(key, message.event, data, now)
            if used is not None:
                offset, subscribers = used
                return Published(position=Position(self.log.epoch, offset), subscribers=subscribers, replayed=True)
        self.log.append(message.event, data, now, before_trim=self._deliver_up_to)
        if key:
            self._keys.put(key, message.event, data, (self.log.offset, len(self.followers)), now)
        return Published(position=self.log.position, subscribers=len(self.followers))

    def follow(self, socket: Socket, peer: Peer, acked: int) -> None:
        """Add a follower that has everything up to ``acked``."""
        self.followers[socket] = ChannelFollower(peer, 0)
        self.acked(socket, acked)

    def unfollow(self, socket: Socket) -> None:
        """Remove a follower; no receipt waits for it any more."""
        if self.followers.pop(socket, None) is not None:
            for receipt in tuple(self._receipts):
                receipt.remove(socket)

    def open_receipt(self, offset: int) -> Receipt:
        """Return a receipt for the publication at ``offset``; it is updated until ``close_receipt``."""
        receipt = Receipt(offset, self.followers.items())
        self._receipts.append(receipt)
        return receipt

    def close_receipt(self, receipt: Receipt) -> None:
        """Stop updating ``receipt``."""
        if receipt in self._receipts:
            self._receipts.remove(receipt)

    def acked(self, socket: Socket, offset: int) -> None:
        """Record that a follower has everything up to ``offset``; an offset beyond the end is ignored."""
        follower = self.followers.get(socket)
        if follower is None or not follower.acked < offset <= self.log.offset:
            return
        follower.acked = offset
        for receipt in tuple(self._receipts):
            if receipt.offset <= offset:
                receipt.acked(socket, follower.peer)

    def expire(self, now: float) -> bool:
        """Drop expired publications and keys; return whether there were any."""
        expired = self.log.expire(now, before_trim=self._deliver_up_to)
        return self._keys.expire(now) or expired

    def clear(self) -> None:
        """Drop all publications and keys."""
        self._deliver_up_to(self.log.offset)
        self.log.clear()
        self._keys.clear()

    def _deliver_up_to(self, last: int) -> None:
        """Write to readers what they have not been sent yet, before the publications up to ``last`` are dropped."""
        if self.publications.undelivered(last):
            self._deliver()
            self.publications.mark_delivered()
