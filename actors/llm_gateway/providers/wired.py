"""Base classes of providers on our own wire."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from actors.large_inputs import aside, is_large
from actors.llm_gateway.provider import AnswerStream, ProviderDeadlines
from actors.wire.client import WireClient
from actors.wire.sse import EventSplitter
from actors.wire.url import UpstreamUrl
from protocol.errors import ConfigurationError
from protocol.gateway import ProviderState
from protocol.json.long_texts import encode_in_pieces
from protocol.llm import ChatRequest
from protocol.upstream import AnswerReader


class OnWire:
    """All of a ``Provider`` but ``stream``.

    Args:
        wire: the shared client.
        models: the only ones it accepts, and lists; empty for every name with none listed; None for every name with
            ``default_model`` listed.
        default_model: the vendor's own.
        deadlines: the longest silences of its attempts.
        name: its name.
        price_id: its name in the price list; empty for none.

    Attributes:
        seeds: whether it is known to take a ``seed``; not by default.
        base_url: the address, as a log may show it.
    """

    seeds: bool = False
    base_url: str = ""

    def __init__(
        self,
        wire: WireClient,
        *,
        models: tuple[str, ...] | None,
        default_model: str = "",
        deadlines: ProviderDeadlines | None,
        name: str,
        price_id: str,
    ) -> None:
        self.name = name
        self.models = (default_model,) if models is None else models
        self.deadlines = deadlines or ProviderDeadlines()
        self.price_id = price_id
        self._any = not models
        self._wire = wire

    async def open(self) -> None:
        """Open the wire."""
        await self._wire.open(self)

    async def close(self) -> None:
        """Close the wire."""
        await self._wire.close(self)

    def accepts(self, model: str) -> bool:
        """Whether ``model`` is accepted."""
        return self._any or model in self.models

    def status(self) -> tuple[ProviderState, str]:
        """Return ready, always: only calls show the state of the upstream."""
        return "ready", ""


class WiredProvider(OnWire):
    """All of a ``Provider`` but its dialect: a subclass adds ``stream``.

    Args:
        wire: the shared client.
        url: receives the requests.
        credentials: the headers that every request carries.
        models: as for ``OnWire``; so are ``default_model``, ``deadlines``, ``name`` and ``price_id``.

    Raises:
        ConfigurationError: the URL is no HTTP address, or a credential has a character that no header can have.
    """

    def __init__(
        self,
        wire: WireClient,
        *,
        url: str,
        credentials: Mapping[str, str],
        models: tuple[str, ...] | None,
        default_model: str,
        deadlines: ProviderDeadlines | None,
        name: str,
        price_id: str,
    ) -> None:
        super().__init__(
            wire, models=models, default_model=default_model, deadlines=deadlines, name=name, price_id=price_id
        )
        try:
            self._url = UpstreamUrl(url, accept=EventSplitter.content_type, headers=credentials)
        except ValueError as error:
            raise ConfigurationError(f"{name}: {error}") from error

    def _send(
        self, request: ChatRequest, encode: Callable[..., bytes], headers: Mapping[str, str], answer: AnswerReader
    ) -> AbstractAsyncContextManager[AnswerStream]:
        """Send what ``encode`` makes of a request; in a thread where that is large."""
        if is_large(request):
            return self._send_large(encode, headers, answer)
        return self._wire.stream(self._url, encode(), headers, answer, connect_timeout=self.deadlines.connect)

    @asynccontextmanager
    async def _send_large(
        self, encode: Callable[..., bytes], headers: Mapping[str, str], answer: AnswerReader
    ) -> AsyncIterator[AnswerStream]:
        body = await aside(partial(encode, encode=encode_in_pieces))
        async with self._wire.stream(
            self._url, body, headers, answer, connect_timeout=self.deadlines.connect
        ) as stream:
            yield stream
