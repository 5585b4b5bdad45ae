"""Who follows what over which socket, and the delivery to them."""

import asyncio
from contextvars import Context
from functools import partial
from typing import Final

import msgspec

from actors.channels.channels import SWEEP_INTERVAL, Channels
from actors.channels.limits import ChannelLimits
from actors.channels.receipts import Receipt
from actors.delivery.fanout import Fanout
from actors.delivery.topic import FrameEncoder
from actors.runtime import Actor, Deferred, handles
from protocol.channels import (
    AckChannel,
    ChannelMessage,
    DisconnectUser,
    GetHistory,
    GetPresence,
    GetStatus,
    History,
    Join,
    Leave,
    Member,
    Publish,
    Published,
    SocketOpened,
    SubscribeChannel,
    UnsubscribeChannel,
    UnsubscribeUser,
    UserStatus,
)
from protocol.hub import GetHubStats, Goodbye, HubStats, SocketClosed, Subscribe, Unsubscribe
from protocol.message import Message

HIGH_WATER: Final = 64 * 1024  # bytes
MAX_SUBSCRIPTIONS: Final = 1000
POLL_INTERVAL: Final = 0.05  # seconds between looks at the sockets that lag
NO_MORE_THAN: Final = ChannelLimits()
LOST_STATE: Final = 4010  # close code: reconnect, and say again what you follow


class Poll(Message[None], frozen=True):
    """Time to look after the sockets that lag."""


class Sweep(Message[None], frozen=True):
    """Time to drop what has outlived its time."""


class GiveUp(Message[None], frozen=True):
    """A publisher has waited for long enough."""

    receipt: Receipt


HubMessage = Subscribe | Unsubscribe | SocketClosed | Goodbye | GetHubStats


