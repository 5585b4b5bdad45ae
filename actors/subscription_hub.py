"""The subscription hub: sockets subscribe to requests and channels, and it delivers to them."""

import asyncio
from contextvars import Context
from functools import partial
from typing import Final

import msgspec

from actors.channels.channels import Channels
from actors.channels.limits import ChannelLimits
from actors.channels.receipts import Receipt
from actors.channels.table import SWEEP_INTERVAL
from actors.delivery.fanout import TOTAL_SUBSCRIPTIONS, Fanout
from actors.delivery.topic import FrameEncoder
from actors.fair_shares import FairShares, Tenants
from actors.runtime import Actor, Deferred, handles
from protocol.channels import (
    AckChannel,
    ChannelList,
    ChannelMessage,
    GetHistory,
    GetPresence,
    GetSubscribers,
    History,
    Join,
    Leave,
    ListChannels,
    Member,
    Publish,
    Published,
    SubscribeChannel,
    SubscriberList,
    UnsubscribeChannel,
)
from protocol.errors import AccessDenied
from protocol.hub import (
    DisconnectAll,
    DisconnectIdle,
    GetHubStats,
    HubStats,
    LimitSocket,
    Socket,
    SocketClosed,
    Subscribe,
    Unsubscribe,
)
from protocol.message import Message
from protocol.users import (
    DisconnectUser,
    GetStatus,
    GetUserChannels,
    SetPresence,
    SocketOpened,
    SubscribeUser,
    UnsubscribeUser,
    UserChannels,
    UserMessage,
    UserStatus,
    UserSubscribed,
)

HIGH_WATER: Final = 64 * 1024  # bytes
MAX_SUBSCRIPTIONS: Final = 1000
LAG_INTERVAL: Final = 0.05  # seconds between two checks of the lagging sockets
DEFAULT_LIMITS: Final = ChannelLimits()
BATCH: Final = 256  # sockets of a user that are subscribed at once, some 3 ms
LOST_STATE: Final = 4010  # close code: reconnect, and subscribe again


class CheckLagging(Message[None], frozen=True):
    """Resume or close the lagging sockets."""


class SweepChannels(Message[None], frozen=True):
    """Drop what has expired in the channels."""


class AckTimedOut(Message[None], frozen=True):
    """A publisher's time to wait for acknowledgements is over."""

    receipt: Receipt


HubMessage = Subscribe | Unsubscribe | LimitSocket | SocketClosed | DisconnectAll | DisconnectIdle | GetHubStats


