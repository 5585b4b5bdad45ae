"""All channels: who follows and who is in which, for how long, and within which bounds."""

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Final

from actors.channels.channel import Channel
from actors.channels.leases import Leases
from actors.channels.limits import ChannelLimits
from actors.channels.log import FrameEncoder
from actors.channels.receipts import Receipt
from actors.channels.users import Users
from actors.delivery.fanout import Fanout
from protocol.channels import (
    DisconnectUser,
    GetHistory,
    GetPresence,
    GetStatus,
    History,
    Join,
    Leave,
    Member,
    Peer,
    Publish,
    Published,
    SubscribeChannel,
    UnsubscribeUser,
    UserStatus,
    check_joining,
    check_name,
    check_publication,
)
from protocol.errors import PROBLEMS, AccessDenied, InvalidRequest, Overloaded, UnrecoverablePosition
from protocol.hub import Socket
from protocol.websocket.channels import channel_ack_json
from protocol.websocket.commands import disconnect_json, error_json

MAX_RECEIPTS: Final = 256  # publishers that wait at once
SWEEP_INTERVAL: Final = 5.0  # seconds
SWEEP_CHANNELS: Final = 2000  # at once, some 3 ms
ROOM_SEARCH: Final = 64  # channels that are looked at for one that nobody uses
DISCONNECTED: Final = "disconnected"
UNSUBSCRIBED: Final = "unsubscribed"

Key = tuple[str, str]


