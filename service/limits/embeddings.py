"""Bounds of embeddings."""

from typing import Final

from actors.embeddings.config import EmbeddingBounds
from actors.embeddings.embedder import EmbedderLimits
from protocol.openai import embeddings as openai_embeddings
from service.limits.bound import CALL, EVERYBODY, PROVIDER, REQUEST, RESERVED, Bound

_EMBEDDINGS: Final = EmbeddingBounds()

BOUNDS: Final = (
    Bound("texts on their way", _EMBEDDINGS.inputs, RESERVED, "the request is refused", "overloaded"),
    Bound("their bytes", _EMBEDDINGS.bytes, RESERVED, "the request is refused", "overloaded", unit="bytes"),
    Bound("texts of a request", openai_embeddings.MAX_INPUTS, REQUEST, "it is refused", "invalid_request"),
    Bound(
        "texts of a call", EmbedderLimits().inputs, CALL, "more go in a further call", setting="embedding_batch_inputs"
    ),
    Bound("calls under way", _EMBEDDINGS.concurrency, PROVIDER, "the next one waits for a place"),
    Bound("calls that wait for a place", _EMBEDDINGS.queue, EVERYBODY, "one more is refused", "provider_overloaded"),
)
