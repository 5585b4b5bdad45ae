"""Builds the embeddings actor and its embedders from an ``EmbeddingsConfig``."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from actors.embeddings.actor import EmbeddingBounds, EmbeddingsActor
from actors.embeddings.embedder import ATTEMPT_TIMEOUT, MAX_BATCH_INPUTS, Embedder, EmbedderLimits
from actors.ledger import MemoryLedger
from actors.upstream.retry import RetryPolicy
from protocol.errors import ConfigurationError
from protocol.ledger import Ledger
from protocol.routes import ProviderSpec, Routes
from protocol.upstream import CONNECT_TIMEOUT

if TYPE_CHECKING:
    from actors.wire.unary import JsonWire

OPENAI_URL: Final = "https://api.openai.com/v1"


class EmbeddingsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Configuration of the actor.

    Attributes:
        llm_provider: the provider of the chat's default model; where it also embeds, it is the default here too.
        default_model: the target of ``default``: an alias, a model of the default provider, or ``provider/model``;
            empty for the provider's own default.
        openai_api_key: empty for none.
        openai_base_url: any OpenAI-compatible address, with its ``/v1``; empty for OpenAI's.
        local_model_path: a GGUF file; None for the installed model.
        routes: aliases of embedding models, and further providers: those of kind ``openai`` embed too, under their
            names; one called ``openai`` replaces the provider that the key and the address above make.
        secrets: returns the value of an environment variable, for their keys.
        batch_inputs: the most texts in one call to an OpenAI-compatible address.
        connect_timeout: seconds until a connection is established.
        attempt_timeout: seconds for one attempt; the local model has as long as the request has.
        bounds: the actor's bounds.
        retry: when a failed attempt is followed by another.
    """

    llm_provider: str = ""
    default_model: str = ""
    openai_api_key: str = ""
    openai_base_url: str = ""
    local_model_path: Path | None = None
    routes: Routes = Routes()
    secrets: Callable[[str], str | None] = os.environ.get
    batch_inputs: int = MAX_BATCH_INPUTS
    connect_timeout: float = CONNECT_TIMEOUT
    attempt_timeout: float = ATTEMPT_TIMEOUT
    bounds: EmbeddingBounds = EmbeddingBounds()
    retry: RetryPolicy = RetryPolicy()


def build_embeddings(config: EmbeddingsConfig, *, ledger: Ledger | None = None) -> Callable[[], EmbeddingsActor]:
    """Return a function for ``System.spawn`` that makes the actor of every provider that embeds.

    Args:
        config: the configuration.
        ledger: counts what accounts spend; None for one in memory, which outlives a restart of the actor.

    Spawning raises ``ConfigurationError`` where the key of a named provider is not set.
    """
    shared_ledger = ledger or MemoryLedger()

    def make() -> EmbeddingsActor:
        embedders, model = _embedders(config)
        return EmbeddingsActor(
            embedders,
            default_model=model,
            routes=config.routes,
            make_embedder=partial(_named, config),
            bounds=config.bounds,
            retry=config.retry,
            ledger=shared_ledger,
        )

    return make


def _embedders(config: EmbeddingsConfig) -> tuple[dict[str, Embedder], str]:
    """Return the embedders, and the default model as ``provider/model``."""
    from actors.embeddings import local, openai  # noqa: PLC0415 - imported only where an actor is made

    own_model = local.LocalEmbedder(_wire(config), path=config.local_model_path)
    embedders: dict[str, Embedder] = {"local": own_model}
    default, model = "local", own_model.model
    if config.openai_api_key or config.openai_base_url.rstrip("/") not in ("", OPENAI_URL):
        embedders["openai"] = openai.OpenAIEmbedder(
            _wire(config),
            base_url=config.openai_base_url or OPENAI_URL,
            api_key=config.openai_api_key,
            limits=_limits(config),
        )
    named = {name for name, spec in config.routes.providers.items() if spec.kind == "openai"}
    if "openai" in embedders.keys() | named and config.llm_provider != "local":
        default, model = "openai", openai.DEFAULT_MODEL
    model = config.default_model or model
    prefix, slash, _ = model.partition("/")
    known = model in config.routes.embeddings or (slash and prefix in embedders.keys() | named)
    return embedders, model if known else f"{default}/{model}"


def _named(config: EmbeddingsConfig, name: str, spec: ProviderSpec) -> Embedder | None:
    """Return a provider that the routes name; None for one of a kind that does not embed."""
    from actors.embeddings import openai  # noqa: PLC0415 - as in _embedders

    if spec.kind != "openai":
        return None
    return openai.OpenAIEmbedder(
        _wire(config),
        base_url=spec.base_url or OPENAI_URL,
        api_key=_key(config, name, spec),
        models=spec.models,
        limits=msgspec.structs.replace(_limits(config), concurrency=spec.concurrency, queue=spec.queue),
        name=name,
        price_id=spec.price_id,
    )


def _wire(config: EmbeddingsConfig) -> "JsonWire":
    from actors.wire.unary import JsonWire  # noqa: PLC0415 - as in _embedders

    return JsonWire(max_connections=0, connect_timeout=config.connect_timeout)


def _limits(config: EmbeddingsConfig) -> EmbedderLimits:
    return EmbedderLimits(inputs=config.batch_inputs, timeout=config.attempt_timeout)


def _key(config: EmbeddingsConfig, name: str, spec: ProviderSpec) -> str:
    key = config.secrets(spec.api_key_env) if spec.api_key_env else ""
    if key is None:
        raise ConfigurationError(f"providers.{name}.api_key_env: {spec.api_key_env} is not set")
    return key