class SubscriptionHub(Actor[HubMessage | ChannelMessage | Poll | Sweep | GiveUp]):
    """Delivers requests' logs and channels to sockets.

    It keeps a cursor for each socket and what it follows, and no copy of anything. Once a tick, whatever has changed
    goes out in one write a socket, outside of any handler: a delivery never waits, neither for a client nor for the
    mailbox. Channels live here, too: they are a part of memory that is never waited for, one write a socket covers
    requests and channels alike, and what ends a socket or a user ends it in all of them at once.

    Args:
        encoder: turns a frame's JSON into what goes over the wire.
        high_water: bytes buffered in a socket above which it is left alone until it has drained to half of them. What
            it has missed it then gets merged; one that does not move for 30 s is closed (4008).
        max_subscriptions: of one socket.
        channels: how much there may be of channels.
    """

    capacity = 4096
    overflow = "wait"

    def __init__(
        self,
        encoder: FrameEncoder,
        *,
        high_water: int = HIGH_WATER,
        max_subscriptions: int = MAX_SUBSCRIPTIONS,
        channels: ChannelLimits = NO_MORE_THAN,
    ) -> None:
        for name, bound in (("high_water", high_water), ("max_subscriptions", max_subscriptions)):
            if bound < 1:
                message = f"{name} must be positive, got {bound}"
                raise ValueError(message)
        loop = asyncio.get_running_loop()
        self._fanout = Fanout(
            encoder,
            high_water=high_water,
            max_subscriptions=max_subscriptions,
            clock=self._now,
            soon=partial(loop.call_soon, context=Context()),
            watch=self._watch,
        )
        self._channels = Channels(
            self._fanout,
            encoder,
            limits=channels,
            clock=self._now,
            watch=lambda: self.schedule(SWEEP_INTERVAL, Sweep()),
        )

    async def stopped(self) -> None:
        """Let go of the sockets that are left: after a failure they subscribe anew."""
        self._fanout.abandon(LOST_STATE, "insufficient state")
        self._channels.abandon(LOST_STATE, "insufficient state")

    @handles(Subscribe)
    async def subscribe(self, message: Subscribe) -> None:
        """Let a socket follow a stream."""
        self._fanout.subscribe(message)

    @handles(Unsubscribe)
    async def unsubscribe(self, message: Unsubscribe) -> bool:
        """Let a socket follow a request no more."""
        return self._fanout.unsubscribe(message.socket, message.request_id)

    @handles(SocketClosed)
    async def closed(self, message: SocketClosed) -> None:
        """Forget a socket."""
        self._fanout.leave(message.socket)
        self._channels.closed(message.socket)

    @handles(Goodbye)
    async def goodbye(self, message: Goodbye) -> int:
        """Send everybody away."""
        return self._fanout.goodbye(message.reason, message.spread)

    @handles(GetHubStats)
    async def stats(self, _: GetHubStats) -> HubStats:
        """Return the hub's size."""
        return msgspec.structs.replace(self._fanout.stats(), channels=len(self._channels))

    @handles(SocketOpened)
    async def opened(self, message: SocketOpened) -> None:
        """Note whose socket it is."""
        self._channels.opened(message.socket, message.tenant, message.user)

    @handles(DisconnectUser)
    async def disconnect_user(self, message: DisconnectUser) -> int:
        """Send a user away."""
        return self._channels.disconnect(message)

    @handles(GetStatus)
    async def status(self, message: GetStatus) -> UserStatus:
        """Say whether a user is there."""
        return self._channels.status(message)

    @handles(SubscribeChannel)
    async def subscribe_channel(self, message: SubscribeChannel) -> None:
        """Let a socket follow a channel."""
        self._channels.subscribe(message)

    @handles(UnsubscribeChannel)
    async def unsubscribe_channel(self, message: UnsubscribeChannel) -> bool:
        """Let a socket follow a channel no more."""
        return self._channels.unsubscribe(message.socket, (message.tenant, message.channel))

    @handles(UnsubscribeUser)
    async def unsubscribe_user(self, message: UnsubscribeUser) -> int:
        """Take a user out of a channel."""
        return self._channels.unsubscribe_user(message)

    @handles(Publish)
    async def publish(self, message: Publish) -> Published | Deferred[Published]:
        """Publish, and where that is asked for, reply when everybody has it or the time is up."""
        published = self._channels.publish(message)
        if not message.wait:
            return published
        receipt = self._channels.expect(message, published.position.offset)
        reply, patience = self.promise(Publish), self.schedule(message.wait, GiveUp(receipt))

        def done() -> None:
            patience.cancel()
            peers = self._channels.settle(message, receipt)
            reply.resolve(msgspec.structs.replace(published, acknowledged=peers))

        receipt.then(done)
        return reply

    @handles(AckChannel)
    async def ack_channel(self, message: AckChannel) -> None:
        """Note what a socket has."""
        self._channels.acked(message.socket, (message.tenant, message.channel), message.offset)

    @handles(GetHistory)
    async def history(self, message: GetHistory) -> History:
        """Look back."""
        return self._channels.history(message)

    @handles(Join)
    async def join(self, message: Join) -> None:
        """Let a peer be there."""
        self._channels.join(message)

    @handles(Leave)
    async def leave(self, message: Leave) -> bool:
        """Let a peer go."""
        return self._channels.leave(message)

    @handles(GetPresence)
    async def presence(self, message: GetPresence) -> tuple[Member, ...]:
        """Say who is there."""
        return self._channels.members(message)

    @handles(GiveUp)
    async def give_up(self, message: GiveUp) -> None:
        """Let a publisher know who has it by now."""
        message.receipt.close()

    @handles(Sweep)
    async def sweep(self, _: Sweep) -> None:
        """Drop what has outlived its time, and once more as long as there is anything."""
        if self._channels.sweep():
            self.schedule(SWEEP_INTERVAL, Sweep())

    @handles(Poll)
    async def poll(self, _: Poll) -> None:
        """Look after the sockets that lag, and once more as long as there are any."""
        if self._fanout.poll():
            self._watch()

    def _now(self) -> float:
        return self.system.clock.time()

    def _watch(self) -> None:
        self.schedule(POLL_INTERVAL, Poll())
