import pytest

from actors.resilience.retry import temporary
from actors.upstream.retry import FAULTS, RETRIED
from protocol.errors import PROBLEMS, ProviderError


def test_the_codes_are_rows_of_the_table() -> None:
    """Each code is a known one."""
    assert set(PROBLEMS) >= RETRIED | FAULTS


@pytest.mark.parametrize("code", sorted(RETRIED))
def test_a_default_policy_retries_them(code: str) -> None:
    """What the gateway retries is temporary: the default policy has an attempt for it."""
    assert temporary(ProviderError(code=code))


@pytest.mark.parametrize(
    "code", ["provider_rejected", "provider_credentials", "provider_bad_response", "deadline_exceeded", "cancelled"]
)
def test_a_failure_that_would_repeat_is_not_retried(code: str) -> None:
    """The request or the operator has to change first, or the time is over."""
    assert code not in RETRIED
