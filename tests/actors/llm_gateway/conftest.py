"""A gateway in front of a scripted upstream, on a clock that the test moves."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from actors.llm_gateway import GatewayConfig, GatewayLimits, ProviderDeadlines, RetryPolicy, build_gateway
from actors.runtime import Ref
from actors.runtime.testing import TestSystem
from actors.testing import ScriptedUpstream, say
from protocol.gateway import Complete, GetProviders, ListModels

Gateway = Ref[Complete | ListModels | GetProviders]


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark of tests that load the real model."""
    config.addinivalue_line("markers", "local: loads the real local model")


@pytest.fixture
async def second() -> AsyncIterator[ScriptedUpstream]:
    """Another upstream, which answers well."""
    async with ScriptedUpstream() as scripted:
        scripted.default = say("from the second")
        yield scripted


@pytest.fixture
async def system() -> AsyncIterator[TestSystem]:
    """A system whose time stands still."""
    async with TestSystem() as quiet:
        yield quiet


@pytest.fixture
def spawn(system: TestSystem, upstream: ScriptedUpstream) -> Callable[..., Gateway]:
    """Start a gateway in front of the upstream, in OpenAI's dialect by default."""

    def start(**changes: Any) -> Gateway:  # noqa: ANN401 - fields of GatewayConfig, GatewayLimits and ProviderDeadlines
        limits = {name: changes.pop(name) for name in GatewayLimits.__struct_fields__ if name in changes}
        deadlines = {name: changes.pop(name) for name in ProviderDeadlines.__struct_fields__ if name in changes}
        fields = {
            "openai_base_url": upstream.openai_url,
            "anthropic_base_url": upstream.anthropic_url,
            "llm_provider": "openai",
            "default_model": "gpt-4o-mini",
            "retry": RetryPolicy(jitter=lambda: 1.0),
            "limits": GatewayLimits(**limits),
            "deadlines": ProviderDeadlines(**{"first_token": 20.0, "between_chunks": 10.0, **deadlines}),
            **changes,
        }
        return system.spawn(build_gateway(GatewayConfig(**fields)), name="llm-gateway")

    return start
