"""The embeddings actor in front of a scripted upstream, on a clock that the test moves."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from actors.embeddings import EmbeddingBounds, EmbeddingsConfig, build_embeddings
from actors.llm_gateway import RetryPolicy
from actors.runtime import Ref
from actors.runtime.testing import TestSystem
from actors.testing import ScriptedUpstream
from protocol.embeddings import Embed

Spawn = Callable[..., Ref[Embed]]


@pytest.fixture
async def system() -> AsyncIterator[TestSystem]:
    """A system whose time stands still."""
    async with TestSystem() as quiet:
        yield quiet


@pytest.fixture
def spawn(system: TestSystem, upstream: ScriptedUpstream) -> Spawn:
    """Start the actor; each keyword is a field of its configuration, or a bound."""

    def start(**changes: Any) -> Ref[Embed]:  # noqa: ANN401 - fields of EmbeddingsConfig and of EmbeddingBounds
        bounds = {name: changes.pop(name) for name in EmbeddingBounds.__struct_fields__ if name in changes}
        fields = {
            "openai_base_url": upstream.openai_url,
            "retry": RetryPolicy(jitter=lambda: 1.0),
            "bounds": EmbeddingBounds(**bounds),
            **changes,
        }
        return system.spawn(build_embeddings(EmbeddingsConfig(**fields)), name="embeddings")

    return start
