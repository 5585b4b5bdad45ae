"""The table of all channels, and its bounds."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from actors.channels.channel import Channel
from actors.channels.limits import ChannelLimits
from actors.channels.log import FrameEncoder
from actors.fair_shares import FairShares, Tenants
from protocol.errors import Overloaded

SWEEP_INTERVAL: Final = 5.0  # seconds
SWEEP_CHANNELS: Final = 2000  # per sweep, some 3 ms
EVICT_SEARCH: Final = 64  # channels that are searched for one without users

ChannelKey = tuple[str, str]  # tenant and name


class ChannelTable:
    """The channels of all tenants by tenant and name, bounded in number and in bytes.

    The tenants share both bounds, as ``FairShares`` says. Channels in use are not removed: a tenant that uses more than
    its floor leaves free what others have left of theirs.

    Args:
        encode: turns a frame's JSON into wire bytes.
        limits: the bounds.
        tenants: share them.
        deliver: writes to every reader what it has not been sent yet.
        on_open: called for each new channel.
    """

    def __init__(
        self,
        encode: FrameEncoder,
        *,
        limits: ChannelLimits,
        tenants: Tenants,
        deliver: Callable[[], object],
        on_open: Callable[[], object],
    ) -> None:
        self._encode = encode
        self._limits = limits
        self._deliver = deliver
        self._on_open = on_open
        self._channels: dict[ChannelKey, Channel] = {}
        self._rows = FairShares(limits.channels, tenants, rule="reserve")
        self._bytes = FairShares(limits.size, tenants)
        self._published: dict[str, OrderedDict[Channel, None]] = {}  # with a history, by tenant, the latest last

    def __len__(self) -> int:
        return len(self._channels)

    def __getitem__(self, key: ChannelKey) -> Channel:
        return self._channels[key]

    def find(self, key: ChannelKey) -> Channel | None:
        """Return the channel with this key, if there is one."""
        return self._channels.get(key)

    def of_tenant(self, tenant: str) -> Iterator[Channel]:
        """Yield the channels of a tenant, in no order."""
        return (channel for key, channel in self._channels.items() if key[0] == tenant)

    def open(self, tenant: str, name: str) -> Channel:
        """Return the channel, created if need be.

        Raises:
            Overloaded: the tenant's channels are in use, and what is free is kept for others.
        """
        channel = self._channels.get((tenant, name))
        if channel is None:
            while not self._rows.take(tenant):
                self._evict(tenant)
            channel = Channel(tenant, name, self._encode, bounds=self._limits.history, deliver=self._deliver)
            self._channels[channel.key] = channel
            self._on_open()
        return channel

    def published(self, channel: Channel) -> None:
        """Count a publication; drop histories where all together are too large.

        They are those with the oldest last publication of the tenant with the most bytes. The one that was just
        published to stays, and counts less where there is no room for it.
        """
        tenant = channel.key[0]
        published = self._published.setdefault(tenant, OrderedDict())
        published[channel] = None
        published.move_to_end(channel)
        self._bytes.give_back(tenant, channel.counted)
        channel.counted = 0
        size = channel.size
        while not self._bytes.take(tenant, size):
            victim = self._bytes.furthest_above(tenant, size, among=self._published)
            oldest = next(iter(self._published[victim or tenant]))
            if oldest is channel:
                size = self._bytes.bound - self._bytes.total
            else:
                oldest.clear()
                self._forget(oldest)
        channel.counted = size

    def expire(self, channel: Channel, now: float) -> None:
        """Drop a channel's expired publications and keys."""
        if channel.expire(now):
            self._count(channel)

    def sweep(self, now: float) -> None:
        """Expire the next ``SWEEP_CHANNELS`` channels, and remove those that are idle."""
        for channel in tuple(islice(self._channels.values(), SWEEP_CHANNELS)):
            self.expire(channel, now)
            if channel.idle:
                self._remove(channel)
            else:
                self._channels[channel.key] = self._channels.pop(channel.key)  # the next sweep begins with others

    def _count(self, channel: Channel) -> None:
        """Count what a channel holds after something of it has expired."""
        less = channel.counted - channel.size
        if less > 0:
            self._bytes.give_back(channel.key[0], less)
            channel.counted -= less

    def _evict(self, tenant: str) -> None:
        """Remove a channel that nobody uses, the one with the oldest last publication of the tenant with the most.

        Raises:
            Overloaded: there is none among the ``EVICT_SEARCH`` channels that were looked at.
        """
        victim = self._rows.furthest_above(tenant, among=self._published)
        for channel in islice(self._published.get(victim or tenant, ()), EVICT_SEARCH):
            if not channel.used:
                self._remove(channel)
                return
        detail = f"there are {self._rows.held(tenant)} channels, which is the most that are kept"
        raise Overloaded(detail, retry_after=SWEEP_INTERVAL)

    def _remove(self, channel: Channel) -> None:
        del self._channels[channel.key]
        self._rows.give_back(channel.key[0])
        self._forget(channel)

    def _forget(self, channel: Channel) -> None:
        """Count the history of a channel off."""
        tenant = channel.key[0]
        self._bytes.give_back(tenant, channel.counted)
        channel.counted = 0
        published = self._published.get(tenant)
        if published is not None and channel in published:
            del published[channel]
            if not published:
                del self._published[tenant]
