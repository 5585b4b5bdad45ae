import asyncio

import pytest

from actors.embeddings import EmbeddingBounds, EmbeddingsConfig, build_embeddings
from actors.embeddings.factory import _embedders, _named
from actors.runtime.testing import TestSystem as HeldSystem  # by another name pytest does not collect it
from actors.testing import ScriptedUpstream
from protocol.embeddings import Embed
from protocol.errors import ConfigurationError, NotFound
from protocol.routes import ProviderSpec, Routes


@pytest.mark.parametrize(
    ("config", "default"),
    [
        (EmbeddingsConfig(), "local/smollm2"),
        (EmbeddingsConfig(llm_provider="anthropic"), "local/smollm2"),
        (EmbeddingsConfig(openai_api_key="k"), "openai/text-embedding-3-small"),
        (EmbeddingsConfig(openai_api_key="k", llm_provider="anthropic"), "openai/text-embedding-3-small"),
        (EmbeddingsConfig(openai_api_key="k", llm_provider="local"), "local/smollm2"),
        (EmbeddingsConfig(openai_base_url="http://x/v1", default_model="BAAI/bge-m3"), "openai/BAAI/bge-m3"),
        (EmbeddingsConfig(openai_api_key="k", default_model="local/smollm2"), "local/smollm2"),
        (EmbeddingsConfig(routes=Routes(providers={"o": ProviderSpec(kind="openai")}), default_model="o/m"), "o/m"),
    ],
)
def test_what_default_means(config: EmbeddingsConfig, default: str) -> None:
    """OpenAI's model where OpenAI is configured and the operator has not chosen the local one."""
    assert _embedders(config)[1] == default


async def test_a_named_provider_embeds(upstream: ScriptedUpstream) -> None:
    """It has its own key, models and bounds; one of another dialect does not embed."""
    spec = ProviderSpec(
        kind="openai", base_url=upstream.openai_url, api_key_env="KEY", models=("m",), concurrency=1, queue=0
    )
    routes = Routes(providers={"mine": spec, "other": ProviderSpec(kind="anthropic")})
    config = EmbeddingsConfig(routes=routes, secrets={"KEY": "secret"}.get)
    async with HeldSystem() as system:
        embeddings = system.spawn(build_embeddings(config), name="embeddings")
        for model in ("mine/other", "other/m"):
            with pytest.raises(NotFound):
                await embeddings.ask(Embed(model=model, inputs=("a",)), timeout=5)
        mine = asyncio.ensure_future(embeddings.ask(Embed(model="mine/m", inputs=("a",)), timeout=5))
        await system.advance(EmbeddingBounds().window)
        await mine
    assert upstream.received[0].headers["authorization"] == "Bearer secret"
    embedder = _named(config, "mine", spec)
    assert embedder is not None
    assert (embedder.limits.concurrency, embedder.limits.queue) == (1, 0)


def test_a_key_that_is_not_set() -> None:
    """The error names the variable."""
    nothing: dict[str, str] = {}
    routes = Routes(providers={"mine": ProviderSpec(kind="openai", api_key_env="KEY")})
    config = EmbeddingsConfig(routes=routes, secrets=nothing.get)
    with pytest.raises(ConfigurationError, match=r"providers.mine.api_key_env: KEY is not set"):
        build_embeddings(config)()
