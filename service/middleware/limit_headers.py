"""The headers that tell a limited caller what is left: OpenAI's, Anthropic's, and the native ones."""

import math
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from protocol.limits import QuotaStanding

REMEMBERED: Final = 1024  # texts of times
NATIVE: Final = ("RateLimit", "RateLimit-Policy", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


def limit_headers(standings: Sequence[QuotaStanding], now: float) -> dict[str, str]:
    """Return the headers for a call's quotas; at least one.

    A vendor's headers have one number of requests and one of tokens: those of the quota that has the least left.

    Args:
        standings: of the quotas.
        now: the time, in Unix seconds.
    """
    requests = tokens = None
    items: list[str] = []
    policies: list[str] = []
    for standing in standings:
        quota = standing.quota
        reset = math.ceil(standing.reset)
        policies.append(quota.policy)
        items.append(f"{quota.name};r={standing.remaining}" + (f";t={reset}" if quota.window else ""))
        if quota.unit == "requests":
            if requests is None or standing.remaining < requests.remaining:
                requests = standing
        elif quota.unit == "tokens" and (tokens is None or standing.remaining < tokens.remaining):
            tokens = standing
    first = requests or tokens or standings[0]
    headers = {
        "RateLimit": ", ".join(items),
        "RateLimit-Policy": ", ".join(policies),
        "X-RateLimit-Limit": str(first.quota.limit),
        "X-RateLimit-Remaining": str(first.remaining),
        "X-RateLimit-Reset": str(math.ceil(now + first.reset)),
    }
    if requests is not None:
        _add(headers, "requests", requests, now)
    if tokens is not None:
        _add(headers, "tokens", tokens, now)
    return headers


def _add(headers: dict[str, str], unit: str, standing: QuotaStanding, now: float) -> None:
    limit, remaining = str(standing.quota.limit), str(standing.remaining)
    headers[f"x-ratelimit-limit-{unit}"] = limit
    headers[f"x-ratelimit-remaining-{unit}"] = remaining
    headers[f"x-ratelimit-reset-{unit}"] = duration(math.ceil(standing.reset))
    headers[f"anthropic-ratelimit-{unit}-limit"] = limit
    headers[f"anthropic-ratelimit-{unit}-remaining"] = remaining
    headers[f"anthropic-ratelimit-{unit}-reset"] = moment(math.ceil(now + standing.reset))


@lru_cache(REMEMBERED)
def duration(seconds: int) -> str:
    """Return a number of seconds as OpenAI writes it: ``6m0s``."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


@lru_cache(REMEMBERED)
def moment(seconds: int) -> str:
    """Return Unix seconds as RFC 3339 has them."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
