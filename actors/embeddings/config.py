"""The configuration of embeddings: values and their defaults. Importing it loads no embedder and no HTTP client."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from actors.embeddings.embedder import EmbedderLimits
from actors.resilience.retry import RetryPolicy
from protocol.routes import Routes
from protocol.upstream import CONNECT_TIMEOUT


class EmbeddingBounds(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of the actor.

    Attributes:
        window: seconds for which the first text of a batch waits for others.
        concurrency: calls in flight at once, for each embedder.
        queue: calls that may wait for a free slot, for each embedder.
        total: seconds for a batch whose callers allow more.
        inputs: texts in flight at once, the waiting ones included.
        bytes: their bytes.
        cache_bytes: bytes of vectors that are kept; 0 keeps none.
    """

    window: float = 0.003
    concurrency: int = 16
    queue: int = 256
    total: float = 120.0
    inputs: int = 32_768
    bytes: int = 64 * 1024 * 1024
    cache_bytes: int = 64 * 1024 * 1024


class EmbeddingsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of the actor.

    Attributes:
        llm_provider: the provider of the chat's default model; where it is one that embeds, it is the default here too.
        default_model: what ``default`` means: an alias, a model of the default provider, or ``provider/model``; empty
            for the provider's own default.
        openai_api_key: empty for none.
        openai_base_url: any OpenAI-compatible address, with its ``/v1``; empty for OpenAI's.
        local_model_path: a GGUF file; None for the installed model.
        routes: its aliases for embeddings, and its providers: those of kind ``openai`` embed too, under their names;
            one called ``openai`` replaces the one that the key and the address above make.
        secrets: returns the value of an environment variable, for the providers' keys.
        connect_timeout: seconds until a connection stands.
        limits: the bounds of one call to an OpenAI-compatible address.
        bounds: the bounds of the actor.
        retry: when a failed attempt is followed by another.
    """

    llm_provider: str = ""
    default_model: str = ""
    openai_api_key: str = ""
    openai_base_url: str = ""
    local_model_path: Path | None = None
    routes: Routes = Routes()
    secrets: Callable[[str], str | None] = os.environ.get
    connect_timeout: float = CONNECT_TIMEOUT
    limits: EmbedderLimits = EmbedderLimits()
    bounds: EmbeddingBounds = EmbeddingBounds()
    retry: RetryPolicy = RetryPolicy()
