"""Base class of providers whose requests a vendor's package writes: credentials, signature, address."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec
from yarl import URL

from actors.exhausted import exhausted, is_exhausted
from actors.large_inputs import aside, is_large
from actors.llm_gateway.provider import ProviderDeadlines
from actors.llm_gateway.providers.wired import OnWire
from actors.wire.client import WireClient, WireStream
from actors.wire.sse import EventSplitter, Splitter
from protocol.base_urls import base_url_of
from protocol.errors import ProviderError
from protocol.llm import ChatRequest
from protocol.routes import ProviderSpec
from protocol.upstream import AnswerReader

if TYPE_CHECKING:
    import httpx2
    from anthropic import AsyncAnthropicBedrock, AsyncAnthropicVertex
    from openai import AsyncAzureOpenAI

    SdkClient = AsyncAzureOpenAI | AsyncAnthropicBedrock | AsyncAnthropicVertex

NO_RETRIES: Final = 0
NO_SEGMENT: Final = ("", ".", "..")  # a model's name becomes a part of the address
HOP: Final = frozenset({"connection", "keep-alive"})  # headers of a connection, which our wire manages

_log = logging.getLogger("tidegate.gateway")


class Connected(msgspec.Struct, frozen=True):
    """A vendor's client, ready for use.

    Attributes:
        client: sends nothing itself: its HTTP client is an ``UnsentClient``.
        response: the class of what it then returns.
        unreachable: the errors that mean that the source of credentials can't be reached for now.
        close: closes what is open beside the client.
    """

    client: "SdkClient"
    response: "type[httpx2.Response]"
    unreachable: tuple[type[Exception], ...] = ()
    close: Callable[[], Awaitable[None]] | None = None


class SdkProvider(OnWire, ABC):
    """All of a ``Provider`` but its dialect and its client: a subclass adds ``stream`` and ``_connect``.

    The vendor's package is imported with the first request, in a thread, as that takes seconds. It turns our body into
    the request that its service needs, with address, credentials and signature. Our own wire sends that request and
    reads its answer, so that deadlines, failures, closing and retries are the same as for other providers.

    Args:
        wire: the shared client.
        spec: its table in the routes' file; fields that its kind does not use are ignored.
        api_key: empty for the vendor's default credentials.
        deadlines: the longest silences of its attempts; that before the first token includes the import and the
            credentials.
        name: its name; empty for that of its kind.

    Attributes:
        path: the endpoint's path in the vendor's client.
        priced_as: its name in the price list, where the spec has none.
        framing: splits an answer's stream into events.
    """

    path: ClassVar[str]
    priced_as: ClassVar[str]
    framing: ClassVar[type[Splitter]] = EventSplitter

    def __init__(
        self,
        wire: WireClient,
        spec: ProviderSpec,
        *,
        api_key: str = "",
        deadlines: ProviderDeadlines | None = None,
        name: str = "",
    ) -> None:
        super().__init__(
            wire,
            models=spec.models,
            deadlines=deadlines,
            name=name or spec.kind,
            price_id=spec.price_id or self.priced_as,
        )
        self.base_url = base_url_of(spec)
        self._spec = spec
        self._api_key = api_key
        self._connected: Connected | None = None
        self._opened = False
        self._refused = False
        self._writing = asyncio.Lock()

    async def open(self) -> None:
        """Open the wire; nothing is imported yet."""
        self._opened = True
        await super().open()

    async def close(self) -> None:
        """Close the vendor's client, and the wire."""
        self._opened = False
        connected, self._connected = self._connected, None
        try:
            if connected is not None:
                await connected.client.close()
                if connected.close is not None:
                    await connected.close()
        finally:
            await super().close()

    def accepts(self, model: str) -> bool:
        """Whether ``model`` is accepted, and can be a part of an address."""
        return super().accepts(model) and model.partition(";")[0] not in NO_SEGMENT

    @abstractmethod
    def _connect(self) -> Connected:
        """Import the package and make its client; called in a thread."""

    @asynccontextmanager
    async def _send(
        self,
        chat: ChatRequest,
        fields: Callable[[], Mapping[str, Any]],
        headers: Mapping[str, str],
        answer: AnswerReader,
    ) -> AsyncIterator[WireStream]:
        request = await self._written(await aside(fields) if is_large(chat) else fields(), headers)
        sent = {name: value for name, value in request.headers.items() if name not in HOP}
        async with self._wire.stream(
            URL(str(request.url), encoded=True),
            request.content,
            sent,
            answer,
            connect_timeout=self.deadlines.connect,
            framing=self.framing,
        ) as stream:
            yield stream

    async def _written(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> "httpx2.Request":
        """Return the request to be sent. One is written at a time, so that credentials are renewed once.

        Raises:
            Overloaded: this machine has no resources left for it.
            ProviderError: ``provider_credentials``: there are none; ``provider_unavailable``: their source can't be
                reached.
        """
        headers = {"accept-encoding": "identity", "accept": self.framing.content_type, **headers}
        async with self._writing:
            try:
                connected = await self._ready()
                response = await connected.client.post(
                    self.path, cast_to=connected.response, body=body, options={"headers": headers}
                )
            except ProviderError:
                raise
            except Exception as error:
                raise (exhausted(error) if is_exhausted(error) else self._failure(error)) from error
        self._refused = False
        return response.request

    async def _ready(self) -> Connected:
        if not self._opened:
            raise ProviderError(code="provider_unavailable")
        if self._connected is None:
            self._connected = await asyncio.to_thread(self._connect)
        return self._connected

    def _failure(self, error: Exception) -> ProviderError:
        """Return the error of a request that could not be written: only getting credentials can fail."""
        unreachable = self._connected is not None and isinstance(error, self._connected.unreachable)
        if not self._refused:
            self._refused = True
            said = f"{type(error).__name__}: {error}"
            fields = {"provider": self.name, "reason": said}
            _log.warning(
                "%s has no credentials: %s", self.name, said, extra={"event": "credentials_missing", "fields": fields}
            )
        return ProviderError(code="provider_unavailable" if unreachable else "provider_credentials")
