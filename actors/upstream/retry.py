"""Retry policy: whether and when a failed attempt is followed by another one to the same target."""

import random
from collections.abc import Callable
from typing import Final

import msgspec

from protocol.errors import TidegateError

RETRIED: Final = frozenset(
    {"provider_unavailable", "provider_rate_limited", "provider_error", "provider_timeout", "provider_stream_broken"}
)
FAULTS: Final = frozenset(
    {"provider_unavailable", "provider_error", "provider_timeout", "provider_stream_broken", "provider_bad_response"}
)
"""Codes of failures that count against a target's breaker; the others mean that it is busy, or the request at fault."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Exponential backoff with full jitter, and a bound on the attempts of a request.

    The seconds of a provider's ``retry-after`` are always waited for, and up to as long again at random, within the
    same bound: calls that were refused in one moment should not all come back in one.

    Attributes:
        attempts: the most calls for one request, the first included; a route with more targets may ask each once.
        base: the most seconds before the second attempt; doubled for each further one.
        cap: the most seconds before any attempt.
        patience: a provider whose ``retry-after`` is longer than this, in seconds, is not tried again.
        jitter: returns a number in 0..1.
    """

    attempts: int = 3
    base: float = 0.5
    cap: float = 8.0
    patience: float = 30.0
    jitter: Callable[[], float] = random.random

    def delay(self, attempt: int, error: TidegateError, left: float) -> float | None:
        """Return the seconds to wait after a failure, or None where the target is not tried again.

        Args:
            attempt: the number of the attempt that failed, from 1.
            error: its failure, before any content.
            left: the seconds until the request's deadline: an attempt that could not begin before is not made.
        """
        if attempt >= self.attempts or error.code not in RETRIED:
            return None
        bound = min(self.cap, self.base * 2 ** (attempt - 1))
        retry_after = error.retry_after
        if retry_after is None:
            delay = self.jitter() * bound
        elif retry_after <= self.patience:
            delay = retry_after + self.jitter() * min(retry_after, bound)
        else:
            return None
        return delay if delay < left else None
