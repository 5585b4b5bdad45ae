"""From settings to the actor that embeds."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from actors.embeddings.actor import Bounds, EmbeddingsActor
from actors.embeddings.embedder import ATTEMPT_TIMEOUT, MAX_BATCH_INPUTS, Embedder, Limits
from actors.llm_gateway.provider import CONNECT_TIMEOUT
from actors.llm_gateway.retry import RetryPolicy

OPENAI_URL: Final = "https://api.openai.com/v1"


class EmbeddingsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the actor is made of.

    Attributes:
        llm_provider: the provider that the chat's default model has; where it is one that embeds, it does so too.
        default_model: what ``default`` means: a model of the default provider, or ``provider/model``; empty for the
            provider's own default.
        openai_api_key: empty for none.
        openai_base_url: any OpenAI-compatible address, with its ``/v1``; empty for OpenAI's.
        local_model_path: a GGUF file; None for the installed model.
        batch_inputs: the most texts in one call to an OpenAI-compatible address.
        connect_timeout: seconds until a connection stands.
        attempt_timeout: seconds for one attempt; the local model has as long as the request has.
        bounds: what is allowed.
        retry: when a failed attempt is followed by another.
    """

    llm_provider: str = ""
    default_model: str = ""
    openai_api_key: str = ""
    openai_base_url: str = ""
    local_model_path: Path | None = None
    batch_inputs: int = MAX_BATCH_INPUTS
    connect_timeout: float = CONNECT_TIMEOUT
    attempt_timeout: float = ATTEMPT_TIMEOUT
    bounds: Bounds = Bounds()
    retry: RetryPolicy = RetryPolicy()


def build_embeddings(config: EmbeddingsConfig) -> Callable[[], EmbeddingsActor]:
    """Return what ``System.spawn`` makes the actor from. Every provider that could embed is in it.

    Spawning raises ``ConfigurationError`` where the default model's provider is none of them.
    """

    def make() -> EmbeddingsActor:
        embedders, model = _embedders(config)
        return EmbeddingsActor(embedders, default_model=model, bounds=config.bounds, retry=config.retry)

    return make


def _embedders(config: EmbeddingsConfig) -> tuple[dict[str, Embedder], str]:
    """Return the embedders, and the default model as ``provider/model``."""
    from actors.embeddings import local, openai  # noqa: PLC0415 - aiohttp takes 0.2 s to import
    from actors.llm_gateway.wire.unary import JsonWire  # noqa: PLC0415 - the same

    def wire() -> JsonWire:
        return JsonWire(max_connections=config.bounds.concurrency, connect_timeout=config.connect_timeout)

    own_model = local.LocalEmbedder(wire(), path=config.local_model_path)
    embedders: dict[str, Embedder] = {"local": own_model}
    default, model = "local", own_model.model
    if config.openai_api_key or config.openai_base_url.rstrip("/") not in ("", OPENAI_URL):
        embedders["openai"] = openai.OpenAIEmbedder(
            wire(),
            base_url=config.openai_base_url or OPENAI_URL,
            api_key=config.openai_api_key,
            limits=Limits(inputs=config.batch_inputs, timeout=config.attempt_timeout),
        )
        if config.llm_provider != "local":
            default, model = "openai", openai.DEFAULT_MODEL
    model = config.default_model or model
    prefix, slash, _ = model.partition("/")
    return embedders, model if slash and prefix in ("local", "openai") else f"{default}/{model}"
