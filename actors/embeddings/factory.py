"""Builds the embeddings actor and its embedders from an ``EmbeddingsConfig``."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from actors.embeddings.actor import EmbeddingsActor
from actors.embeddings.config import EmbeddingsConfig
from actors.embeddings.embedder import Embedder
from actors.fair_shares import Tenants
from actors.ledger import MemoryLedger
from protocol.errors import ConfigurationError, FieldError
from protocol.ledger import Ledger
from protocol.nearest import nearest
from protocol.routes import ProviderSpec
from protocol.upstream import BASE_URLS, without_key

if TYPE_CHECKING:
    from actors.wire.unary import JsonWire

OPENAI_URL: Final = BASE_URLS["openai"]


def build_embeddings(
    config: EmbeddingsConfig, *, ledger: Ledger | None = None, tenants: Tenants | None = None
) -> Callable[[], EmbeddingsActor]:
    """Return a function for ``System.spawn`` that makes the actor of every provider that embeds.

    Args:
        config: the configuration.
        ledger: counts what accounts spend; None for one in memory, which outlives a restart of the actor.
        tenants: share the bounds; None for any tenants.

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
            tenants=tenants,
            retry=config.retry,
            ledger=shared_ledger,
        )

    return make


def _embedders(config: EmbeddingsConfig) -> tuple[dict[str, Embedder], str]:
    """Return the embedders, and the default model as ``provider/model``.

    Raises:
        ConfigurationError: no provider can have the default model.
    """
    from actors.embeddings import local, openai  # noqa: PLC0415 - imported only where an actor is made

    own_model = local.LocalEmbedder(_wire(config), path=config.local_model_path)
    embedders: dict[str, Embedder] = {"local": own_model}
    default, model = "local", own_model.model
    if config.openai_api_key or config.openai_base_url.rstrip("/") not in ("", OPENAI_URL):
        embedders["openai"] = openai.OpenAIEmbedder(
            _wire(config),
            base_url=config.openai_base_url or OPENAI_URL,
            api_key=config.openai_api_key,
            limits=config.limits,
        )
    named = {name for name, spec in config.routes.providers.items() if spec.kind == "openai"}
    if "openai" in embedders.keys() | named and config.llm_provider != "local":
        default, model = "openai", openai.DEFAULT_MODEL
    model = config.default_model or model
    prefix, slash, _ = model.partition("/")
    providers = embedders.keys() | named
    known = model in config.routes.embeddings or (slash and prefix in providers)
    if not known and slash and default not in named and config.openai_base_url.rstrip("/") in ("", OPENAI_URL):
        hint = without_key(prefix) or nearest(prefix, providers)
        message = f"there is no provider {prefix!r} that embeds; there are: {', '.join(sorted(providers))}{hint}"
        raise ConfigurationError.of((FieldError("DEFAULT_EMBEDDING_MODEL", f"{model[:80]!r}: {message}"),))
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
        limits=msgspec.structs.replace(config.limits, concurrency=spec.concurrency, queue=spec.queue),
        name=name,
        price_id=spec.price_id,
    )


def _wire(config: EmbeddingsConfig) -> "JsonWire":
    from actors.wire.unary import JsonWire  # noqa: PLC0415 - as in _embedders

    return JsonWire(max_connections=0, connect_timeout=config.connect_timeout)


def _key(config: EmbeddingsConfig, name: str, spec: ProviderSpec) -> str:
    key = config.secrets(spec.api_key_env) if spec.api_key_env else ""
    if key is None:
        raise ConfigurationError(f"providers.{name}.api_key_env: {spec.api_key_env} is not set")
    return key
