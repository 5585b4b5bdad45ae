"""The headers that tell a limited caller what is left: OpenAI's, Anthropic's, and the native ones."""

import time
from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import Final

from protocol.limits import QuotaStanding

REMEMBERED: Final = 1024  # texts of times


def limit_lines(standings: Sequence[QuotaStanding], now: float) -> str:
    """Return the headers for a call's quotas, at least one, as the lines of a head.

    A vendor's headers have one number of requests and one of tokens: those of the quota that has the least left.

    Args:
        standings: of the quotas.
        now: the time, in Unix seconds.
    """
    requests = tokens = None
    items = policies = ""
    for standing in standings:
        quota, left = standing.quota, standing.remaining
        policies = f"{policies}, {quota.policy}" if policies else quota.policy
        item = f"{quota.name};r={left};t={ceil(standing.reset)}" if quota.window else f"{quota.name};r={left}"
        items = f"{items}, {item}" if items else item
        if quota.unit == "requests":
            if requests is None or left < requests.remaining:
                requests = standing
        elif quota.unit == "tokens" and (tokens is None or left < tokens.remaining):
            tokens = standing
    first = requests or tokens or standings[0]
    lines = (
        f"RateLimit: {items}\r\nRateLimit-Policy: {policies}\r\nX-RateLimit-Limit: {first.quota.text}\r\n"
        f"X-RateLimit-Remaining: {first.remaining}\r\nX-RateLimit-Reset: {ceil(now + first.reset)}\r\n"
    )
    if requests is not None:
        lines += _vendors("requests", requests, now)
    return lines if tokens is None else lines + _vendors("tokens", tokens, now)


def limit_headers(standings: Sequence[QuotaStanding], now: float) -> dict[str, str]:
    """Return the same headers by their names."""
    pairs = [line.partition(": ") for line in limit_lines(standings, now).split("\r\n")]
    return {name: value for name, _, value in pairs if name}


def _vendors(unit: str, standing: QuotaStanding, now: float) -> str:
    limit, left, reset = standing.quota.text, str(standing.remaining), standing.reset
    return (
        f"x-ratelimit-limit-{unit}: {limit}\r\nx-ratelimit-remaining-{unit}: {left}\r\n"
        f"x-ratelimit-reset-{unit}: {duration(ceil(reset))}\r\n"
        f"anthropic-ratelimit-{unit}-limit: {limit}\r\nanthropic-ratelimit-{unit}-remaining: {left}\r\n"
        f"anthropic-ratelimit-{unit}-reset: {moment(ceil(now + reset))}\r\n"
    )


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
