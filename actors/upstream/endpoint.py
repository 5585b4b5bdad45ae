"""Endpoint: a service of models, with its concurrency, its retry budget, and the health of its models."""

from functools import partial
from typing import Final

from actors.runtime import Clock
from actors.upstream.admission import Admissible, Admission, AdmissionTerms
from actors.upstream.breaker import Breaker
from actors.upstream.budget import BudgetHold
from actors.upstream.concurrency import ConcurrencyLimiter
from actors.upstream.health import Health
from actors.upstream.operator_log import OperatorLog
from actors.upstream.rate_limit import RateLimitGate
from actors.upstream.retry_budget import RetryBudget
from protocol.gateway import ProviderFault, TargetStatus
from protocol.routes import ProviderSpec

MAX_MODELS: Final = 256  # models of one endpoint whose health is known


class Endpoint:
    """A service of models, and all that bounds the calls to it.

    Args:
        name: its name.
        limiter: bounds its concurrency.
        spec: what it was made from; None for one that is not from the routes.
        url: its base URL, as a log may show it; empty for none.

    Attributes:
        retries: bounds the share of repeated calls.
    """

    __slots__ = ("_health", "_log", "_users", "limiter", "name", "retries", "spec", "url")

    def __init__(
        self, name: str, limiter: ConcurrencyLimiter, spec: ProviderSpec | None = None, *, url: str = ""
    ) -> None:
        self.name = name
        self.limiter = limiter
        self.spec = spec
        self.url = url
        self.retries = RetryBudget()
        self._users = 0
        self._log = OperatorLog(name)
        self._health: dict[str, Health] = {}

    @property
    def fault(self) -> ProviderFault | None:
        """What only the operator can mend, until a call succeeds; None for nothing."""
        return self._log.fault

    @property
    def idle(self) -> bool:
        """Whether no request has it among its targets."""
        return not self._users

    def hold(self) -> None:
        """Count a request that has it among its targets."""
        self._users += 1

    def release(self) -> None:
        """Count a request off."""
        self._users -= 1

    def admit(self, candidate: Admissible, terms: AdmissionTerms, hold: BudgetHold | None = None) -> Admission:
        """Return the admission of one call to ``candidate``, a model of this endpoint: an async context manager."""
        return Admission(self.limiter, candidate, terms, hold)

    def health(self, model: str, clock: Clock) -> Health:
        """Return the health of ``model``.

        When too many are known, the oldest one with a closed breaker is forgotten; where none is closed, the one that
        closes first.
        """
        health = self._health.get(model)
        if health is None:
            if len(self._health) >= MAX_MODELS:
                del self._health[self._forgettable()]
            name = f"{self.name}/{model}"
            gate = RateLimitGate(name, clock, queue=self.limiter.queue)
            health = self._health[model] = Health(
                Breaker(name, clock), gate, partial(self._log.report, model), self._log.clear
            )
        return health

    def targets(self, now: float) -> tuple[TargetStatus, ...]:
        """Return the status of each model that something keeps calls from."""
        statuses = (health.status(model, now) for model, health in self._health.items())
        return tuple(status for status in statuses if status is not None)

    @property
    def queued(self) -> int:
        """How many calls wait: for a place, or for room in a rate limit."""
        return self.limiter.queued + sum(health.gate.queued for health in self._health.values())

    def _forgettable(self) -> str:
        for model, health in self._health.items():
            if health.breaker.state == "closed":
                return model
        return min(self._health, key=lambda model: self._health[model].breaker.wait or 0.0)
