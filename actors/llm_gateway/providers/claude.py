"""Base class of providers of Anthropic's models on a cloud."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import ClassVar

import msgspec

from actors.llm_gateway.providers.sdk import SdkProvider
from actors.wire.client import WireStream
from protocol.anthropic.reader import MessagesReader
from protocol.anthropic.upstream import betas_of, messages_body
from protocol.llm import ChatRequest


class CloudClaude(SdkProvider):
    """Messages of Anthropic's models on a cloud: all of a ``Provider`` but its client.

    Attributes:
        version: the cloud's name of the dialect's version of our bodies.
    """

    path: ClassVar[str] = "/v1/messages"
    version: ClassVar[str]

    def stream(
        self, request: ChatRequest, model: str, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[WireStream]:
        """Send ``request`` as a streamed message."""
        betas = betas_of(request)
        if betas:
            headers = {**headers, "anthropic-beta": ",".join(betas)}
        body = msgspec.json.decode(messages_body(request, model))
        return self._send({**body, "anthropic_version": self.version}, headers, MessagesReader())
