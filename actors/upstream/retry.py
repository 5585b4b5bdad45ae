"""When a failed attempt is followed by another one."""

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
"""What says that a target is not worth asking, rather than that it is busy or that the request is at fault."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Exponential backoff with full jitter, within one budget a request.

    What a provider asks for is waited for in any case, and up to as long again at random, within the same bound: those
    that it has refused in one moment should not all come back in one.

    Attributes:
        attempts: the most calls for one request, the first included; a route with more targets may ask each once.
        base: the most seconds before the second attempt; doubled for each further one.
        cap: the most seconds before any attempt.
        patience: a provider that asks us to wait longer than this, in seconds, is not tried again.
        jitter: gives a number in 0..1.
    """

    attempts: int = 3
    base: float = 0.5
    cap: float = 8.0
    patience: float = 30.0
    jitter: Callable[[], float] = random.random

    def delay(self, attempt: int, error: TidegateError, left: float) -> float | None:
        """Return the seconds to wait after the failure of ``attempt`` (from 1), or None for giving up.

        Args:
            attempt: the number of the attempt that failed.
            error: what it failed with, before any content.
            left: the seconds until the request is out of time: an attempt that could not begin before is given up.
        """
        if attempt >= self.attempts or error.code not in RETRIED:
            return None
        bound = min(self.cap, self.base * 2 ** (attempt - 1))
        asked = error.retry_after
        if asked is None:
            delay = self.jitter() * bound
        elif asked <= self.patience:
            delay = asked + self.jitter() * min(asked, bound)
        else:
            return None
        return delay if delay < left else None
