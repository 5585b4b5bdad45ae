"""The one place where the service is put together."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from actors.cache import CacheActor
from actors.llm_gateway import LLMGateway
from actors.llm_gateway.factory import GatewayConfig, build_gateway
from actors.request_router import RequestRouter
from actors.runtime import Ref, System
from actors.subscription_hub import SubscriptionHub
from protocol.cache import CacheDelete, CacheGet, CachePut, GetCacheStats
from protocol.gateway import Complete, GetProviders, ListModels
from protocol.hub import GetHubStats, Goodbye, Subscribe, SocketClosed, Unsubscribe
from protocol.requests import CancelRequest, GetRequest, Submit
from service.auth import Authenticator
from service.lifecycle import Lifecycle
from service.settings import Settings
from service.telemetry.setup import Telemetry

RouterMessage = Submit | GetRequest | CancelRequest
GatewayMessage = Complete | ListModels | GetProviders
HubMessage = Subscribe | Unsubscribe | SocketClosed | Goodbye | GetHubStats
CacheMessage = CacheGet | CachePut | CacheDelete | GetCacheStats


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """Everything a handler may need, made once for each service.

    Attributes:
        settings: what the operator decided.
        auth: who may call.
        lifecycle: whether the service is stopping.
        telemetry: where spans go.
        system: whose actors these are.
        router: submits, finds and cancels requests.
        gateway: the model's side.
        hub: who follows what over a socket.
        cache: finished logs.
    """

    settings: Settings
    auth: Authenticator
    lifecycle: Lifecycle
    telemetry: Telemetry
    system: System
    router: Ref[RouterMessage]
    gateway: Ref[GatewayMessage]
    hub: Ref[HubMessage]
    cache: Ref[CacheMessage]


@asynccontextmanager
async def open_container(
    settings: Settings,
    *,
    telemetry: Telemetry | None = None,
    gateway: Callable[[], LLMGateway] | None = None,
) -> AsyncIterator[Container]:
    """Put the service together, and take it apart in the reverse order.

    Args:
        settings: what the operator decided.
        telemetry: where spans go; by default as ``settings`` say, closed at the end.
        gateway: makes the gateway; by default as ``settings`` say. A test passes one with a scripted upstream.

    Raises:
        ConfigurationError: the settings name something that is not there.
    """
    raise NotImplementedError
    yield