class SubscriptionHub(Actor[HubMessage | ChannelMessage | UserMessage | CheckLagging | SweepChannels | AckTimedOut]):
    """Delivers requests' logs and channels to sockets.

    It holds one cursor per subscription, and no copies. Once per loop tick it delivers all changes with one write per
    socket, outside of any handler: a delivery never waits for a client or for the mailbox. Channels are part of this
    actor: nothing in them waits, one write per socket covers requests and channels, and the end of a socket or a user
    ends it in all of them at once.

    Args:
        encoder: turns a frame's JSON into wire bytes.
        high_water: bytes buffered in a socket above which it gets nothing more until half of them are sent; then it
            gets what it has missed, merged. A socket without progress for 30 s is closed (4008).
        max_subscriptions: the most of one socket.
        subscriptions: the most of all sockets.
        channels: the bounds of all channels.
        tenants: share these bounds, but that of one socket; None for any tenants.
    """

    capacity = 4096
    overflow = "wait"

    def __init__(
        self,
        encoder: FrameEncoder,
        *,
        high_water: int = HIGH_WATER,
        max_subscriptions: int = MAX_SUBSCRIPTIONS,
        subscriptions: int = TOTAL_SUBSCRIPTIONS,
        channels: ChannelLimits = DEFAULT_LIMITS,
        tenants: Tenants | None = None,
    ) -> None:
        tenants = tenants or Tenants()
        for name, bound in (("high_water", high_water), ("max_subscriptions", max_subscriptions)):
            if bound < 1:
                message = f"{name} must be positive, got {bound}"
                raise ValueError(message)
        loop = asyncio.get_running_loop()
        self._fanout = Fanout(
            encoder,
            high_water=high_water,
            max_subscriptions=max_subscriptions,
            subscriptions=FairShares(subscriptions, tenants, rule="reserve"),
            clock=self._now,
            call_soon=partial(loop.call_soon, context=Context()),
            on_lag=self._check_later,
        )
        self._channels = Channels(
            self._fanout,
            encoder,
            limits=channels,
            tenants=tenants,
            clock=self._now,
            start_sweeping=lambda: self.schedule(SWEEP_INTERVAL, SweepChannels()),
        )

    async def stopped(self) -> None:
        """Close all sockets: their clients reconnect and subscribe again."""
        self._fanout.close_all(LOST_STATE, "insufficient state")
        self._channels.close_all(LOST_STATE, "insufficient state")

    @handles(Subscribe)
    async def subscribe(self, message: Subscribe) -> None:
        """Subscribe a socket to a request."""
        self._fanout.subscribe(message)

    @handles(Unsubscribe)
    async def unsubscribe(self, message: Unsubscribe) -> bool:
        """End a subscription to a request."""
        return self._fanout.unsubscribe(message.socket, message.request_id)

    @handles(LimitSocket)
    async def limit(self, message: LimitSocket) -> int:
        """End what a socket has no right to any more."""
        ended = self._channels.limit(message)
        if "inference" in message.before.scopes and "inference" not in message.after.scopes:
            ended += self._fanout.unsubscribe_requests(message.socket, AccessDenied(code="forbidden"))
        return ended

    @handles(SocketClosed)
    async def closed(self, message: SocketClosed) -> None:
        """Remove a socket."""
        self._fanout.remove(message.socket)
        self._channels.closed(message.socket)

    @handles(DisconnectAll)
    async def disconnect_all(self, message: DisconnectAll) -> int:
        """Close all sockets before a shutdown."""
        return self._fanout.disconnect_all(message.reason, message.spread)

    @handles(DisconnectIdle)
    async def disconnect_idle(self, message: DisconnectIdle) -> frozenset[Socket]:
        """Close the sockets that follow no request, and each other one after its last request."""
        return self._fanout.disconnect_idle(message.reason, message.spread)

    @handles(GetHubStats)
    async def stats(self, _: GetHubStats) -> HubStats:
        """Return the numbers of sockets, subscriptions, requests and channels."""
        return msgspec.structs.replace(self._fanout.stats(), channels=len(self._channels))

    @handles(SocketOpened)
    async def opened(self, message: SocketOpened) -> None:
        """Record a socket's user."""
        self._channels.opened(message.socket, message.tenant, message.user)

    @handles(DisconnectUser)
    async def disconnect_user(self, message: DisconnectUser) -> int:
        """Close a user's sockets."""
        return self._channels.disconnect(message)

    @handles(GetStatus)
    async def status(self, message: GetStatus) -> UserStatus:
        """Return whether a user is online."""
        return self._channels.status(message)

    @handles(SetPresence)
    async def set_presence(self, message: SetPresence) -> UserStatus:
        """Set whether a user is online, for a time."""
        return self._channels.set_presence(message)

    @handles(SubscribeChannel)
    async def subscribe_channel(self, message: SubscribeChannel) -> None:
        """Subscribe a socket to a channel."""
        self._channels.subscribe(message)

    @handles(UnsubscribeChannel)
    async def unsubscribe_channel(self, message: UnsubscribeChannel) -> bool:
        """End a subscription to a channel."""
        return self._channels.unsubscribe(message.socket, (message.tenant, message.channel))

    @handles(SubscribeUser)
    async def subscribe_user(self, message: SubscribeUser) -> UserSubscribed:
        """Subscribe a user's sockets to a channel. Between two batches the loop does other work."""
        sockets = self._channels.sockets_to_subscribe(message)
        done = self._channels.subscribe_user(message, sockets[:BATCH])
        for start in range(BATCH, len(sockets), BATCH):
            await asyncio.sleep(0)
            more = self._channels.subscribe_user(message, sockets[start : start + BATCH])
            done = UserSubscribed(sockets=done.sockets + more.sockets, refused=done.refused + more.refused)
        return done

    @handles(UnsubscribeUser)
    async def unsubscribe_user(self, message: UnsubscribeUser) -> int:
        """End a user's subscriptions and memberships in a channel."""
        return self._channels.unsubscribe_user(message)

    @handles(Publish)
    async def publish(self, message: Publish) -> Published | Deferred[Published]:
        """Publish. With ``wait``, reply when all followers have acknowledged, or at the end of that time."""
        published = self._channels.publish(message)
        if not message.wait:
            return published
        receipt = self._channels.open_receipt(message, published.position.offset)
        reply, timer = self.promise(Publish), self.schedule(message.wait, AckTimedOut(receipt))

        def done() -> None:
            timer.cancel()
            peers = self._channels.close_receipt(message, receipt)
            reply.resolve(msgspec.structs.replace(published, acknowledged=peers))

        receipt.when_done(done)
        return reply

    @handles(AckChannel)
    async def ack_channel(self, message: AckChannel) -> None:
        """Record a socket's acknowledgement."""
        self._channels.acked(message.socket, (message.tenant, message.channel), message.offset)

    @handles(GetHistory)
    async def history(self, message: GetHistory) -> History:
        """Return a page of publications."""
        return self._channels.history(message)

    @handles(Join)
    async def join(self, message: Join) -> None:
        """Make a peer a member, or renew its lease."""
        self._channels.join(message)

    @handles(Leave)
    async def leave(self, message: Leave) -> bool:
        """End a member's lease."""
        return self._channels.leave(message)

    @handles(GetPresence)
    async def presence(self, message: GetPresence) -> tuple[Member, ...]:
        """Return the members of a channel."""
        return self._channels.members(message)

    @handles(ListChannels)
    async def channels(self, message: ListChannels) -> ChannelList:
        """Return a page of a tenant's channels."""
        return self._channels.of_tenant(message)

    @handles(GetSubscribers)
    async def subscribers(self, message: GetSubscribers) -> SubscriberList:
        """Return a page of those that follow a channel."""
        return self._channels.subscribers(message)

    @handles(GetUserChannels)
    async def channels_of_user(self, message: GetUserChannels) -> UserChannels:
        """Return a page of the channels that a user follows."""
        return self._channels.of_user(message)

    @handles(AckTimedOut)
    async def ack_timed_out(self, message: AckTimedOut) -> None:
        """Reply to a publisher with the acknowledgements so far."""
        message.receipt.close()

    @handles(SweepChannels)
    async def sweep(self, _: SweepChannels) -> None:
        """Drop what has expired, and repeat while anything is left."""
        if self._channels.sweep():
            self.schedule(SWEEP_INTERVAL, SweepChannels())

    @handles(CheckLagging)
    async def check_lagging(self, _: CheckLagging) -> None:
        """Check the lagging sockets, and repeat while there are any."""
        if self._fanout.check_lagging():
            self._check_later()

    def _now(self) -> float:
        return self.system.clock.time()

    def _check_later(self) -> None:
        self.schedule(LAG_INTERVAL, CheckLagging())
