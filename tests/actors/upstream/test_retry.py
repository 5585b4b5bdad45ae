import pytest

from actors.upstream.retry import RetryPolicy
from protocol.errors import ProviderError, TidegateError

POLICY = RetryPolicy(attempts=4, base=1.0, cap=3.0, patience=10.0, jitter=lambda: 0.5)
BUSY = ProviderError(code="provider_unavailable")


def test_backoff_doubles_up_to_its_cap() -> None:
    """Full jitter below an exponential bound, then no more attempts."""
    assert [POLICY.delay(attempt, BUSY, 100) for attempt in (1, 2, 3, 4)] == [0.5, 1.0, 1.5, None]


def test_the_provider_says_how_long() -> None:
    """``retry-after`` comes before our jitter, which is at most as long again, unless it is beyond our patience."""
    assert POLICY.delay(1, ProviderError(code="provider_rate_limited", retry_after=7), 100) == 7.5
    assert POLICY.delay(1, ProviderError(code="provider_rate_limited", retry_after=0.5), 100) == 0.75
    assert POLICY.delay(1, ProviderError(code="provider_rate_limited", retry_after=0), 100) == 0
    assert POLICY.delay(1, ProviderError(code="provider_rate_limited", retry_after=11), 100) is None


def test_nothing_is_waited_for_that_comes_too_late() -> None:
    """Where the deadline is before the next attempt, the request fails now."""
    assert POLICY.delay(1, BUSY, 0.4) is None


@pytest.mark.parametrize(
    "code", ["provider_rejected", "provider_credentials", "provider_bad_response", "deadline_exceeded", "cancelled"]
)
def test_what_would_fail_again_is_not_tried_again(code: str) -> None:
    """Only failures that may pass are retried."""
    assert POLICY.delay(1, TidegateError(code=code), 100) is None
