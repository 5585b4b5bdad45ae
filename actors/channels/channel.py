"""One channel: its log, its members and its followers."""

from collections.abc import Callable

from actors.channels.keys import PublicationKeys
from actors.channels.limits import HistoryLimits
from actors.channels.log import ChannelLog, FrameEncoder
from actors.channels.presence import Presence
from actors.channels.receipts import Follower, Receipt
from actors.channels.topics import PresenceTopic, PublicationTopic
from protocol.channels import Peer, Publish, Published
from protocol.events import Position
from protocol.hub import Socket


class Channel:
    """All that is known of a channel.

    Args:
        tenant: whose it is.
        name: what it is called.
        encode: turns a frame's JSON into what goes over the wire.
        bounds: what it holds of its past.
        deliver: lets every reader of everything have what it is owed, now.

    Attributes:
        key: its tenant and name.
        name: as given.
        log: what was published.
        presence: who is there.
        followers: who reads it.
        publications: its log, as the hub delivers it.
        comings: its members, as the hub tells of them.
        counted: bytes that its owner has on account for it.
    """

    __slots__ = (
        "_deliver",
        "_keys",
        "_receipts",
        "comings",
        "counted",
        "followers",
        "key",
        "log",
        "name",
        "presence",
        "publications",
    )

    def __init__(
        self, tenant: str, name: str, encode: FrameEncoder, *, bounds: HistoryLimits, deliver: Callable[[], object]
    ) -> None:
        self.key = (tenant, name)
        self.name = name
        self.log = ChannelLog(name, encode, bounds)
        self.presence = Presence()
        self.followers: dict[Socket, Follower] = {}
        self.publications = PublicationTopic(("channel", tenant, name), self.log)
        self.comings = PresenceTopic(("presence", tenant, name), name, encode, self.presence.members)
        self.counted = 0
        self._deliver = deliver
        self._keys = PublicationKeys()
        self._receipts: list[Receipt] = []

    @property
    def size(self) -> int:
        """Bytes held of what was published, estimated."""
        return self.log.size + self._keys.size

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost with it but its epoch."""
        return not (self.log or self.used or self._keys)

    @property
    def used(self) -> bool:
        """Whether anybody follows it, is in it, or waits for those who do."""
        return bool(self.followers or self.presence or self._receipts)

    def publish(self, message: Publish, now: float) -> Published:
        """Append a publication, or find the one that has its key.

        Raises:
            IdempotencyKeyReused: the key was used for something else.
        """
        key, data = message.key, bytes(message.data)
        if key:
            offset = self._keys.find(key, message.event, data, now)
            if offset is not None:
                return Published(position=Position(self.log.epoch, offset), replayed=True)
        self.log.append(message.event, data, now, before_trim=self._hand_over)
        if key:
            self._keys.put(key, message.event, data, self.log.offset, now)
        return Published(position=self.log.position)

    def follow(self, socket: Socket, peer: Peer, acked: int) -> None:
        """Count a follower in, who has everything up to ``acked``."""
        self.followers[socket] = Follower(peer, 0)
        self.acked(socket, acked)

    def unfollow(self, socket: Socket) -> None:
        """Count a follower off."""
        if self.followers.pop(socket, None) is not None:
            for receipt in tuple(self._receipts):
                receipt.left(socket)

    def expect(self, offset: int) -> Receipt:
        """Return what is known of who has the publication at ``offset``; it is kept up to date until ``settle``."""
        receipt = Receipt(offset, self.followers.items())
        self._receipts.append(receipt)
        return receipt

    def settle(self, receipt: Receipt) -> None:
        """Keep ``receipt`` no longer."""
        if receipt in self._receipts:
            self._receipts.remove(receipt)

    def acked(self, socket: Socket, offset: int) -> None:
        """A follower has everything up to ``offset``; what was never published can't be had."""
        follower = self.followers.get(socket)
        if follower is None or not follower.acked < offset <= self.log.offset:
            return
        follower.acked = offset
        for receipt in tuple(self._receipts):
            if receipt.offset <= offset:
                receipt.acked(socket, follower.peer)

    def expire(self, now: float) -> bool:
        """Drop what has outlived its time, and say whether there was any."""
        expired = self.log.expire(now, before_trim=self._hand_over)
        return self._keys.expire(now) or expired

    def clear(self) -> None:
        """Drop everything that was published."""
        self._hand_over(self.log.offset)
        self.log.clear()
        self._keys.clear()

    def _hand_over(self, last: int) -> None:
        """Let who is owed something up to ``last`` have it before it goes."""
        if self.publications.owes(last):
            self._deliver()
            self.publications.settle()
