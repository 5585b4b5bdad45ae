"""Which failures of an upstream are followed by another attempt, and which count against its breaker."""

from typing import Final

RETRIED: Final = frozenset(
    {"provider_unavailable", "provider_rate_limited", "provider_error", "provider_timeout", "provider_stream_broken"}
)
"""Codes of failures after which the same target may be called again, where the ``RetryPolicy`` has an attempt left."""

FAULTS: Final = frozenset(
    {"provider_unavailable", "provider_error", "provider_timeout", "provider_stream_broken", "provider_bad_response"}
)
"""Codes of failures that count against a target's breaker; the others mean that it is busy, or the request at fault."""
