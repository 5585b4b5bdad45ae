"""Interface of a chat provider, and its timeouts."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import msgspec

from protocol.gateway import ProviderState
from protocol.llm import ChatRequest
from protocol.upstream import CONNECT_TIMEOUT, Allowance, AnswerReader, Deltas

FIRST_TOKEN_TIMEOUT: Final = 120.0  # seconds: a reasoning model thinks before its first content
BETWEEN_CHUNKS_TIMEOUT: Final = 60.0  # seconds


class ProviderDeadlines(msgspec.Struct, frozen=True, kw_only=True):
    """The longest silences of an attempt, in seconds; None for as long as the whole request may take.

    Attributes:
        connect: until the connection stands.
        first_token: from the attempt's start to its first content.
        between_chunks: from one event of the stream to the next.
    """

    connect: float = CONNECT_TIMEOUT
    first_token: float | None = FIRST_TOKEN_TIMEOUT
    between_chunks: float | None = BETWEEN_CHUNKS_TIMEOUT


class AnswerStream(Protocol):
    """A streamed answer: each step is the content of one network read, empty for a sign of life.

    Attributes:
        answer: reads the answer, and has its usage and finish reason.
        limits: the rate limits that the upstream reports; empty for none.
    """

    answer: AnswerReader
    limits: tuple[Allowance, ...]

    def __aiter__(self) -> AsyncIterator[Deltas]: ...


class Provider(Protocol):
    """A service that streams answers. All its failures are ``ProviderError``.

    Attributes:
        name: its name in ``name/model``, in spans and in attempts.
        models: the models that it lists.
        deadlines: the longest silences of its attempts.
        price_id: its name in the price list; empty where it is free, or not in the list.
        base_url: the address, as a log may show it; empty for a model on this machine.
        seeds: whether it is known to take a ``seed``, so that a made-up one can't be what it refuses.
    """

    name: str
    models: tuple[str, ...]
    deadlines: ProviderDeadlines
    price_id: str
    base_url: str
    seeds: bool

    async def open(self) -> None:
        """Get ready, without waiting for anything slow. Idempotent."""

    async def close(self) -> None:
        """Close all connections, at once. Idempotent."""

    def accepts(self, model: str) -> bool:
        """Whether it serves ``model``."""

    def status(self) -> tuple[ProviderState, str]:
        """Return its state, and a detail that is safe to show."""

    def stream(
        self, request: ChatRequest, model: str, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[AnswerStream]:
        """Send the request; leaving the context before the end closes the upstream socket at once.

        Raises:
            ProviderError: on entering, and while the answer is read.
        """
