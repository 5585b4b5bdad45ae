"""Retries: exponential backoff with full jitter, for the gateway's calls and for any coroutine."""

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import msgspec

from protocol.errors import TidegateError

T = TypeVar("T")
RetryOn = tuple[type[Exception], ...] | Callable[[Exception], bool]

LOGGER: Final = "actors.resilience"


def temporary(error: Exception) -> bool:
    """Return whether the same call may succeed later: what ``RetryPolicy`` retries by default.

    A ``TidegateError`` says so itself (``temporary`` in the table of codes). Of the others ``OSError``, which includes
    refused and lost connections, and ``TimeoutError`` are temporary.
    """
    if isinstance(error, TidegateError):
        return error.problem.temporary
    return isinstance(error, OSError | TimeoutError)


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a failed attempt is followed by another one, and how long to wait before it.

    The wait is random between 0 and ``base * factor ** (attempt - 1)``, at most ``cap``. An error that carries
    ``retry_after`` is waited for at least that long, plus up to as long again at random within the same bound: callers
    that were refused in one moment do not all come back in one.

    Attributes:
        attempts: the most calls, the first included; at least 1. A route with more targets may ask each of them once.
        base: the longest wait before the second attempt, in seconds.
        cap: the longest wait before any attempt, in seconds, unless ``retry_after`` asks for more.
        factor: by how much the longest wait grows from one attempt to the next; at least 1.
        patience: an error whose ``retry_after`` is longer than this, in seconds, is not retried.
        retry_on: the exception classes that are retried, or a function that decides; the gateway retries less than
            this, never more (``actors.upstream.candidates``).
        jitter: returns a number in 0..1.
    """

    attempts: int = 3
    base: float = 0.5
    cap: float = 8.0
    factor: float = 2.0
    patience: float = 30.0
    retry_on: RetryOn = temporary
    jitter: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be positive, got {self.attempts}")
        if self.base < 0 or self.cap < 0 or self.patience < 0:
            raise ValueError(
                f"base, cap and patience must not be negative, got {self.base}, {self.cap} and {self.patience}"
            )
        if not self.factor >= 1:
            raise ValueError(f"factor must be at least 1, got {self.factor}")

    def retries(self, error: Exception) -> bool:
        """Return whether ``retry_on`` covers ``error``."""
        if isinstance(self.retry_on, tuple):
            return isinstance(error, self.retry_on)
        return self.retry_on(error)

    def delay(self, attempt: int, error: Exception, left: float = math.inf) -> float | None:
        """Return the seconds to wait after the failure of ``attempt``, or ``None`` to give up.

        Args:
            attempt: the number of the attempt that failed, from 1.
            error: what it failed with.
            left: the seconds until the caller's deadline: an attempt that could not begin before it is given up.
        """
        if attempt >= self.attempts or not self.retries(error):
            return None
        bound = self._bound(attempt)
        retry_after = error.retry_after if isinstance(error, TidegateError) else None
        if retry_after is None:
            delay = self.jitter() * bound
        elif retry_after <= self.patience:
            delay = retry_after + self.jitter() * min(retry_after, bound)
        else:
            return None
        return delay if delay < left else None

    def _bound(self, attempt: int) -> float:
        try:
            return min(self.cap, self.base * self.factor ** (attempt - 1))
        except OverflowError:
            return self.cap


DEFAULT: Final = RetryPolicy()


async def retry(
    work: Callable[[], Awaitable[T]],
    policy: RetryPolicy = DEFAULT,
    *,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> T:
    """Await ``work()`` until it succeeds, and return its result.

    Each retry is logged as a warning ``retrying`` with ``attempt``, ``delay`` (seconds) and ``error``. Cancellation is
    never retried. A time limit is the caller's: ``async with asyncio.timeout(30): await retry(...)``.

    Args:
        work: makes a new attempt at each call: a function without arguments that returns an awaitable.
        policy: how often, after which errors, and after which wait.
        sleep: waits; a test passes one that does not.

    Raises:
        Exception: what the last attempt raised.
    """
    attempt = 1
    while True:
        try:
            return await work()
        except Exception as error:
            delay = policy.delay(attempt, error)
            if delay is None:
                raise
            facts = {"attempt": attempt, "delay": round(delay, 3), "error": f"{type(error).__name__}: {error}"[:500]}
            logging.getLogger(LOGGER).warning("retrying", extra=facts)
        await sleep(delay)
        attempt += 1
