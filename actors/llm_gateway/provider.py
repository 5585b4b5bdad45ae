"""What a provider is to the gateway: somebody who streams an answer."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import msgspec

from protocol.gateway import ProviderState
from protocol.llm import ChatRequest
from protocol.upstream import CONNECT_TIMEOUT, Allowance, AnswerReader, Deltas

FIRST_TOKEN_TIMEOUT: Final = 120.0  # seconds: a reasoning model thinks before it speaks
BETWEEN_CHUNKS_TIMEOUT: Final = 60.0  # seconds


class Deadlines(msgspec.Struct, frozen=True, kw_only=True):
    """How long an attempt may be silent, in seconds; None for as long as the whole request may take.

    Attributes:
        connect: until the connection stands.
        first_token: from the attempt's start to its first content.
        between_chunks: from one event of the stream to the next.
    """

    connect: float = CONNECT_TIMEOUT
    first_token: float | None = FIRST_TOKEN_TIMEOUT
    between_chunks: float | None = BETWEEN_CHUNKS_TIMEOUT


class AnswerStream(Protocol):
    """An answer as it comes: each step is what one network read gave, perhaps only a sign of life without content.

    Attributes:
        answer: what is known of the answer so far.
        limits: what the upstream says of its rate limits; empty where it says nothing.
    """

    answer: AnswerReader
    limits: tuple[Allowance, ...]

    def __aiter__(self) -> AsyncIterator[Deltas]: ...


class Provider(Protocol):
    """Somebody who streams an answer. Every failure of its is a ``ProviderError``.

    Attributes:
        name: its name in ``name/model``, in spans and in attempts.
        models: the models that it lists.
        deadlines: how long its attempts may be silent.
        price_id: under which name prices are looked up; empty where there is nothing to pay for or to look up.
    """

    name: str
    models: tuple[str, ...]
    deadlines: Deadlines
    price_id: str

    async def open(self) -> None:
        """Get ready, without waiting for anything slow. Idempotent."""

    async def close(self) -> None:
        """Let go of everything, at once. Idempotent."""

    def accepts(self, model: str) -> bool:
        """Whether it serves ``model``."""

    def status(self) -> tuple[ProviderState, str]:
        """Return how it is, and a detail that is safe to show."""

    def stream(
        self, request: ChatRequest, model: str, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[AnswerStream]:
        """Send the request; leaving the context before the end closes the upstream socket at once.

        Raises:
            ProviderError: on entering, and while the answer is read.
        """
