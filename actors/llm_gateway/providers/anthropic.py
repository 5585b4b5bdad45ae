"""Provider of Anthropic's messages dialect, over our own wire."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final

from actors.llm_gateway.provider import AnswerStream, ProviderDeadlines
from actors.llm_gateway.providers.forms import is_plain, send_in_forms
from actors.llm_gateway.providers.wired import WiredProvider
from actors.wire.client import WireClient
from protocol.anthropic.reader import MessagesReader
from protocol.anthropic.upstream import DIALECT, VERSION, betas_of, messages_body, takes_schema
from protocol.base_urls import shown_url
from protocol.llm import ChatRequest
from protocol.tool_names import ANTHROPIC_LENGTH
from protocol.upstream import BASE_URLS

DEFAULT_MODEL: Final = "claude-haiku-4-5"


class AnthropicProvider(WiredProvider):
    """Messages at any Anthropic-compatible base URL: a ``Provider``.

    Args:
        wire: the shared client.
        base_url: without ``/v1``.
        api_key: empty for an upstream that needs none.
        models: as for every ``WiredProvider``; so are ``deadlines``, ``name`` and ``price_id``.
    """

    def __init__(
        self,
        wire: WireClient,
        *,
        base_url: str = BASE_URLS["anthropic"],
        api_key: str = "",
        models: tuple[str, ...] | None = None,
        deadlines: ProviderDeadlines | None = None,
        name: str = "anthropic",
        price_id: str = "anthropic",
    ) -> None:
        super().__init__(
            wire,
            url=f"{base_url.rstrip('/')}/v1/messages",
            credentials={"anthropic-version": VERSION, **({"x-api-key": api_key} if api_key else {})},
            models=models,
            default_model=DEFAULT_MODEL,
            deadlines=deadlines,
            name=name,
            price_id=price_id,
        )
        self.base_url = shown_url(base_url)

    def stream(
        self, request: ChatRequest, model: str, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[AnswerStream]:
        """Send ``request`` as a streamed message."""
        betas = betas_of(request)
        if betas:
            headers = {**headers, "anthropic-beta": ",".join(betas)}
        if is_plain(request):
            return self._post(model, headers, request)
        return send_in_forms(
            request,
            partial(self._post, model, headers),
            DIALECT,
            name_length=ANTHROPIC_LENGTH,
            takes_schema=takes_schema,
        )

    def _post(
        self, model: str, headers: Mapping[str, str], request: ChatRequest
    ) -> AbstractAsyncContextManager[AnswerStream]:
        return self._send(request, partial(messages_body, request, model), headers, MessagesReader())
