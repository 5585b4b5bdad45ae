"""EmbeddingsActor: turns texts into vectors, in batches, each text once."""

from actors.embeddings.actor import EmbeddingBounds, EmbeddingsActor
from actors.embeddings.embedder import Embedder, EmbedderLimits
from actors.embeddings.factory import EmbeddingsConfig, build_embeddings

__all__ = [
    "Embedder",
    "EmbedderLimits",
    "EmbeddingBounds",
    "EmbeddingsActor",
    "EmbeddingsConfig",
    "build_embeddings",
]
