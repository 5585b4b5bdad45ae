"""Provider of a model on this machine: llama.cpp in a child process, over our own wire."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from actors.large_inputs import aside, is_large
from actors.llm_gateway.provider import AnswerStream, ProviderDeadlines
from actors.llm_gateway.providers.grammar import grammar
from actors.local.model import MODEL_NAME, NO_MODEL, installed_model
from actors.local.process import LocalProcess, report_failure
from actors.wire.client import WireClient
from protocol.errors import ProviderError
from protocol.gateway import ProviderState
from protocol.json.long_texts import encode_in_pieces
from protocol.llm import ChatMessage, ChatRequest, FilePart, ImagePart, VendorPart
from protocol.openai.reader import ChatReader
from protocol.openai.upstream import DIALECT, chat_body

DEFAULT_MAX_TOKENS: Final = 512
SUPPORTED_EXTRAS: Final = frozenset(
    {"frequency_penalty", "presence_penalty", "logit_bias", "min_p", "response_format", "top_k"}
)


class LocalProvider:
    """A GGUF model on this machine: a ``Provider``.

    Args:
        wire: the shared client.
        path: the model's file; None for the one that is installed as a package.
        eager: whether to load it as soon as the provider is opened, rather than at its first request.
        deadlines: the longest silences of its attempts; by default the first token may take as long as the request,
            loading included.
        name: its name.
    """

    def __init__(
        self,
        wire: WireClient,
        *,
        path: Path | None = None,
        eager: bool = True,
        deadlines: ProviderDeadlines | None = None,
        name: str = "local",
    ) -> None:
        found = path or installed_model()
        self.name = name
        self.models: tuple[str, ...] = (MODEL_NAME if path is None else path.stem.lower(),)
        self.deadlines = deadlines or ProviderDeadlines(first_token=None)
        self.price_id = ""
        self.base_url = ""
        self.seeds = True
        self._wire = wire
        self._eager = eager
        self._process = None if found is None else LocalProcess(found, self.models[0])

    async def open(self) -> None:
        """Open the wire, and begin to load the model."""
        await self._wire.open(self)
        if self._eager and self._process is None:
            report_failure(self.models[0], "", NO_MODEL)
        elif self._eager and self._process is not None:
            self._process.start()

    async def close(self) -> None:
        """End the model's process, and close the wire."""
        if self._process is not None:
            await self._process.close()
        await self._wire.close(self)

    def accepts(self, model: str) -> bool:
        """Whether ``model`` is the one model."""
        return model in self.models

    def status(self) -> tuple[ProviderState, str]:
        """``idle`` until the model is wanted, then ``loading`` until it can answer."""
        return ("failed", NO_MODEL) if self._process is None else self._process.status()

    @asynccontextmanager
    async def stream(self, request: ChatRequest, model: str, headers: Mapping[str, str]) -> AsyncIterator[AnswerStream]:
        """Wait for the model to be loaded, then send ``request`` as a streamed chat completion."""
        if self._process is None:
            raise ProviderError(NO_MODEL, code="local_model_failed")
        if any(map(_has_more_than_text, request.messages)):
            raise ProviderError("The local model reads text only", code="provider_rejected")
        server = await self._process.address()
        sent = local_request(request, guided=server.guided)
        encode = partial(chat_body, sent, model, max_tokens=DEFAULT_MAX_TOKENS)
        body = await aside(partial(encode, encode=encode_in_pieces)) if is_large(sent) else encode()
        async with self._wire.stream(
            f"{server.url}/v1/chat/completions",
            body,
            {"authorization": f"Bearer {server.key}", **headers},
            ChatReader(),
            connect_timeout=self.deadlines.connect,
        ) as stream:
            yield stream


def _has_more_than_text(message: ChatMessage) -> bool:
    content = message.content
    if isinstance(content, str):
        return False
    return any(isinstance(part, ImagePart | FilePart | VendorPart) for part in content)


def local_request(request: ChatRequest, *, guided: bool) -> ChatRequest:
    """Return the request in the engine's form.

    A schema becomes a grammar: the engine's own translation of a response format does not bound numbers.
    """
    extra = {name: value for name, value in request.extra.items() if name in SUPPORTED_EXTRAS}
    if request.schema is None or not guided:
        return msgspec.structs.replace(request, extra=extra)
    extra.pop("response_format", None)
    extra["grammar"] = grammar(request.schema)
    return msgspec.structs.replace(request, schema=None, extra=extra, dialect=DIALECT)
