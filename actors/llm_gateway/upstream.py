"""A provider with all that is kept beside it: who may call it, and how its models have done lately."""

from typing import Final

from actors.llm_gateway.admission import Lane
from actors.llm_gateway.breaker import Breaker
from actors.llm_gateway.budget import RetryBudget
from actors.llm_gateway.provider import Provider
from actors.runtime import Clock
from protocol.routes import ProviderSpec

MAX_MODELS: Final = 256  # models of one provider whose health is known; the one known longest is forgotten first


class Health:
    """How a target has done lately.

    Attributes:
        breaker: whether it is worth asking.
        cools_until: it asked not to be called until then; others are asked first.
    """

    __slots__ = ("breaker", "cools_until")

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self.cools_until = float("-inf")


class Upstream:
    """A provider, its lane, its budget of repeated calls, and the health of its models.

    Args:
        provider: who answers.
        lane: who may call.
        spec: what it was made from; None for one that is not from the routes.

    Attributes:
        retries: how many calls may be repeated ones.
        retired: whether new routes have done away with it.
    """

    __slots__ = ("_health", "_users", "lane", "provider", "retired", "retries", "spec")

    def __init__(self, provider: Provider, lane: Lane, spec: ProviderSpec | None = None) -> None:
        self.provider = provider
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
        """Return how ``model`` has done lately."""
        health = self._health.get(model)
        if health is None:
            if len(self._health) >= MAX_MODELS:
                del self._health[next(iter(self._health))]
            health = self._health[model] = Health(Breaker(f"{self.provider.name}/{model}", clock))
        return health
