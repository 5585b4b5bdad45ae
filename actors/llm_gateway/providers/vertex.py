"""Provider of Anthropic's models on Vertex AI, by Google credentials, through the ``anthropic`` package."""

from typing import ClassVar

from actors.llm_gateway.providers.claude import CloudClaude
from actors.llm_gateway.providers.sdk import NO_RETRIES, Connected


class VertexProvider(CloudClaude):
    """Messages of Anthropic's models on Vertex AI: a ``Provider``. A model is as ``claude-…@date``.

    It uses the spec's ``project``, ``region``, and ``base_url``, with its ``/v1``, which replaces the region's address.
    The key is an access token; without one it uses Google's default credentials, and renews them when they expire.
    """

    version: ClassVar[str] = "vertex-2023-10-16"
    priced_as: ClassVar[str] = "google"

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
