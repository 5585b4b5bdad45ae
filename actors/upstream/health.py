"""Health of one target: its breaker, its rate limit and its cool-down."""

from collections.abc import Callable
from typing import Final

from actors.upstream.breaker import Breaker
from actors.upstream.rate_limit import RateLimitGate
from actors.upstream.retry import FAULTS
from protocol.errors import ProviderError
from protocol.gateway import TargetStatus

COOL_DOWN: Final = (
    5.0  # seconds for which a target that limits our rate is called last, where it gives no ``retry-after``
)


class Health:
    """What recent calls to a target have shown.

    Args:
        report: called with each failure and the time, for the log; None for no log.
        answered: called with each success; None for nobody.

    Attributes:
        breaker: whether calls are let through.
        cools_until: until when the target asked not to be called; other targets are called first.
        gate: what its rate limit has room for.
    """

    __slots__ = ("_answered", "_report", "breaker", "cools_until", "gate")

    def __init__(
        self,
        breaker: Breaker,
        gate: RateLimitGate,
        report: Callable[[ProviderError, float], None] | None = None,
        answered: Callable[[], None] | None = None,
    ) -> None:
        self.breaker = breaker
        self.cools_until = float("-inf")
        self.gate = gate
        self._report = report
        self._answered = answered

    def count_success(self) -> None:
        """Note that a call has succeeded: what its operator had to mend is mended."""
        if self._answered is not None:
            self._answered()

    def count_failure(self, error: ProviderError, now: float) -> bool | None:
        """Start a cool-down where ``error`` asks for one, and report it; return the outcome for the breaker.

        Returns:
            False for a failure of the target; None for one that says nothing about it, as the request may be at fault.
        """
        if self._report is not None:
            self._report(error, now)
        wait = error.retry_after
        if wait is None and error.code == "provider_rate_limited":
            wait = COOL_DOWN
        if wait is not None:
            self.cools_until = now + wait
        return False if error.code in FAULTS else None

    def status(self, model: str, now: float) -> TargetStatus | None:
        """Return the status of ``model``; None where nothing keeps calls from it."""
        cools, limited = max(0.0, self.cools_until - now), self.gate.wait
        if self.breaker.state == "closed" and not cools and not limited:
            return None
        return TargetStatus(
            model=model, state=self.breaker.state, retry=self.breaker.wait or 0.0, cools=cools, limited=limited
        )
