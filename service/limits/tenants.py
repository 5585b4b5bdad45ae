"""Bounds of what tenants and accounts share."""

from typing import Final

from actors import ledger, rate_limiter, rate_limits
from actors.fair_shares import MAX_TENANTS
from protocol import limits
from service.auth import keys as api_keys
from service.auth import tickets
from service.config import routes_file
from service.limits.bound import EVERYBODY, EVICTED, Bound

BOUNDS: Final = (
    Bound("tenants with a floor", MAX_TENANTS, EVERYBODY, "more share evenly", setting="max_tenants"),
    Bound("accounts in a budget window", ledger.MAX_ACCOUNTS, EVERYBODY, "the call is refused", "overloaded"),
    Bound("tickets that are unused", tickets.MAX_TICKETS, EVICTED, "the tenant with the most is refused", "overloaded"),
    Bound(
        "callers with counters of rate limits",
        rate_limiter.MAX_OWNERS,
        EVICTED,
        "one of the largest tenant is forgotten",
    ),
    Bound("limits of a plan, and of a key", limits.MAX_LIMITS, EVERYBODY, "the file is refused", "configuration_error"),
    Bound(
        "calls that were refused, for the administrator", rate_limits.MAX_VIOLATIONS, EVICTED, "the oldest is dropped"
    ),
    Bound("characters of an API key, at least", api_keys.MIN_KEY, EVERYBODY, "the start fails", "configuration_error"),
    Bound(
        "`tidegate.toml`",
        routes_file.MAX_BYTES,
        EVERYBODY,
        "the file is not applied",
        "configuration_error",
        unit="bytes",
    ),
)
