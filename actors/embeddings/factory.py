"""From settings to the actor that embeds."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from actors.embeddings.actor import Bounds, EmbeddingsActor
from actors.embeddings.embedder import ATTEMPT_TIMEOUT, MAX_BATCH_INPUTS, Embedder, Limits
from actors.llm_gateway.provider import CONNECT_TIMEOUT
from actors.llm_gateway.retry import RetryPolicy
from protocol.errors import ConfigurationError
from protocol.routes import ProviderSpec

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
        providers: those of kind ``openai`` embed too, under their names; one called ``openai`` takes the place of the
            one that the key and the address above make.
        secrets: returns the value of an environment variable, for their keys.
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
    providers: Mapping[str, ProviderSpec] = msgspec.field(default_factory=dict)
    secrets: Callable[[str], str | None] = os.environ.get
    batch_inputs: int = MAX_BATCH_INPUTS
    connect_timeout: float = CONNECT_TIMEOUT
    attempt_timeout: float = ATTEMPT_TIMEOUT
    bounds: Bounds = Bounds()
    retry: RetryPolicy = RetryPolicy()


def build_embeddings(config: EmbeddingsConfig) -> Callable[[], EmbeddingsActor]:
    """Return what ``System.spawn`` makes the actor from. Every provider that could embed is in it.

    Spawning raises ``ConfigurationError`` where the key of a named provider is not set.
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
        return JsonWire(max_connections=0, connect_timeout=config.connect_timeout)

    own_model = local.LocalEmbedder(wire(), path=config.local_model_path)
    embedders: dict[str, Embedder] = {"local": own_model}
    default, model = "local", own_model.model
    limits = Limits(inputs=config.batch_inputs, timeout=config.attempt_timeout)
    if config.openai_api_key or config.openai_base_url.rstrip("/") not in ("", OPENAI_URL):
        embedders["openai"] = openai.OpenAIEmbedder(
            wire(), base_url=config.openai_base_url or OPENAI_URL, api_key=config.openai_api_key, limits=limits
        )
    for name, spec in config.providers.items():
        if spec.kind == "openai":
            embedders[name] = openai.OpenAIEmbedder(
                wire(),
                base_url=spec.base_url or OPENAI_URL,
                api_key=_key(config, name, spec),
                models=spec.models,
                limits=msgspec.structs.replace(limits, concurrency=spec.concurrency, queue=spec.queue),
                name=name,
            )
    if "openai" in embedders and config.llm_provider != "local":
        default, model = "openai", openai.DEFAULT_MODEL
    model = config.default_model or model
    prefix, slash, _ = model.partition("/")
    return embedders, model if slash and prefix in embedders else f"{default}/{model}"


def _key(config: EmbeddingsConfig, name: str, spec: ProviderSpec) -> str:
    key = config.secrets(spec.api_key_env) if spec.api_key_env else ""
    if key is None:
        raise ConfigurationError(f"providers.{name}.api_key_env: {spec.api_key_env} is not set")
    return key
