"""Whoever serves models, with all that is kept beside: who may call, and how the models have done lately."""

from typing import Final

from actors.runtime import Clock
from actors.upstream.breaker import Breaker
from actors.upstream.concurrency import Lane
from actors.upstream.rate_limit import RateWindow
from actors.upstream.retry_budget import RetryBudget
from protocol.gateway import TargetStatus
from protocol.routes import ProviderSpec

MAX_MODELS: Final = 256  # models of one provider whose health is known


class Health:
    """How a target has done lately.

    Attributes:
        breaker: whether it is worth asking.
        cools_until: it asked not to be called until then; others are asked first.
        window: what its rate limit has room for.
    """

    __slots__ = ("breaker", "cools_until", "window")

    def __init__(self, breaker: Breaker, window: RateWindow) -> None:
        self.breaker = breaker
        self.cools_until = float("-inf")
        self.window = window

    def status(self, model: str, now: float) -> TargetStatus | None:
        """Return how it is; None where it is simply asked."""
        cools, limited = max(0.0, self.cools_until - now), self.window.wait
        if self.breaker.state == "closed" and not cools and not limited:
            return None
        return TargetStatus(
            model=model, state=self.breaker.state, retry=self.breaker.wait or 0.0, cools=cools, limited=limited
        )


class Station:
    """What is kept beside whoever serves models: the lane, the budget of repeated calls, the models' health.

    Args:
        name: theirs.
        lane: who may call.
        spec: what they were made from; None for one that is not from the routes.

    Attributes:
        retries: how many calls may be repeated ones.
        retired: whether new routes have done away with it.
    """

    __slots__ = ("_health", "_users", "lane", "name", "retired", "retries", "spec")

    def __init__(self, name: str, lane: Lane, spec: ProviderSpec | None = None) -> None:
        self.name = name
        self.lane = lane
        self.spec = spec
        self.retries = RetryBudget()
        self.retired = False
        self._users = 0
        self._health: dict[str, Health] = {}

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

    def health(self, model: str, clock: Clock) -> Health:
        """Return how ``model`` has done lately.

        When too many are known, the one is forgotten that has been known longest and is not left alone; where all are,
        the one that is left alone for the shortest time.
        """
        health = self._health.get(model)
        if health is None:
            if len(self._health) >= MAX_MODELS:
                del self._health[self._forgettable()]
            name = f"{self.name}/{model}"
            window = RateWindow(name, clock, queue=self.lane.queue)
            health = self._health[model] = Health(Breaker(name, clock), window)
        return health

    def targets(self, now: float) -> tuple[TargetStatus, ...]:
        """Return how those models are that are not simply asked."""
        statuses = (health.status(model, now) for model, health in self._health.items())
        return tuple(status for status in statuses if status is not None)

    @property
    def queued(self) -> int:
        """How many calls wait: for a place, or for room in a rate limit."""
        return self.lane.queued + sum(health.window.queued for health in self._health.values())

    def _forgettable(self) -> str:
        for model, health in self._health.items():
            if health.breaker.state == "closed":
                return model
        return min(self._health, key=lambda model: self._health[model].breaker.wait or 0.0)
