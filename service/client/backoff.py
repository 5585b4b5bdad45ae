"""Backoff: exponential delays with full jitter, until a time without success is over."""

import asyncio
import os
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Final

from protocol.errors import Unreachable

_CAUSES: Final = {
    "ClientResponseError": "what it sends is not HTTP",
    "ServerDisconnectedError": "it closed the connection without an answer",
}
"""Causes by the class of the HTTP library's exception."""


class Backoff:
    """Waits between attempts, until there has been no success for ``patience`` seconds.

    Args:
        patience: seconds for which to retry without a success.
        base: the longest first delay, in seconds; it doubles with each failure.
        cap: the longest delay, in seconds.
        sleep: waits.
        clock: seconds, monotonic.
        notice: is called with the reason of each failure, before its delay.
    """

    def __init__(
        self,
        patience: float,
        *,
        base: float = 0.25,
        cap: float = 8.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        self.patience = patience
        self._base = base
        self._cap = cap
        self._sleep = sleep
        self._clock = clock
        self._notice = notice
        self._attempt = 0
        self._deadline: float | None = None

    def success(self) -> None:
        """Reset the delay and the patience."""
        self._attempt = 0
        self._deadline = None

    async def wait(self, reason: str, delay: float | None = None) -> None:
        """Wait before the next attempt: the server's ``delay`` where it sent one, else a random time.

        Raises:
            Unreachable: the patience is over; the message has ``reason``, the last failure.
        """
        now = self._clock()
        if self._deadline is None:
            self._deadline = now + self.patience + (min(delay, self.patience) if delay is not None else 0.0)
        if delay is None:
            ceiling = min(self._cap, self._base * 2.0 ** min(self._attempt, 30))
            delay = random.uniform(0.0, ceiling)  # noqa: S311 - jitter is no secret
        self._attempt += 1
        if now + delay > self._deadline:
            raise Unreachable(f"{reason}; gave up after {self.patience:g} s of trying again")
        if self._notice is not None:
            self._notice(reason)
        await self._sleep(delay)


def cause_of(error: Exception) -> str:
    """Return why a connection failed, in a few words."""
    cause = getattr(error, "os_error", error)
    if isinstance(cause, ssl.SSLError):
        reason = getattr(cause, "reason", None) or "it failed"
        return f"TLS: {reason.lower().replace('_', ' ')}"
    if isinstance(cause, OSError) and cause.errno is not None:
        return os.strerror(cause.errno).lower() if cause.errno > 0 else str(cause.strerror)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return _CAUSES.get(type(error).__name__, type(error).__name__)
