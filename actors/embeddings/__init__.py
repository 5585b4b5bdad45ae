"""EmbeddingsActor: from texts to vectors, in batches, each text once."""

from actors.embeddings.actor import Bounds, EmbeddingsActor
from actors.embeddings.embedder import Embedder, Limits
from actors.embeddings.factory import EmbeddingsConfig, build_embeddings

__all__ = [
    "Bounds",
    "Embedder",
    "EmbeddingsActor",
    "EmbeddingsConfig",
    "Limits",
    "build_embeddings",
]
