"""Embedder of a model on this machine: llama.cpp in a child process, started with the first request."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from actors.embeddings.embedder import EmbedderLimits
from actors.local.model import MODEL_NAME, NO_MODEL, installed_model
from actors.local.process import EMBEDDING_CONTEXT, Address, LocalProcess
from actors.wire.unary import JsonWire
from protocol.embeddings import Input, Vectors
from protocol.errors import ProviderError
from protocol.openai.embeddings import read_vectors, upstream_body

BATCH_INPUTS: Final = 16  # the engine computes them one by one: a larger batch only delays the next request


class _Tokens(msgspec.Struct, frozen=True):
    tokens: tuple[int, ...]


class LocalEmbedder:
    """The mean of a GGUF model's last layer, normalised: an ``Embedder``.

    Args:
        wire: opened and closed with the embedder.
        path: the model's file; None for the one that is installed as a package.
        name: its name.
    """

    def __init__(
        self,
        wire: JsonWire,
        *,
        path: Path | None = None,
        name: str = "local",
    ) -> None:
        found = path or installed_model()
        self.name = name
        self.model = MODEL_NAME if path is None else path.stem.lower()
        self.models: tuple[str, ...] = (self.model,)
        self.price_id = ""
        self.base_url = ""
        self.limits = EmbedderLimits(inputs=BATCH_INPUTS, timeout=None)
        self._wire = wire
        self._process = None if found is None else LocalProcess(found, self.model, embeddings=True)

    async def open(self) -> None:
        """Open the wire; the model is loaded with the first request."""
        await self._wire.open()

    async def close(self) -> None:
        """End the model's process, and close the wire."""
        if self._process is not None:
            await self._process.close()
        await self._wire.close()

    def accepts(self, model: str) -> bool:
        """Whether ``model`` is the one model."""
        return model == self.model

    async def embed(
        self,
        inputs: tuple[Input, ...],
        model: str,
        dimensions: int | None,
        extra: Mapping[str, Any],  # noqa: ARG002 - the engine knows none of other upstreams' fields
        headers: Mapping[str, str],
    ) -> Vectors:
        """Wait for the model to be loaded, check that each text fits, then send one call."""
        if dimensions is not None:
            raise ProviderError(
                "The local model's vectors have one length: leave out `dimensions`", code="provider_rejected"
            )
        texts = tuple(item for item in inputs if isinstance(item, str))
        if len(texts) < len(inputs):
            message = "The local model numbers its tokens in its own way: send the texts"
            raise ProviderError(message, code="provider_rejected")
        if self._process is None:
            raise ProviderError(NO_MODEL, code="local_model_failed")
        server = await self._process.address()
        await self._check_lengths(server, texts)
        answer = await self._post(server, "/v1/embeddings", upstream_body(texts, model, None, {}), headers)
        return read_vectors(answer, len(inputs))

    async def _check_lengths(self, server: Address, inputs: tuple[str, ...]) -> None:
        """Count the tokens of texts that could be too long: one of them would fail the whole call."""
        for text in inputs:
            if len(text.encode()) < EMBEDDING_CONTEXT:
                continue
            body = msgspec.json.encode({"content": text, "add_special": True})
            try:
                counted = msgspec.json.decode(await self._post(server, "/tokenize", body, {}), type=_Tokens)
            except msgspec.DecodeError as error:
                raise ProviderError(code="provider_bad_response") from error
            if len(counted.tokens) > EMBEDDING_CONTEXT:
                message = f"The local model takes {EMBEDDING_CONTEXT} tokens of a text, got {len(counted.tokens)}"
                raise ProviderError(message, code="provider_rejected")

    async def _post(self, server: Address, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        return await self._wire.post(server.url + path, body, {"authorization": f"Bearer {server.key}", **headers})
