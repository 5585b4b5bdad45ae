"""Anthropic's models on Google's Vertex AI, by Google's credentials, through the ``anthropic`` package."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Final

import msgspec

from actors.llm_gateway.providers.sdk import NO_RETRIES, Connected, SdkProvider
from actors.llm_gateway.wire.client import WireStream
from protocol.anthropic import MessagesReader, messages_body
from protocol.llm import ChatRequest

VERSION: Final = "vertex-2023-10-16"


class VertexProvider(SdkProvider):
    """Messages of Anthropic's models on Vertex AI: a ``Provider``. A model is as ``claude-…@date``.

    Of the spec it takes ``project``, ``region``, and ``base_url``, with its ``/v1``, in the place of the region's. The
    key is an access token; without one there are Google's default credentials, renewed when they expire.
    """

    path: ClassVar[str] = "/v1/messages"
    priced_as: ClassVar[str] = "google"

    def stream(
        self, request: ChatRequest, model: str, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[WireStream]:
        """Send ``request`` as a streamed message."""
        body = msgspec.json.decode(messages_body(request, model))
        return self._send({**body, "anthropic_version": VERSION}, headers, MessagesReader())

    def _connect(self) -> Connected:
        from anthropic import AsyncAnthropicVertex  # noqa: PLC0415 - two seconds

        from actors.llm_gateway.providers.unsent import Response, UnsentClient  # noqa: PLC0415 - the same

        spec = self._spec
        client = AsyncAnthropicVertex(
            region=spec.region,
            project_id=spec.project,
            access_token=self._api_key or None,
            base_url=spec.base_url or None,
            max_retries=NO_RETRIES,
            http_client=UnsentClient(),
            open_telemetry=False,
        )
        if self._api_key:
            return Connected(client, Response)
        from google.auth.exceptions import TransportError  # noqa: PLC0415 - an extra

        return Connected(client, Response, (TransportError,))
