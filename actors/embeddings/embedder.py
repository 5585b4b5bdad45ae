"""Interface of an embedder, and the bounds of its calls."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from protocol.embeddings import Input, Vectors

MAX_BATCH_INPUTS: Final = 512
MAX_BATCH_BYTES: Final = 262_144  # even at a token a byte, within OpenAI's 300,000 tokens a call
ATTEMPT_TIMEOUT: Final = 30.0  # seconds


class EmbedderLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the calls to an embedder.

    Attributes:
        inputs: the most inputs of one call.
        bytes: the most bytes of UTF-8 of one call, unless one input alone has more; four for a token.
        timeout: seconds for one attempt; None for as long as the request has.
        concurrency: calls under way at once; None for the actor's default.
        queue: calls that may wait for a place; None for the actor's default.
    """

    inputs: int = MAX_BATCH_INPUTS
    bytes: int = MAX_BATCH_BYTES
    timeout: float | None = ATTEMPT_TIMEOUT
    concurrency: int | None = None
    queue: int | None = None


class BatchKey(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a call: inputs with equal ones may share a batch.

    Attributes:
        targets: the targets in their order, each as ``provider/model``.
        dimensions: the length of each vector; None for the model's own.
        extra: further fields for the upstream, encoded.
        tokens: whether the inputs are tokens: an upstream takes no texts beside them.
    """

    targets: tuple[str, ...]
    dimensions: int | None = None
    extra: bytes = b""
    tokens: bool = False


class Embedder(Protocol):
    """A service that turns texts into vectors. All its failures are ``ProviderError``.

    Attributes:
        name: its name in ``name/model`` and in spans.
        limits: the bounds of its calls.
        models: the models that it lists; it may accept more.
        price_id: its name in the price list; empty for none.
        base_url: the address, as a log may show it; empty for a model on this machine.
    """

    name: str
    limits: EmbedderLimits
    models: tuple[str, ...]
    price_id: str
    base_url: str

    async def open(self) -> None:
        """Get ready, without waiting for anything slow. Idempotent."""

    async def close(self) -> None:
        """Close all connections, at once. Idempotent."""

    def accepts(self, model: str) -> bool:
        """Whether it serves ``model``."""

    async def embed(
        self,
        inputs: tuple[Input, ...],
        model: str,
        dimensions: int | None,
        extra: Mapping[str, Any],
        headers: Mapping[str, str],
    ) -> Vectors:
        """Return a vector for each input; a cancellation closes the upstream socket at once.

        Raises:
            ProviderError: the attempt failed; it is not repeated here.
        """
