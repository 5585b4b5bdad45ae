"""The health of an endpoint's models, and which of them is forgotten."""

import pytest

from actors.llm_gateway.provider_endpoint import ProviderEndpoint
from actors.runtime.testing import ManualClock
from actors.upstream.breaker import IN_A_ROW, OPEN_SECONDS
from actors.upstream.concurrency import ConcurrencyLimiter
from actors.upstream.endpoint import MAX_MODELS
from actors.upstream.rate_limit import Permit
from protocol.gateway import TargetStatus
from protocol.upstream import Allowance
from tests.actors.llm_gateway.test_routing import Named


@pytest.fixture
def clock() -> ManualClock:
    """A clock that the test moves."""
    return ManualClock()


@pytest.fixture
def endpoint() -> ProviderEndpoint:
    """An endpoint without known models."""
    return ProviderEndpoint(Named("p"), ConcurrencyLimiter("p", concurrency=1, queue=1))


def lose(endpoint: ProviderEndpoint, clock: ManualClock, model: str) -> None:
    """Let every call to ``model`` fail until its breaker opens."""
    breaker = endpoint.health(model, clock).breaker
    for _ in range(IN_A_ROW):
        breaker.leave(breaker.enter() or 0, good=False)


def test_the_longest_known_is_forgotten_but_not_while_it_is_left_alone(
    endpoint: ProviderEndpoint, clock: ManualClock
) -> None:
    """Hundreds of other names do not make a model with an open breaker look well."""
    lose(endpoint, clock, "down")
    health = endpoint.health("well", clock)
    for number in range(MAX_MODELS):
        endpoint.health(f"other-{number}", clock)
    assert [status.model for status in endpoint.targets(clock.time())] == ["down"]
    assert endpoint.health("well", clock) is not health
    assert len(endpoint._health) == MAX_MODELS


def test_where_all_are_left_alone_the_one_that_comes_back_first_is_forgotten(
    endpoint: ProviderEndpoint, clock: ManualClock
) -> None:
    """Its state is lost for the shortest time."""
    lose(endpoint, clock, "soon")
    for number in range(1, MAX_MODELS):
        clock.step(clock.time() + OPEN_SECONDS / (2 * MAX_MODELS))
        lose(endpoint, clock, f"model-{number}")
    endpoint.health("new", clock)
    known = {status.model for status in endpoint.targets(clock.time())}
    assert len(known) == MAX_MODELS - 1
    assert "soon" not in known


def test_what_keeps_a_target_from_being_asked_can_be_seen(endpoint: ProviderEndpoint, clock: ManualClock) -> None:
    """Its breaker, its cool-down and its rate limit, each with its seconds."""
    lose(endpoint, clock, "lost")
    endpoint.health("cool", clock).cools_until = 5.0
    endpoint.health("busy", clock).gate.learn(Permit(), (Allowance("calls", 0, 0, 7.0),))
    endpoint.health("well", clock)
    clock.step(1.0)
    assert endpoint.targets(1.0) == (
        TargetStatus(model="lost", state="open", retry=OPEN_SECONDS - 1),
        TargetStatus(model="cool", cools=4.0),
        TargetStatus(model="busy", limited=6.0),
    )
    clock.step(OPEN_SECONDS)
    assert endpoint.targets(OPEN_SECONDS) == (TargetStatus(model="lost", state="half-open"),)
