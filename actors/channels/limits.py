"""How many channels there are and how much each keeps: values and their defaults."""

from typing import NamedTuple


class HistoryLimits(NamedTuple):
    """The bounds of one channel's history; the one that is reached first counts.

    Attributes:
        entries: publications.
        size: bytes.
        ttl: seconds.
    """

    entries: int = 1000
    size: int = 256 * 1024
    ttl: float = 300.0


class ChannelLimits(NamedTuple):
    """The bounds of all channels.

    Attributes:
        history: of one channel.
        channels: how many there are.
        size: bytes of all histories together; above it the histories of the least recently used channels are dropped.
    """

    history: HistoryLimits = HistoryLimits()
    channels: int = 10_000
    size: int = 64 * 1024 * 1024
