"""A provider among the targets."""

from actors.llm_gateway.provider import Provider
from actors.upstream.concurrency import Lane
from actors.upstream.endpoint import Station
from protocol.routes import ProviderSpec


class Upstream(Station):
    """A provider, and what is kept beside it.

    Args:
        provider: who answers.
        lane: as for every station; so is ``spec``.
    """

    __slots__ = ("provider",)

    def __init__(self, provider: Provider, lane: Lane, spec: ProviderSpec | None = None) -> None:
        super().__init__(provider.name, lane, spec)
        self.provider = provider
