"""Channels: subscriptions, publications, presence and connected users of every tenant."""

import logging
from collections.abc import Callable, Iterable
from typing import Final

from actors.channels.channel import Channel
from actors.channels.leases import Leases
from actors.channels.limits import ChannelLimits
from actors.channels.listing import channel_list, subscriber_list, user_channels
from actors.channels.log import FrameEncoder
from actors.channels.receipts import Receipt
from actors.channels.table import ChannelKey, ChannelTable
from actors.channels.users import Users
from actors.delivery.fanout import Fanout
from actors.fair_shares import FairShares, Tenants
from protocol.channels import (
    ChannelList,
    GetHistory,
    GetPresence,
    GetSubscribers,
    History,
    Join,
    Leave,
    ListChannels,
    Member,
    Peer,
    Publish,
    Published,
    SubscribeChannel,
    SubscriberList,
    check_member,
    check_publication,
)
from protocol.checks import check_name
from protocol.errors import PROBLEMS, AccessDenied, InvalidRequest, Overloaded, UnrecoverablePosition
from protocol.hub import LimitSocket, Mode, Socket
from protocol.users import (
    DisconnectUser,
    GetStatus,
    GetUserChannels,
    SetPresence,
    SubscribeUser,
    UnsubscribeUser,
    UserChannels,
    UserStatus,
    UserSubscribed,
    check_presence,
)
from protocol.websocket.channels import channel_ack_json, subscribed_json
from protocol.websocket.out import disconnect_json, error_json

MAX_RECEIPTS: Final = 256  # publishers that wait for acknowledgements at once
FULL: Final = "connection_limit"
DISCONNECTED: Final = "disconnected"
UNSUBSCRIBED: Final = "unsubscribed"
DENIED: Final = "channel_denied"

_log = logging.getLogger("tidegate.hub")


