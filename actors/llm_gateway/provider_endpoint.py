"""Endpoint of a chat provider."""

from actors.llm_gateway.provider import Provider
from actors.upstream.concurrency import ConcurrencyLimiter
from actors.upstream.endpoint import Endpoint
from protocol.routes import ProviderSpec


class ProviderEndpoint(Endpoint):
    """A provider, with its concurrency, its retry budget, and the health of its models.

    Args:
        provider: streams the answers.
        limiter: as for every ``Endpoint``; so is ``spec``.
    """

    __slots__ = ("provider",)

    def __init__(self, provider: Provider, limiter: ConcurrencyLimiter, spec: ProviderSpec | None = None) -> None:
        super().__init__(provider.name, limiter, spec, url=provider.base_url)
        self.provider = provider
