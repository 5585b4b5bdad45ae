"""EmbeddingsActor: from texts to vectors, in batches, each text once."""

from actors.embeddings.actor import TOTAL_TIMEOUT, Bounds, EmbeddingsActor
from actors.embeddings.embedder import Embedder, Limits
from actors.embeddings.factory import EmbeddingsConfig, build_embeddings

__all__ = [
    "TOTAL_TIMEOUT",
    "Bounds",
    "Embedder",
    "EmbeddingsActor",
    "EmbeddingsConfig",
    "Limits",
    "build_embeddings",
]
