"""Who follows what over which socket, and the delivery to them."""

import asyncio
from contextvars import Context
from functools import partial
from typing import Final

from actors.hub.fanout import Fanout
from actors.hub.topic import FrameEncoder
from actors.runtime import Actor, handles
from protocol.hub import GetHubStats, Goodbye, HubStats, SocketClosed, Subscribe, Unsubscribe
from protocol.message import Message

HIGH_WATER: Final = 64 * 1024  # bytes
MAX_SUBSCRIPTIONS: Final = 1000
POLL_INTERVAL: Final = 0.05  # seconds between looks at the sockets that lag
LOST_STATE: Final = 4010  # close code: reconnect, and say again what you follow


class Poll(Message[None], frozen=True):
    """Time to look after the sockets that lag."""


class SubscriptionHub(Actor[Subscribe | Unsubscribe | SocketClosed | Goodbye | GetHubStats | Poll]):
    """Delivers logs to sockets.

    It keeps a cursor for each socket and request, and no copy of anything. Once a tick, whatever has changed goes out
    in one write a socket, outside of any handler: a delivery never waits, neither for a client nor for the mailbox.

    Args:
        encoder: turns a frame's JSON into what goes over the wire.
        high_water: bytes buffered in a socket above which it is left alone until it has drained to half of them. What
            it has missed it then gets merged; one that does not move for 30 s is closed (4008).
        max_subscriptions: of one socket.
    """

    capacity = 4096
    overflow = "wait"

    def __init__(
        self, encoder: FrameEncoder, *, high_water: int = HIGH_WATER, max_subscriptions: int = MAX_SUBSCRIPTIONS
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

    async def stopped(self) -> None:
        """Let go of the sockets that are left: after a failure they subscribe anew."""
        self._fanout.abandon(LOST_STATE, "insufficient state")

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

    @handles(Goodbye)
    async def goodbye(self, message: Goodbye) -> int:
        """Send everybody away."""
        return self._fanout.goodbye(message.reason, message.spread)

    @handles(GetHubStats)
    async def stats(self, _: GetHubStats) -> HubStats:
        """Return the hub's size."""
        return self._fanout.stats()

    @handles(Poll)
    async def poll(self, _: Poll) -> None:
        """Look after the sockets that lag, and once more as long as there are any."""
        if self._fanout.poll():
            self._watch()

    def _now(self) -> float:
        return self.system.clock.time()

    def _watch(self) -> None:
        self.schedule(POLL_INTERVAL, Poll())
