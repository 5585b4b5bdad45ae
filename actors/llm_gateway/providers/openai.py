"""OpenAI, and whatever speaks its chat dialect, over our own wire."""

from collections.abc import Mapping
from typing import Final

from actors.llm_gateway.provider import Deadlines, State
from actors.llm_gateway.wire.client import WireClient, WireStream
from protocol.llm import ChatRequest
from protocol.openai_upstream import ChatReader, chat_body

BASE_URL: Final = "https://api.openai.com/v1"
DEFAULT_MODEL: Final = "gpt-5-mini"


class OpenAIProvider:
    """Chat completions at any OpenAI-compatible base URL: a ``Provider``.

    Args:
        wire: the shared client.
        base_url: with its ``/v1``.
        api_key: empty for an upstream that wants none.
        models: the only ones it accepts, and lists; empty for every name with none listed; None for every name with the
            vendor's default listed.
        deadlines: how long it may be silent.
        name: its name.
        price_id: under which name prices are looked up; empty for none.
    """

    def __init__(
        self,
        wire: WireClient,
        *,
        base_url: str = BASE_URL,
        api_key: str = "",
        models: tuple[str, ...] | None = None,
        deadlines: Deadlines | None = None,
        name: str = "openai",
        price_id: str = "openai",
    ) -> None:
        self.name = name
        self.models = (DEFAULT_MODEL,) if models is None else models
        self._any = not models
        self.deadlines = deadlines or Deadlines()
        self.price_id = price_id
        self._wire = wire
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._tokens_field = "max_completion_tokens" if base_url.startswith(BASE_URL) else "max_tokens"

    async def open(self) -> None:
        """Open the wire."""
        await self._wire.open(self)

    async def close(self) -> None:
        """Close the wire."""
        await self._wire.close(self)

    def accepts(self, model: str) -> bool:
        """Whether ``model`` may be asked for."""
        return self._any or model in self.models

    def status(self) -> tuple[State, str]:
        """Always ready: how the upstream is shows in its answers."""
        return "ready", ""

    def stream(self, request: ChatRequest, model: str, headers: Mapping[str, str]) -> WireStream:
        """Send ``request`` as a streamed chat completion."""
        body = chat_body(request, model, tokens_field=self._tokens_field)
        return self._wire.stream(
            self._url, body, {**self._headers, **headers}, ChatReader(), connect_timeout=self.deadlines.connect
        )
