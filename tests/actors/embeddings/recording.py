"""A retry policy whose decisions a test sees."""

import asyncio
import math

import msgspec

from actors.llm_gateway import RetryPolicy


class RecordingPolicy(RetryPolicy, frozen=True, kw_only=True):
    """Puts its decisions into a queue, without jitter."""

    delays: asyncio.Queue[float | None] = msgspec.field(default_factory=asyncio.Queue)

    def delay(self, attempt: int, error: Exception, left: float = math.inf) -> float | None:
        policy = RetryPolicy(attempts=self.attempts, jitter=lambda: 1.0)
        delay = policy.delay(attempt, error, left)
        self.delays.put_nowait(delay)
        return delay
