"""Provider of Azure OpenAI: deployments of one resource, by key or by Entra ID, through the ``openai`` package."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, ClassVar, Final

import msgspec

from actors.llm_gateway.provider import AnswerStream
from actors.llm_gateway.providers.forms import is_plain, send_in_forms
from actors.llm_gateway.providers.sdk import NO_RETRIES, Connected, SdkProvider
from protocol.llm import ChatRequest
from protocol.openai.limits import VENDORS_OWN
from protocol.openai.reader import ChatReader
from protocol.openai.upstream import DIALECT, chat_body, takes_schema
from protocol.tool_names import OPENAI_LENGTH

SCOPE: Final = "https://cognitiveservices.azure.com/.default"
TOKENS_FIELD: Final = "max_completion_tokens"


class AzureProvider(SdkProvider):
    """Chat completions of the deployments of an Azure resource: a ``Provider``. A model is a deployment's name.

    It uses the spec's ``base_url``, the resource's address, and ``api_version``. Without a key it gets tokens from the
    default credentials of ``azure-identity``: the environment, a workload or managed identity, or the login of ``az``.
    """

    path: ClassVar[str] = "/chat/completions"
    priced_as: ClassVar[str] = "azure"
    seeds = True

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
        def fields() -> dict[str, Any]:
            body = chat_body(request, model, tokens_field=TOKENS_FIELD, omit=self._spec.omit, limits=VENDORS_OWN)
            return msgspec.json.decode(body, type=dict[str, Any])

        return self._send(request, fields, headers, ChatReader())

    def _connect(self) -> Connected:
        from openai import AsyncAzureOpenAI  # noqa: PLC0415 - a second

        from actors.llm_gateway.providers.unsent import Response, UnsentClient  # noqa: PLC0415 - the same

        spec = self._spec
        if self._api_key:
            client = AsyncAzureOpenAI(
                azure_endpoint=spec.base_url,
                api_version=spec.api_version,
                api_key=self._api_key,
                max_retries=NO_RETRIES,
                http_client=UnsentClient(),
            )
            return Connected(client, Response)
        from azure.core.exceptions import ServiceRequestError, ServiceResponseError  # noqa: PLC0415 - an extra
        from azure.identity.aio import DefaultAzureCredential, get_bearer_token_provider  # noqa: PLC0415 - the same

        credential = DefaultAzureCredential()
        client = AsyncAzureOpenAI(
            azure_endpoint=spec.base_url,
            api_version=spec.api_version,
            azure_ad_token_provider=get_bearer_token_provider(credential, SCOPE),
            max_retries=NO_RETRIES,
            http_client=UnsentClient(),
        )
        return Connected(client, Response, (ServiceRequestError, ServiceResponseError), credential.close)
