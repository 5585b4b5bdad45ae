"""EmbeddingsActor: from texts to vectors, in batches, each text once.

A name's module is imported when the name is used first, so that a configuration loads no embedder.
"""

from typing import TYPE_CHECKING

from actors.lazy import lazy

if TYPE_CHECKING:
    from actors.embeddings.actor import EmbeddingsActor
    from actors.embeddings.config import EmbeddingBounds, EmbeddingsConfig
    from actors.embeddings.embedder import Embedder, EmbedderLimits
    from actors.embeddings.factory import build_embeddings

__all__ = [
    "Embedder",
    "EmbedderLimits",
    "EmbeddingBounds",
    "EmbeddingsActor",
    "EmbeddingsConfig",
    "build_embeddings",
]

__getattr__ = lazy(
    __name__,
    {
        "actors.embeddings.actor": ("EmbeddingsActor",),
        "actors.embeddings.config": ("EmbeddingBounds", "EmbeddingsConfig"),
        "actors.embeddings.embedder": ("Embedder", "EmbedderLimits"),
        "actors.embeddings.factory": ("build_embeddings",),
    },
)
