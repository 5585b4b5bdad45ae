"""Base class of providers of Anthropic's models on a cloud."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, ClassVar

import msgspec

from actors.llm_gateway.provider import AnswerStream
from actors.llm_gateway.providers.forms import is_plain, send_in_forms
from actors.llm_gateway.providers.sdk import SdkProvider
from protocol.anthropic.reader import MessagesReader
from protocol.anthropic.upstream import DIALECT, betas_of, messages_body, takes_schema
from protocol.llm import ChatRequest
from protocol.tool_names import ANTHROPIC_LENGTH


class CloudClaude(SdkProvider):
    """Messages of Anthropic's models on a cloud: all of a ``Provider`` but its client.

    Attributes:
        version: the cloud's name of the dialect's version of our bodies.
    """

    path: ClassVar[str] = "/v1/messages"
    version: ClassVar[str]

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
        def fields() -> dict[str, Any]:
            body = msgspec.json.decode(messages_body(request, model), type=dict[str, Any])
            return {**body, "anthropic_version": self.version}

        return self._send(request, fields, headers, MessagesReader())
