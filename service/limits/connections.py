"""Bounds of connections, and of what holds up the loop."""

from typing import Final

from service import stall, watchdog
from service.addresses import ConnectionLimits
from service.limits.bound import ADDRESS, CONNECTION, EVERYBODY, Bound
from service.server import acceptor, connections

_LIMITS: Final = ConnectionLimits()

BOUNDS: Final = (
    Bound(
        "connections; fewer where the limit of open files asks for it",
        _LIMITS.total,
        EVERYBODY,
        "the longest resting one is closed, strangers first, then of the largest address; a new one is refused where "
        "all are busy",
        "connection_limit",
        "max_connections",
    ),
    Bound(
        "connections of an address, or of an IPv6 /64",
        _LIMITS.per_address,
        ADDRESS,
        "its own longest resting one is closed; where all are busy the new one is refused",
        "connection_limit",
        "max_connections_per_address",
    ),
    Bound(
        "time between two calls", _LIMITS.keep_alive, CONNECTION, "it is closed", setting="keep_alive_seconds", unit="s"
    ),
    Bound("time of the headers", connections.HEADERS_TIMEOUT, CONNECTION, "it is closed", unit="s"),
    Bound("time without taking anything", stall.STALL_LIMIT, CONNECTION, "it is closed", "slow_consumer", unit="s"),
    Bound("connections that wait to be accepted", acceptor.BACKLOG, EVERYBODY, "the kernel drops them"),
    Bound("refused connections that are still open", acceptor.REFUSED, EVERYBODY, "the oldest is closed"),
    Bound(
        "time without a turn of the loop",
        watchdog.THRESHOLD * 1000,
        EVERYBODY,
        "a line, a span, and health says so for a minute",
        setting="loop_lag_warning_ms",
        unit="ms",
    ),
)
