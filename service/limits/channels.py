"""Bounds of channels and presence."""

from typing import Final

from actors.channels import channels, keys, overrides, presence
from actors.channels.limits import ChannelLimits
from protocol import channels as publications
from protocol import users
from service.limits.bound import CALL, CHANNEL, EVICTED, RESERVED, Bound

_CHANNELS: Final = ChannelLimits()

BOUNDS: Final = (
    Bound(
        "channels",
        _CHANNELS.channels,
        RESERVED,
        "the least recently published unused one of the tenant with the most is dropped, or one more is refused",
        "overloaded",
        "max_channels",
    ),
    Bound(
        "all histories",
        _CHANNELS.size,
        EVICTED,
        "that of the least recently published channel of the tenant with the most is dropped",
        setting="channels_max_bytes",
        unit="bytes",
    ),
    Bound(
        "publications of a channel",
        _CHANNELS.history.entries,
        CHANNEL,
        "the oldest is dropped",
        setting="channel_history_entries",
    ),
    Bound(
        "a channel's history",
        _CHANNELS.history.size,
        CHANNEL,
        "the oldest is dropped",
        setting="channel_history_bytes",
        unit="bytes",
    ),
    Bound(
        "time of a publication",
        _CHANNELS.history.ttl,
        CHANNEL,
        "it is dropped",
        setting="channel_history_ttl_seconds",
        unit="s",
    ),
    Bound("a publication", publications.MAX_DATA_BYTES, CALL, "it is refused", "publication_too_large", unit="bytes"),
    Bound("idempotency keys of a channel", keys.MAX_KEYS, CHANNEL, "the oldest is forgotten"),
    Bound("time of such a key", keys.KEY_TTL, CHANNEL, "it is forgotten", unit="s"),
    Bound("members of a channel", presence.MAX_MEMBERS, CHANNEL, "one more is refused", "overloaded"),
    Bound("sockets of a member", presence.MAX_HOLDERS, CHANNEL, "one more is refused", "overloaded"),
    Bound(
        "publishers that wait for acknowledgements",
        channels.MAX_RECEIPTS,
        RESERVED,
        "one more is refused",
        "overloaded",
    ),
    Bound("users whose presence is set", overrides.MAX_OVERRIDES, RESERVED, "one more is refused", "overloaded"),
    Bound("metadata of a presence", users.MAX_METADATA_BYTES, CALL, "it is refused", "invalid_request", unit="bytes"),
)
