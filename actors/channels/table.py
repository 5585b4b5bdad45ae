"""The table of all channels, and its bounds."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from actors.channels.channel import Channel
from actors.channels.limits import ChannelLimits
from actors.channels.log import FrameEncoder
from protocol.errors import Overloaded

SWEEP_INTERVAL: Final = 5.0  # seconds
SWEEP_CHANNELS: Final = 2000  # per sweep, some 3 ms
EVICT_SEARCH: Final = 64  # channels that are searched for one without users

ChannelKey = tuple[str, str]  # tenant and name


class ChannelTable:
    """The channels of all tenants by tenant and name, bounded in number and in bytes.

    Args:
        encode: turns a frame's JSON into wire bytes.
        limits: the bounds.
        deliver: writes to every reader what it has not been sent yet.
        on_open: called for each new channel.
    """

    def __init__(
        self,
        encode: FrameEncoder,
        *,
        limits: ChannelLimits,
        deliver: Callable[[], object],
        on_open: Callable[[], object],
    ) -> None:
        self._encode = encode
        self._limits = limits
        self._deliver = deliver
        self._on_open = on_open
        self._channels: dict[ChannelKey, Channel] = {}
        self._by_publication: OrderedDict[Channel, None] = OrderedDict()  # channels with a history, the latest last
        self._size = 0

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
            Overloaded: there are too many channels in use.
        """
        channel = self._channels.get((tenant, name))
        if channel is None:
            if len(self._channels) >= self._limits.channels:
                self._evict()
            channel = Channel(tenant, name, self._encode, bounds=self._limits.history, deliver=self._deliver)
            self._channels[channel.key] = channel
            self._on_open()
        return channel

    def published(self, channel: Channel) -> None:
        """Count a publication; drop the histories with the oldest last publication where all together are too large."""
        self._count(channel)
        self._by_publication[channel] = None
        self._by_publication.move_to_end(channel)
        while self._size > self._limits.size and len(self._by_publication) > 1:
            oldest, _ = self._by_publication.popitem(last=False)
            oldest.clear()
            self._count(oldest)

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
        self._size += channel.size - channel.counted
        channel.counted = channel.size

    def _evict(self) -> None:
        """Remove the channel with the oldest last publication, of those that nobody uses.

        Raises:
            Overloaded: all ``EVICT_SEARCH`` channels that were looked at are in use.
        """
        for channel in islice(self._by_publication, EVICT_SEARCH):
            if not channel.used:
                self._remove(channel)
                return
        detail = f"there are {self._limits.channels} channels, which is the most that are kept"
        raise Overloaded(detail, retry_after=SWEEP_INTERVAL)

    def _remove(self, channel: Channel) -> None:
        del self._channels[channel.key]
        self._by_publication.pop(channel, None)
        self._size -= channel.counted
