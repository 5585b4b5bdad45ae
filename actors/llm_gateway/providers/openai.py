"""Provider of OpenAI's chat dialect, over our own wire."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final

from actors.llm_gateway.provider import AnswerStream, ProviderDeadlines
from actors.llm_gateway.providers.forms import is_plain, send_in_forms
from actors.llm_gateway.providers.wired import WiredProvider
from actors.wire.client import WireClient
from protocol.base_urls import shown_url
from protocol.errors import ConfigurationError
from protocol.llm import ChatRequest
from protocol.openai.limits import limits_at
from protocol.openai.reader import ChatReader
from protocol.openai.upstream import DIALECT, chat_body, takes_schema
from protocol.tool_names import OPENAI_LENGTH
from protocol.upstream import BASE_URLS

DEFAULT_MODEL: Final = "gpt-5-mini"


class OpenAIProvider(WiredProvider):
    """Chat completions at any OpenAI-compatible base URL: a ``Provider``.

    Args:
        wire: the shared client.
        base_url: with its ``/v1``.
        api_key: empty for an upstream that needs none.
        models: as for every ``WiredProvider``; so are ``deadlines``, ``name`` and ``price_id``.
        omit: top-level fields of the body that this upstream refuses.
    """

    def __init__(
        self,
        wire: WireClient,
        *,
        base_url: str = BASE_URLS["openai"],
        api_key: str = "",
        models: tuple[str, ...] | None = None,
        deadlines: ProviderDeadlines | None = None,
        name: str = "openai",
        price_id: str = "openai",
        omit: tuple[str, ...] = (),
    ) -> None:
        super().__init__(
            wire,
            url=f"{base_url.rstrip('/')}/chat/completions",
            credentials={"authorization": f"Bearer {api_key}"} if api_key else {},
            models=models,
            default_model=DEFAULT_MODEL,
            deadlines=deadlines,
            name=name,
            price_id=price_id,
        )
        self.base_url = shown_url(base_url)
        self._omit = omit
        own = base_url.startswith(BASE_URLS["openai"])
        self.seeds = own
        self._tokens_field = "max_completion_tokens" if own else "max_tokens"
        try:
            self._limits = limits_at(base_url)
        except ValueError as error:
            raise ConfigurationError(f"{name}: {error}") from error

    def stream(
        self, request: ChatRequest, model: str, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[AnswerStream]:
        """Send ``request`` as a streamed chat completion."""
        if is_plain(request):
            return self._post(model, headers, request)
        return send_in_forms(
            request, partial(self._post, model, headers), DIALECT, name_length=OPENAI_LENGTH, takes_schema=takes_schema
        )

    def _post(
        self, model: str, headers: Mapping[str, str], request: ChatRequest
    ) -> AbstractAsyncContextManager[AnswerStream]:
        encode = partial(
            chat_body, request, model, tokens_field=self._tokens_field, omit=self._omit, limits=self._limits
        )
        return self._send(request, encode, headers, ChatReader())
