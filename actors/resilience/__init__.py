"""Resilience for any coroutine: retries, bounded concurrency, one call shared by all who want its result."""

from actors.resilience.limit import ConcurrencyLimit, limit
from actors.resilience.retry import RetryPolicy, retry
from actors.resilience.share import SingleFlight, share

__all__ = ["ConcurrencyLimit", "RetryPolicy", "SingleFlight", "limit", "retry", "share"]
