"""Embedder of OpenAI's dialect, over our own wire."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from actors.embeddings.embedder import EmbedderLimits
from actors.wire.unary import JsonWire
from actors.wire.url import JSON, UpstreamUrl
from protocol.base_urls import shown_url
from protocol.embeddings import Input, Vectors
from protocol.errors import ConfigurationError
from protocol.openai.embeddings import VectorReader, longest_answer, upstream_body
from protocol.upstream import BASE_URLS

DEFAULT_MODEL: Final = "text-embedding-3-small"


class OpenAIEmbedder:
    """Embeddings at any OpenAI-compatible base URL: an ``Embedder``.

    Args:
        wire: opened and closed with the embedder.
        base_url: with its ``/v1``.
        api_key: empty for an upstream that needs none.
        models: the only ones it accepts, and lists; empty for every name with none listed; None for every name with
            OpenAI's own listed.
        limits: the bounds of its calls.
        name: its name.
        price_id: its name in the price list; empty for none.

    Raises:
        ConfigurationError: the URL is no HTTP address, or the key has a character that no header can have.
    """

    def __init__(
        self,
        wire: JsonWire,
        *,
        base_url: str = BASE_URLS["openai"],
        api_key: str = "",
        models: tuple[str, ...] | None = None,
        limits: EmbedderLimits | None = None,
        name: str = "openai",
        price_id: str = "openai",
    ) -> None:
        self.name = name
        self.limits = limits or EmbedderLimits()
        self.models = (DEFAULT_MODEL,) if models is None else models
        self.price_id = price_id
        self.base_url = shown_url(base_url)
        self._any = not models
        self._wire = wire
        credentials = {"authorization": f"Bearer {api_key}"} if api_key else {}
        try:
            self._url = UpstreamUrl(f"{base_url.rstrip('/')}/embeddings", accept=JSON, headers=credentials)
        except ValueError as error:
            raise ConfigurationError(f"{name}: {error}") from error

    async def open(self) -> None:
        """Open the wire."""
        await self._wire.open()

    async def close(self) -> None:
        """Close the wire."""
        await self._wire.close()

    def accepts(self, model: str) -> bool:
        """Whether ``model`` is accepted."""
        return bool(model) and (self._any or model in self.models)

    async def embed(
        self,
        inputs: tuple[Input, ...],
        model: str,
        dimensions: int | None,
        extra: Mapping[str, Any],
        headers: Mapping[str, str],
    ) -> Vectors:
        """Send one call."""
        body = upstream_body(inputs, model, dimensions, extra)
        answer = await self._wire.post(self._url, body, headers, most=longest_answer(len(inputs)))
        reader = VectorReader(answer, len(inputs))
        while not reader.step():  # noqa: ASYNC110 - nothing is waited for: other tasks run between two steps
            await asyncio.sleep(0)
        return reader.vectors