class Channels:
    """The channels of every tenant. Nothing here waits.

    Args:
        fanout: what delivers.
        encode: turns a frame's JSON into what goes over the wire.
        limits: how much there may be.
        clock: seconds, monotonic.
        watch: is called when there begins to be something: ``sweep`` has to be called every ``SWEEP_INTERVAL`` seconds
            until it returns False.
    """

    def __init__(
        self,
        fanout: Fanout,
        encode: FrameEncoder,
        *,
        limits: ChannelLimits,
        clock: Callable[[], float],
        watch: Callable[[], object],
    ) -> None:
        self._fanout = fanout
        self._encode = encode
        self._limits = limits
        self._clock = clock
        self._watch = watch
        self._watched = False
        self._channels: dict[Key, Channel] = {}
        self._heavy: OrderedDict[Channel, None] = OrderedDict()  # those that hold publications, the latest last
        self._size = 0
        self._following: dict[Socket, set[Channel]] = {}
        self._leases = Leases(self._release)
        self._users = Users()
        self._receipts = 0

    def __len__(self) -> int:
        return len(self._channels)

    # ------------------------------------------------------------------------------------------------------ publishing

    def publish(self, message: Publish) -> Published:
        """Append a publication and deliver it; see the message for what it raises."""
        check_publication(message)
        if message.wait and self._receipts >= MAX_RECEIPTS:
            raise Overloaded(f"{MAX_RECEIPTS} publishers wait for acknowledgements already")
        channel = self._channel(message.tenant, message.channel)
        published = channel.publish(message, self._clock())
        if not published.replayed:
            self._fanout.changed(channel.publications)
            self._weigh(channel)
            self._lighten(channel)
        return published

    def expect(self, message: Publish, offset: int) -> Receipt:
        """Return what is known of who has a publication; kept up to date until ``settle``."""
        self._receipts += 1
        return self._channels[message.tenant, message.channel].expect(offset)

    def settle(self, message: Publish, receipt: Receipt) -> tuple[Peer, ...]:
        """Return who has it, and keep the receipt no longer."""
        self._receipts -= 1
        self._channels[message.tenant, message.channel].settle(receipt)
        return tuple(receipt.acknowledged)

    def acked(self, socket: Socket, key: Key, offset: int) -> None:
        """A follower has everything up to ``offset``."""
        channel = self._channels.get(key)
        if channel is not None:
            channel.acked(socket, offset)

    def history(self, message: GetHistory) -> History:
        """Look back. A channel that is not known has no epoch."""
        check_name(message.channel, "$.channel")
        channel = self._channels.get((message.tenant, message.channel))
        if channel is None:
            if message.after is not None:
                raise UnrecoverablePosition("nothing is held of this channel")
            return History(epoch="", offset=0, publications=())
        self._expire(channel, self._clock())
        return channel.log.history(message.after, message.limit)

    # ------------------------------------------------------------------------------------------------- who follows what

    def subscribe(self, message: SubscribeChannel) -> None:
        """Begin to follow: the acknowledgement and what there is go out at the end of the tick."""
        check_name(message.channel, "$.channel")
        if message.peer.client:
            check_name(message.peer.client, "$.client")
        if message.mode == "snapshot":
            raise InvalidRequest("a channel has no snapshot: use `replay` or `live`")
        socket, fanout = message.socket, self._fanout
        channel = self._channel(message.tenant, message.channel)
        publications, comings = channel.publications, channel.comings
        names = [topic.name for topic in (publications, comings) if topic is publications or message.presence]
        fanout.admit(socket, names)
        self._expire(channel, self._clock())
        cursor, recovered = channel.log.begin(message.after, message.mode)
        self.unsubscribe(socket, channel.key)
        if message.peer.user:
            self.opened(socket, message.tenant, message.peer.user)
        if message.ack_id is not None:
            position = channel.log.position
            fanout.say(socket, channel_ack_json(message.ack_id, message.channel, position, recovered=recovered))
        resumed = message.after is not None and recovered and message.mode != "live"
        channel.follow(socket, message.peer, cursor if resumed else 0)
        self._following.setdefault(socket, set()).add(channel)
        publications.starts(cursor)
        fanout.follow(socket, publications, cursor)
        if message.presence:
            fanout.follow(socket, comings, comings.end)

    def unsubscribe(self, socket: Socket, key: Key) -> bool:
        """Stop following a channel and say whether it was followed."""
        channel = self._channels.get(key)
        followed = self._following.get(socket)
        if channel is None or followed is None or channel not in followed:
            return False
        followed.discard(channel)
        if not followed:
            del self._following[socket]
        self._drop(socket, channel)
        return True

    def unsubscribe_user(self, message: UnsubscribeUser) -> int:
        """Take a user out of a channel; return how many sockets that were."""
        key = (message.tenant, message.channel)
        channel = self._channels.get(key)
        if channel is None:
            return 0
        sockets = [socket for socket, follower in channel.followers.items() if follower.peer.user == message.user]
        error = AccessDenied(code=UNSUBSCRIBED)
        for socket in sockets:
            self.unsubscribe(socket, key)
            self._fanout.say(socket, error_json(error, channel=message.channel, terminal=True))
        for member in channel.presence.members():
            if member.user == message.user:
                peer = Peer(member.user, member.client)
                for holder in channel.presence.holders(peer):
                    self._leases.end(holder, channel, peer)
        return len(sockets)

    # -------------------------------------------------------------------------------------------------------- presence

    def join(self, message: Join) -> None:
        """Let a peer be there."""
        check_joining(message)
        channel, peer, now = self._channel(message.tenant, message.channel), message.peer, self._clock()
        holder = _holder(message)
        action = channel.presence.join(peer, bytes(message.info), holder)
        fresh = self._leases.begin(holder, message.socket, channel, peer, now)
        if message.socket is None and fresh:
            self._users.leased((message.tenant, peer.user), now)
        elif message.socket is not None and peer.user:
            self.opened(message.socket, message.tenant, peer.user)
        member = channel.presence.member(peer)
        if action is not None and member is not None and channel.comings.tell(action, member):
            self._fanout.changed(channel.comings)

    def leave(self, message: Leave) -> bool:
        """Let a peer go and say whether it was there."""
        channel = self._channels.get((message.tenant, message.channel))
        if channel is None:
            return False
        return self._leases.end(_holder(message), channel, message.peer)

    def members(self, message: GetPresence) -> tuple[Member, ...]:
        """Return who is there."""
        channel = self._channels.get((message.tenant, message.channel))
        return () if channel is None else channel.presence.members()

    # ----------------------------------------------------------------------------------------------- who is connected

    def opened(self, socket: Socket, tenant: str, user: str) -> None:
        """Let ``socket`` be this user's."""
        self._users.opened(socket, (tenant, user), self._clock())
        self._keep_watch()

    def closed(self, socket: Socket) -> None:
        """Forget a socket."""
        for channel in self._following.pop(socket, ()):
            self._drop(socket, channel)
        self._leases.revoke(socket)
        self._users.closed(socket, self._clock())

    def disconnect(self, message: DisconnectUser) -> int:
        """Close every socket of a user; return how many there were."""
        sockets = self._users.sockets((message.tenant, message.user))
        code = PROBLEMS[DISCONNECTED].close
        farewell = self._encode(disconnect_json(DISCONNECTED, 0.0, code=code, reconnect=False))
        for socket in sockets:
            self.closed(socket)
            self._fanout.dismiss(socket, code, DISCONNECTED, farewell)
        return len(sockets)

    def abandon(self, code: int, reason: str) -> None:
        """Close every socket that is known: what is known of them is lost."""
        for socket in (*self._users.everybody(), *self._leases.sockets()):
            self._fanout.dismiss(socket, code, reason)

    def status(self, message: GetStatus) -> UserStatus:
        """Return whether a user is there."""
        return self._users.status((message.tenant, message.user), self._clock())

    def sweep(self) -> bool:
        """Drop what has outlived its time, and say whether anything is left."""
        now = self._clock()
        self._leases.sweep(now)
        for channel in tuple(islice(self._channels.values(), SWEEP_CHANNELS)):
            self._expire(channel, now)
            if channel.idle:
                self._forget(channel)
            else:
                self._channels[channel.key] = self._channels.pop(channel.key)  # the next sweep looks at others
        self._users.sweep(now)
        self._watched = bool(self._channels or self._users)
        return self._watched

    # ---------------------------------------------------------------------------------------------------------- inside

    def _channel(self, tenant: str, name: str) -> Channel:
        channel = self._channels.get((tenant, name))
        if channel is None:
            if len(self._channels) >= self._limits.channels:
                self._make_room()
            bounds, deliver = self._limits.history, self._fanout.deliver
            channel = Channel(tenant, name, self._encode, bounds=bounds, deliver=deliver)
            self._channels[channel.key] = channel
            self._keep_watch()
        return channel

    def _make_room(self) -> None:
        """Forget the channel that has been silent for longest, of those that nobody uses.

        Raises:
            Overloaded: all that were looked at are in use.
        """
        for channel in islice(self._heavy, ROOM_SEARCH):
            if not channel.used:
                self._forget(channel)
                return
        detail = f"there are {self._limits.channels} channels, which is the most that are kept"
        raise Overloaded(detail, retry_after=SWEEP_INTERVAL)

    def _forget(self, channel: Channel) -> None:
        del self._channels[channel.key]
        self._heavy.pop(channel, None)
        self._size -= channel.counted

    def _keep_watch(self) -> None:
        if not self._watched:
            self._watched = True
            self._watch()

    def _drop(self, socket: Socket, channel: Channel) -> None:
        channel.unfollow(socket)
        for topic in (channel.publications, channel.comings):
            self._fanout.unsubscribe(socket, topic.name)

    def _release(self, holder: object, channel: Channel, peer: Peer) -> None:
        """A lease has ended."""
        gone = channel.presence.leave(peer, holder)
        if gone is not None and channel.comings.tell("leave", gone):
            self._fanout.changed(channel.comings)
        if holder == (*channel.key, peer):
            self._users.released((channel.key[0], peer.user), self._clock())

    def _expire(self, channel: Channel, now: float) -> None:
        if channel.expire(now):
            self._weigh(channel)

    def _weigh(self, channel: Channel) -> None:
        self._size += channel.size - channel.counted
        channel.counted = channel.size

    def _lighten(self, latest: Channel) -> None:
        """Let the histories of those that have been silent for longest go, where all together hold too much."""
        self._heavy[latest] = None
        self._heavy.move_to_end(latest)
        while self._size > self._limits.size and len(self._heavy) > 1:
            channel, _ = self._heavy.popitem(last=False)
            channel.clear()
            self._weigh(channel)


def _holder(message: Join | Leave) -> object:
    """Return what holds a member there: its socket, or its own name."""
    return (message.tenant, message.channel, message.peer) if message.socket is None else message.socket
