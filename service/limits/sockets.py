"""Bounds of sockets."""

from typing import Final

from actors.delivery import fanout, topic
from actors.subscription_hub import HIGH_WATER, MAX_SUBSCRIPTIONS, SubscriptionHub
from service import stall
from service.limits.bound import ADDRESS, EVERYBODY, RESERVED, SOCKET, STRANGERS, Bound
from service.websocket import admission, reader, transport, upgrade

BOUNDS: Final = (
    Bound(
        "sockets",
        upgrade.LIMITS.total,
        RESERVED,
        "one more closes the oldest that has not authenticated, or is closed",
        "connection_limit",
    ),
    Bound(
        "sockets that have not authenticated",
        upgrade.LIMITS.strangers,
        STRANGERS,
        "one more closes the oldest",
        "connection_limit",
    ),
    Bound(
        "of these, those of one address",
        upgrade.LIMITS.strangers_per_address,
        ADDRESS,
        "one more closes the oldest",
        "connection_limit",
    ),
    Bound(
        "time until a socket authenticates",
        admission.AUTHENTICATE_TIMEOUT,
        SOCKET,
        "it is closed",
        "unauthenticated",
        unit="s",
    ),
    Bound("a message", reader.MAX_MESSAGE_BYTES, SOCKET, "it is closed with 1009", unit="bytes"),
    Bound(
        "a message before authentication",
        admission.UNAUTHENTICATED_BYTES,
        SOCKET,
        "it is closed with 1009",
        unit="bytes",
    ),
    Bound("messages a second", reader.FRAMES_PER_SECOND, SOCKET, "it is closed", "rate_limited"),
    Bound("messages at once", reader.BURST, SOCKET, "it is closed", "rate_limited"),
    Bound("frames of a message", reader.MAX_FRAGMENTS, SOCKET, "it is closed with 1008"),
    Bound("messages that wait to be handled", reader.MAX_WAITING, SOCKET, "nothing more is read"),
    Bound("bad messages in a minute", admission.BAD_FRAMES, SOCKET, "it is closed", "invalid_request"),
    Bound("subscriptions of a socket", MAX_SUBSCRIPTIONS, SOCKET, "one more is refused", "connection_limit"),
    Bound(
        "subscriptions of all sockets",
        fanout.TOTAL_SUBSCRIPTIONS,
        RESERVED,
        "one more is refused",
        "overloaded",
        "max_subscriptions",
    ),
    Bound(
        "bytes that wait to be read", HIGH_WATER, SOCKET, "nothing more is written until it has read half", unit="bytes"
    ),
    Bound("time without reading", stall.STALL_LIMIT, SOCKET, "it is closed", "slow_consumer", unit="s"),
    Bound("answers that wait to be read", transport.HIGH_WATER, SOCKET, "no message of it is read", unit="bytes"),
    Bound("entries in one write", topic.PAGE_BYTES, SOCKET, "the rest follows", unit="bytes"),
    Bound("messages that wait for the hub", SubscriptionHub.capacity, EVERYBODY, "the sender waits"),
)
