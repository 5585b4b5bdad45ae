import asyncio
import logging
import math

import pytest

from actors.resilience import RetryPolicy, retry
from actors.resilience.retry import temporary
from protocol.errors import InvalidRequest, Overloaded, ProviderError


class Attempts:
    """Work that fails with these errors in turn, and then succeeds; and a sleep that only notes how long."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.made = 0
        self.slept: list[float] = []

    async def __call__(self) -> str:
        self.made += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def test_a_temporary_failure_is_followed_by_another_attempt() -> None:
    """The documentation's example: three attempts, exponential waits, full jitter."""
    work = Attempts(ConnectionResetError(), TimeoutError())
    policy = RetryPolicy(attempts=3, base=0.1, cap=5.0, factor=3.0, jitter=lambda: 1.0)
    assert await retry(work, policy, sleep=work.sleep) == "done"
    assert work.slept == pytest.approx([0.1, 0.3])


async def test_the_last_failure_is_raised() -> None:
    """When the attempts are used up, the caller gets what the last one raised."""
    last = OSError("third")
    work = Attempts(OSError("first"), OSError("second"), last)
    with pytest.raises(OSError, match="third") as raised:
        await retry(work, RetryPolicy(attempts=3, base=0.0), sleep=work.sleep)
    assert raised.value is last
    assert work.made == 3


@pytest.mark.parametrize("error", [ValueError("bad"), InvalidRequest("bad")])
async def test_a_permanent_failure_is_raised_at_once(error: Exception) -> None:
    """What is not temporary is not repeated."""
    work = Attempts(error)
    with pytest.raises(type(error)):
        await retry(work, sleep=work.sleep)
    assert (work.made, work.slept) == (1, [])


async def test_the_caller_says_what_is_retried() -> None:
    """By classes, or by a function."""
    for retry_on in ((ValueError,), lambda error: "again" in str(error)):
        work = Attempts(ValueError("again"))
        policy = RetryPolicy(retry_on=retry_on, base=0.0)
        assert await retry(work, policy, sleep=work.sleep) == "done"
        assert work.made == 2


async def test_retry_after_is_respected() -> None:
    """An error that asks for a wait gets it, with jitter on top, unless it asks for more than our patience."""
    work = Attempts(Overloaded(retry_after=2.0))
    await retry(work, RetryPolicy(base=1.0, jitter=lambda: 0.5), sleep=work.sleep)
    assert work.slept == [2.5]
    impatient = Attempts(Overloaded(retry_after=60.0))
    with pytest.raises(Overloaded):
        await retry(impatient, RetryPolicy(patience=30.0), sleep=impatient.sleep)
    assert impatient.made == 1


async def test_cancellation_is_not_retried() -> None:
    """A cancelled attempt ends the retries."""
    work = Attempts(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await retry(work, RetryPolicy(retry_on=lambda _error: True), sleep=work.sleep)
    assert work.made == 1


async def test_each_retry_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An operator sees which attempt failed, with what, and how long the wait is."""
    work = Attempts(ConnectionRefusedError("no one listens"))
    with caplog.at_level(logging.WARNING, logger="actors.resilience"):
        await retry(work, RetryPolicy(base=0.25, jitter=lambda: 1.0), sleep=work.sleep)
    (line,) = caplog.records
    facts = {name: vars(line)[name] for name in ("attempt", "delay", "error")}
    assert (line.getMessage(), facts) == (
        "retrying",
        {"attempt": 1, "delay": 0.25, "error": "ConnectionRefusedError: no one listens"},
    )


def test_a_late_attempt_is_given_up() -> None:
    """An attempt that could not begin before the deadline is not waited for."""
    policy = RetryPolicy(base=1.0, jitter=lambda: 1.0)
    assert policy.delay(1, OSError(), left=0.5) is None
    assert policy.delay(1, OSError()) == 1.0


def test_the_wait_is_bounded() -> None:
    """Also after more attempts than a float has room for."""
    policy = RetryPolicy(attempts=10_000, cap=8.0, jitter=lambda: 1.0)
    assert policy.delay(9_000, OSError()) == 8.0


def test_what_is_temporary() -> None:
    """Errors with a code say so themselves; of the others those of the network are."""
    assert temporary(ProviderError(code="provider_timeout"))
    assert not temporary(ProviderError(code="provider_rejected"))
    assert temporary(BrokenPipeError())
    assert not temporary(KeyError())


@pytest.mark.parametrize(
    "arguments",
    [{"attempts": 0}, {"base": -1.0}, {"cap": -1.0}, {"patience": -1.0}, {"factor": 0.5}, {"factor": math.nan}],
)
def test_a_policy_is_validated(arguments: dict[str, float]) -> None:
    """A number that makes no sense is refused where the policy is made."""
    with pytest.raises(ValueError, match="must"):
        RetryPolicy(**arguments)  # type: ignore[arg-type]