class Channels:
    """The channels of every tenant. All methods are synchronous.

    Args:
        fanout: delivers the channels' topics.
        encode: turns a frame's JSON into wire bytes.
        limits: the bounds.
        tenants: share them; None for any tenants.
        clock: seconds, monotonic.
        start_sweeping: called when there is something to expire: from then on call ``sweep`` every ``SWEEP_INTERVAL``
            seconds until it returns False.
    """

    def __init__(
        self,
        fanout: Fanout,
        encode: FrameEncoder,
        *,
        limits: ChannelLimits,
        clock: Callable[[], float],
        start_sweeping: Callable[[], object],
        tenants: Tenants | None = None,
    ) -> None:
        tenants = tenants or Tenants()
        self._fanout = fanout
        self._encode = encode
        self._clock = clock
        self._start_sweeping = start_sweeping
        self._sweeping = False
        self._table = ChannelTable(
            encode, limits=limits, tenants=tenants, deliver=fanout.deliver, on_open=self._ensure_sweeping
        )
        self._subscribed: dict[Socket, set[Channel]] = {}
        self._leases = Leases(self._lease_ended)
        self._users = Users(tenants)
        self._receipts = FairShares(MAX_RECEIPTS, tenants, rule="reserve")

    def __len__(self) -> int:
        return len(self._table)

    # ------------------------------------------------------------------------------------------------------ publishing

    def publish(self, message: Publish) -> Published:
        """Append a publication and deliver it; see the message for what it raises."""
        check_publication(message)
        if message.wait and not self._receipts.has_room(message.tenant):
            waiting = self._receipts.held(message.tenant)
            raise Overloaded(f"{waiting} publishers wait for acknowledgements already")
        channel = self._table.open(message.tenant, message.channel)
        published = channel.publish(message, self._clock())
        if not published.replayed:
            if _log.isEnabledFor(logging.DEBUG):
                subscribers = len(channel.publications.readers)
                fields = {"channel": message.channel, "type": "publication", "subscribers": subscribers}
                _log.debug("fanned_out", extra={"fields": fields})
            self._fanout.changed(channel.publications)
            self._table.published(channel)
        return published

    def open_receipt(self, message: Publish, offset: int) -> Receipt:
        """Return a receipt for a publication. It records acknowledgements until ``close_receipt``."""
        self._receipts.take(message.tenant)
        return self._table[message.tenant, message.channel].open_receipt(offset)

    def close_receipt(self, message: Publish, receipt: Receipt) -> tuple[Peer, ...]:
        """Close a receipt, and return the peers that have acknowledged."""
        self._receipts.give_back(message.tenant)
        self._table[message.tenant, message.channel].close_receipt(receipt)
        return tuple(receipt.acknowledged)

    def acked(self, socket: Socket, key: ChannelKey, offset: int) -> None:
        """Record that a follower has everything up to ``offset``."""
        channel = self._table.find(key)
        if channel is not None:
            channel.acked(socket, offset)

    def history(self, message: GetHistory) -> History:
        """Return a page of publications. An unknown channel has no epoch."""
        check_name(message.channel, "$.channel")
        channel = self._table.find((message.tenant, message.channel))
        if channel is None:
            if message.after is not None:
                raise UnrecoverablePosition("nothing is held of this channel")
            return History(epoch="", offset=0, publications=())
        self._table.expire(channel, self._clock())
        return channel.log.history(message.after, message.limit)

    # --------------------------------------------------------------------------------------------------- subscriptions

    def subscribe(self, message: SubscribeChannel) -> None:
        """Subscribe a socket. Its acknowledgement and the replay are sent after this tick."""
        _check_subscription(message.channel, message.mode)
        if message.peer.client:
            check_name(message.peer.client, "$.client")
        self._subscribe(message)

    def sockets_to_subscribe(self, message: SubscribeUser) -> tuple[Socket, ...]:
        """Return the sockets that ``message`` concerns; see it for what it raises."""
        check_name(message.user, "user")
        _check_subscription(message.channel, message.mode)
        return self._users.sockets((message.tenant, message.user))

    def subscribe_user(self, message: SubscribeUser, sockets: Iterable[Socket]) -> UserSubscribed:
        """Subscribe some of a user's sockets to a channel; those that follow it already go on."""
        following = refused = 0
        for socket in sockets:
            channel = self._table.find((message.tenant, message.channel))
            if channel is None or socket not in channel.followers:
                try:
                    self._subscribe(self._subscription(socket, message), announce=True)
                except Overloaded as error:
                    if error.code != FULL:
                        raise
                    refused += 1
                    continue
            following += 1
        return UserSubscribed(sockets=following, refused=refused)

    def _subscription(self, socket: Socket, message: SubscribeUser) -> SubscribeChannel:
        """Return the subscription of one of the user's sockets, under the name that it has in another channel."""
        others = (channel.followers[socket].peer for channel in self._subscribed.get(socket, ()))
        peer = next((peer for peer in others if peer.user == message.user), Peer(message.user))
        return SubscribeChannel(
            socket=socket,
            tenant=message.tenant,
            channel=message.channel,
            peer=peer,
            after=message.after,
            mode=message.mode,
            presence=message.presence,
        )

    def _subscribe(self, message: SubscribeChannel, *, announce: bool = False) -> None:
        """Subscribe a socket, and acknowledge it to a client with an ``ack_id``, or announce it."""
        socket, fanout = message.socket, self._fanout
        channel = self._table.open(message.tenant, message.channel)
        publications, presence_events = channel.publications, channel.presence_events
        topics = (publications, presence_events) if message.presence else (publications,)
        fanout.admit(socket, [topic.name for topic in topics], message.tenant)
        self._table.expire(channel, self._clock())
        cursor, recovered = channel.log.begin(message.after, message.mode)
        self.unsubscribe(socket, channel.key)
        if message.peer.user:
            self.opened(socket, message.tenant, message.peer.user)
        position = channel.log.position
        if announce:
            fanout.send(socket, subscribed_json(message.channel, position, recovered=recovered, after=cursor))
        elif message.ack_id is not None:
            fanout.send(socket, channel_ack_json(message.ack_id, message.channel, position, recovered=recovered))
        resumed = message.after is not None and recovered and message.mode != "live"
        channel.follow(socket, message.peer, cursor if resumed else 0)
        self._subscribed.setdefault(socket, set()).add(channel)
        publications.reader_added(cursor)
        fanout.follow(socket, publications, cursor, message.tenant)
        if _log.isEnabledFor(logging.DEBUG):
            fields = {"channel": message.channel, "after": cursor, "subscribers": len(publications.readers)}
            _log.debug("subscribed", extra={"fields": fields})
        if message.presence:
            fanout.follow(socket, presence_events, presence_events.end, message.tenant)

    def unsubscribe(self, socket: Socket, key: ChannelKey) -> bool:
        """End a subscription, and return whether there was one."""
        channel = self._table.find(key)
        subscribed = self._subscribed.get(socket)
        if channel is None or subscribed is None or channel not in subscribed:
            return False
        subscribed.discard(channel)
        if not subscribed:
            del self._subscribed[socket]
        self._drop(socket, channel)
        return True

    def unsubscribe_user(self, message: UnsubscribeUser) -> int:
        """End a user's subscriptions and memberships in a channel; return the number of unsubscribed sockets."""
        key = (message.tenant, message.channel)
        channel = self._table.find(key)
        if channel is None:
            return 0
        sockets = [socket for socket, follower in channel.followers.items() if follower.peer.user == message.user]
        error = AccessDenied(code=UNSUBSCRIBED)
        for socket in sockets:
            self.unsubscribe(socket, key)
            self._fanout.send(socket, error_json(error, channel=message.channel, terminal=True))
        for member in channel.presence.members():
            if member.user == message.user:
                peer = Peer(member.user, member.client)
                for holder in channel.presence.holders(peer):
                    self._leases.end(holder, channel, peer)
        return len(sockets)

    def limit(self, message: LimitSocket) -> int:
        """End what a socket has in channels by rights that its caller has no more; return the subscriptions' number."""
        socket, error, ended = message.socket, AccessDenied(code=DENIED), 0
        for channel in tuple(self._subscribed.get(socket, ())):
            if message.ends("subscribe", channel.name):
                self.unsubscribe(socket, channel.key)
                self._fanout.send(socket, error_json(error, channel=channel.name, terminal=True))
                ended += 1
            elif message.ends("presence", channel.name):
                self._fanout.unsubscribe(socket, channel.presence_events.name)
        for channel, peer in self._leases.held(socket):
            if message.ends("presence", channel.name):
                self._leases.end(socket, channel, peer)
        return ended

    # ----------------------------------------------------------------------------------------------------------- lists

    def of_tenant(self, message: ListChannels) -> ChannelList:
        """Return a page of a tenant's channels."""
        now = self._clock()
        return channel_list(
            message, self._table.of_tenant(message.tenant), lambda channel: self._table.expire(channel, now)
        )

    def subscribers(self, message: GetSubscribers) -> SubscriberList:
        """Return a page of a channel's subscribers."""
        check_name(message.channel, "$.channel")
        channel = self._table.find((message.tenant, message.channel))
        return SubscriberList(()) if channel is None else subscriber_list(message, channel)

    def of_user(self, message: GetUserChannels) -> UserChannels:
        """Return a page of the channels that a user's sockets follow."""
        check_name(message.user, "user")
        followed: dict[str, list[tuple[Channel, Peer]]] = {}
        for socket in self._users.sockets((message.tenant, message.user)):
            for channel in self._subscribed.get(socket, ()):
                peer = channel.followers[socket].peer
                if peer.user == message.user:
                    followed.setdefault(channel.name, []).append((channel, peer))
        return user_channels(message, followed)

    # -------------------------------------------------------------------------------------------------------- presence

    def join(self, message: Join) -> None:
        """Make a peer a member, or renew its lease; see the message for what it raises."""
        check_member(message)
        channel, peer, now = self._table.open(message.tenant, message.channel), message.peer, self._clock()
        holder = _holder(message)
        action = channel.presence.join(peer, bytes(message.info), holder)
        fresh = self._leases.begin(holder, message.socket, channel, peer, now)
        if message.socket is None and fresh:
            self._users.leased((message.tenant, peer.user), now)
        elif message.socket is not None and peer.user:
            self.opened(message.socket, message.tenant, peer.user)
        member = channel.presence.member(peer)
        if action is not None and member is not None and channel.presence_events.append(action, member):
            self._fanout.changed(channel.presence_events)

    def leave(self, message: Leave) -> bool:
        """End a lease, and return whether there was one."""
        channel = self._table.find((message.tenant, message.channel))
        if channel is None:
            return False
        return self._leases.end(_holder(message), channel, message.peer)

    def members(self, message: GetPresence) -> tuple[Member, ...]:
        """Return the members of a channel."""
        channel = self._table.find((message.tenant, message.channel))
        return () if channel is None else channel.presence.members()

    # ------------------------------------------------------------------------------------------------- connected users

    def opened(self, socket: Socket, tenant: str, user: str) -> None:
        """Record that ``socket`` is this user's."""
        self._users.opened(socket, (tenant, user), self._clock())
        self._ensure_sweeping()

    def closed(self, socket: Socket) -> None:
        """Remove a socket: its subscriptions, its lease and its user's connection."""
        for channel in self._subscribed.pop(socket, ()):
            self._drop(socket, channel)
        self._leases.revoke(socket)
        self._users.closed(socket, self._clock())

    def disconnect(self, message: DisconnectUser) -> int:
        """Close every socket of a user; return their number."""
        sockets = self._users.sockets((message.tenant, message.user))
        code = PROBLEMS[DISCONNECTED].close
        last_frame = self._encode(disconnect_json(DISCONNECTED, 0.0, code=code, reconnect=False))
        for socket in sockets:
            self.closed(socket)
            self._fanout.close_socket(socket, code, DISCONNECTED, last_frame)
        return len(sockets)

    def close_all(self, code: int, reason: str) -> None:
        """Close every known socket, after an error that lost their state."""
        for socket in (*self._users.all_sockets(), *self._leases.sockets()):
            self._fanout.close_socket(socket, code, reason)

    def status(self, message: GetStatus) -> UserStatus:
        """Return a user's status."""
        return self._users.status((message.tenant, message.user), self._clock())

    def set_presence(self, message: SetPresence) -> UserStatus:
        """Set a user's status, and return it; see the message for what it raises."""
        check_presence(message)
        now = self._clock()
        self._users.set_presence(message, now)
        self._ensure_sweeping()
        return self._users.status((message.tenant, message.user), now)

    def sweep(self) -> bool:
        """Expire leases, publications, channels and users; return whether anything is left."""
        now = self._clock()
        self._leases.sweep(now)
        self._table.sweep(now)
        self._users.sweep(now)
        self._sweeping = bool(self._table or self._users)
        return self._sweeping

    # -------------------------------------------------------------------------------------------------------- internal

    def _ensure_sweeping(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._start_sweeping()

    def _drop(self, socket: Socket, channel: Channel) -> None:
        channel.unfollow(socket)
        for topic in (channel.publications, channel.presence_events):
            self._fanout.unsubscribe(socket, topic.name)

    def _lease_ended(self, holder: object, channel: Channel, peer: Peer) -> None:
        gone = channel.presence.leave(peer, holder)
        if gone is not None and channel.presence_events.append("leave", gone):
            self._fanout.changed(channel.presence_events)
        if holder == (*channel.key, peer):
            self._users.released((channel.key[0], peer.user), self._clock())


def _check_subscription(channel: str, mode: Mode | None) -> None:
    check_name(channel, "$.channel")
    if mode == "snapshot":
        raise InvalidRequest("a channel has no snapshot: use `replay` or `live`")


def _holder(message: Join | Leave) -> object:
    """Return the lease's holder: the socket, or without one the member's own name."""
    return (message.tenant, message.channel, message.peer) if message.socket is None else message.socket
