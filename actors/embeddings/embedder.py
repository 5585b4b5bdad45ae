"""What an embedder is to the actor: somebody who turns a batch of texts into vectors."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from protocol.embeddings import Input, Vectors

MAX_BATCH_INPUTS: Final = 512
MAX_BATCH_BYTES: Final = 262_144  # even at a token a byte, within OpenAI's 300,000 tokens a call
ATTEMPT_TIMEOUT: Final = 30.0  # seconds


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one call of an embedder may hold, how long it may take, and how many there may be.

    Attributes:
        inputs: the most inputs.
        bytes: the most bytes of UTF-8, unless one input alone has more; four for a token.
        timeout: seconds for one attempt; None for as long as the request has.
        concurrency: calls under way at once; None for what every embedder has.
        queue: calls that may wait for a place; None for what every embedder has.
    """

    inputs: int = MAX_BATCH_INPUTS
    bytes: int = MAX_BATCH_BYTES
    timeout: float | None = ATTEMPT_TIMEOUT
    concurrency: int | None = None
    queue: int | None = None


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What inputs have to agree in to go into one call.

    Attributes:
        targets: who is asked, each as ``provider/model``: vectors of one list are all of one model.
        dimensions: the length of each vector; None for the model's own.
        extra: further fields for the upstream, encoded.
        tokens: whether the inputs are tokens: an upstream takes no texts beside them.
    """

    targets: tuple[str, ...]
    dimensions: int | None = None
    extra: bytes = b""
    tokens: bool = False


class Embedder(Protocol):
    """Somebody who turns texts into vectors. Every failure of its is a ``ProviderError``.

    Attributes:
        name: its name in ``name/model`` and in spans.
        limits: what one call may hold.
        models: those that it lists; it may accept more.
        price_id: under which name prices are looked up; empty for none.
    """

    name: str
    limits: Limits
    models: tuple[str, ...]
    price_id: str

    async def open(self) -> None:
        """Get ready, without waiting for anything slow. Idempotent."""

    async def close(self) -> None:
        """Let go of everything, at once. Idempotent."""

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
        """Return a vector for each input; being cancelled closes the upstream socket at once.

        Raises:
            ProviderError: the attempt failed; nothing is tried again in here.
        """
