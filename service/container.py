"""The one place where the service is put together."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog
from pydantic import SecretStr

from actors.cache import CacheActor
from actors.channels.channels import ChannelLimits
from actors.channels.log import Bounds as HistoryBounds
from actors.embeddings import EmbeddingBounds, EmbeddingsConfig, build_embeddings
from actors.ledger import MemoryLedger
from actors.llm_gateway import GatewayConfig, LLMGateway, build_gateway
from actors.requests.router import ForgetModels, RequestRouter
from actors.runtime import Ref, System
from actors.subscription_hub import SubscriptionHub
from protocol.cache import CacheDelete, CacheGet, CachePut, GetCacheStats
from protocol.channels import ChannelMessage
from protocol.embeddings import Embed
from protocol.errors import ConfigurationError
from protocol.gateway import Complete, GetProviders, ListModels, ResolveModel
from protocol.hub import GetHubStats, Goodbye, SocketClosed, Subscribe, Unsubscribe
from protocol.ledger import Ledger
from protocol.requests import CancelRequest, GetRequest, Submit
from protocol.routes import Routes, SetRoutes
from service.auth.authenticator import Authenticator
from service.auth.jwks import PublishedKeys
from service.auth.keys import KeyRing
from service.auth.tokens import Tokens
from service.config.routes_file import RoutesFile, RoutesWatcher, open_routes
from service.config.settings import Settings, variable
from service.frames import text_frame
from service.lifecycle import Lifecycle
from service.telemetry.setup import Telemetry, open_telemetry

RouterMessage = Submit | GetRequest | CancelRequest | ForgetModels
GatewayMessage = Complete | ResolveModel | ListModels | GetProviders | SetRoutes
EmbeddingsMessage = Embed | ListModels | SetRoutes
HubMessage = Subscribe | Unsubscribe | SocketClosed | Goodbye | GetHubStats | ChannelMessage
CacheMessage = CacheGet | CachePut | CacheDelete | GetCacheStats

NO_ROUTES: Final = Routes()


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
        hub: who follows what over a socket; channels.
        cache: finished logs.
        embeddings: turns texts into vectors.
        ledger: what accounts have spent.
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
    embeddings: Ref[EmbeddingsMessage]
    ledger: Ledger


@asynccontextmanager
async def open_container(
    settings: Settings,
    *,
    telemetry: Telemetry | None = None,
    gateway: Callable[[], LLMGateway] | None = None,
    ledger: Ledger | None = None,
) -> AsyncIterator[Container]:
    """Put the service together, and take it apart in the reverse order.

    Args:
        settings: what the operator decided.
        telemetry: where spans go; by default as ``settings`` say, closed at the end.
        gateway: makes the gateway; by default as ``settings`` say. A test passes one with a scripted upstream.
        ledger: where what accounts spend is kept; None for in memory. A gateway of one's own is to have the same.

    Raises:
        ConfigurationError: the settings name something that is not there.
    """
    routes = open_routes(settings.routes_file)
    keys = open_keys(settings, routes)
    auth = Authenticator(keys, open_tokens(settings))
    books = ledger or MemoryLedger()
    make_gateway = gateway or build_gateway(gateway_config(settings, routes.routes), ledger=books)
    spans = open_telemetry(settings) if telemetry is None else telemetry
    try:
        async with System(tracer_provider=spans.provider, on_escalate=_escalated) as system:
            yield _assemble(settings, spans, system, make_gateway, routes, keys, auth, books)
    finally:
        await auth.close()
        if telemetry is None:
            await spans.close()


def gateway_config(settings: Settings, routes: Routes = NO_ROUTES) -> GatewayConfig:
    """Return what the gateway is made of."""
    return GatewayConfig(
        llm_provider=settings.provider,
        default_model=settings.default_llm_model,
        openai_api_key=_reveal(settings.openai_api_key),
        openai_base_url=settings.openai_base_url,
        anthropic_api_key=_reveal(settings.anthropic_api_key),
        anthropic_base_url=settings.anthropic_base_url,
        local_model_path=settings.local_model_path,
        concurrency=settings.provider_concurrency,
        queue=settings.provider_queue,
        connect_timeout=settings.connect_timeout_seconds,
        first_token_timeout=settings.first_token_timeout_seconds,
        idle_timeout=settings.idle_timeout_seconds,
        drain=settings.drain_seconds,
        routes=routes,
        secrets=variable,
    )


def open_keys(settings: Settings, file: RoutesFile) -> KeyRing:
    """Return the keys of the settings and of the file.

    Raises:
        ConfigurationError: one of them can't be held; the message names it.
    """
    pepper = _reveal(settings.key_pepper).encode()
    keys = KeyRing((key.get_secret_value() for key in settings.api_keys), pepper=pepper, variable=variable)
    try:
        keys.replace(file.keys)
    except ConfigurationError as error:
        raise ConfigurationError(f"{file.path}: {error.detail}") from error
    return keys


def open_tokens(settings: Settings) -> Tokens | None:
    """Return what verifies tokens; None where none are accepted.

    Raises:
        ConfigurationError: the secret is none.
    """
    if not settings.tokens:
        return None
    try:
        return Tokens(
            secret=_reveal(settings.jwt_secret).encode(),
            published=PublishedKeys(settings.jwt_jwks_url) if settings.jwt_jwks_url else None,
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            leeway=settings.jwt_leeway_seconds,
        )
    except ValueError as error:
        raise ConfigurationError(f"JWT_SECRET: {error}") from None


def embeddings_config(settings: Settings, routes: Routes = NO_ROUTES) -> EmbeddingsConfig:
    """Return what the actor that embeds is made of."""
    return EmbeddingsConfig(
        llm_provider=settings.llm_provider or "",
        default_model=settings.default_embedding_model,
        openai_api_key=_reveal(settings.openai_api_key),
        openai_base_url=settings.openai_base_url,
        local_model_path=settings.local_model_path,
        routes=routes,
        secrets=variable,
        batch_inputs=settings.embedding_batch_inputs,
        connect_timeout=settings.connect_timeout_seconds,
        bounds=EmbeddingBounds(cache_bytes=settings.embedding_cache_max_bytes),
    )


def channel_limits(settings: Settings) -> ChannelLimits:
    """Return how much there may be of channels."""
    history = HistoryBounds(
        settings.channel_history_entries, settings.channel_history_bytes, settings.channel_history_ttl_seconds
    )
    return ChannelLimits(history=history, channels=settings.max_channels, size=settings.channels_max_bytes)


def _assemble(
    settings: Settings,
    telemetry: Telemetry,
    system: System,
    make_gateway: Callable[[], LLMGateway],
    routes: RoutesFile,
    keys: KeyRing,
    auth: Authenticator,
    ledger: Ledger,
) -> Container:
    cache = system.spawn(
        lambda: CacheActor(max_entries=settings.cache_max_entries, max_bytes=settings.cache_max_bytes), name="cache"
    )
    gateway = system.spawn(make_gateway, name="llm-gateway")
    router = system.spawn(
        lambda: RequestRouter(
            gateway=gateway,
            cache=cache,
            ttl=settings.request_ttl_seconds,
            max_requests=settings.max_requests,
            max_bytes=settings.requests_max_bytes,
            ring_bytes=settings.log_max_bytes,
            abandon_grace=settings.abandon_grace_seconds,
        ),
        name="request-router",
    )
    embeddings = system.spawn(
        build_embeddings(embeddings_config(settings, routes.routes), ledger=ledger), name="embeddings"
    )
    hub = system.spawn(lambda: SubscriptionHub(text_frame, channels=channel_limits(settings)), name="subscription-hub")
    system.spawn(
        lambda: RoutesWatcher(routes, takers=(embeddings, gateway), router=router, keys=keys, tickets=auth, hub=hub),
        name="routes-watcher",
    )
    return Container(
        settings=settings,
        auth=auth,
        lifecycle=Lifecycle(),
        telemetry=telemetry,
        system=system,
        router=router,
        gateway=gateway,
        hub=hub,
        cache=cache,
        embeddings=embeddings,
        ledger=ledger,
    )


def _escalated(name: str, error: Exception) -> None:
    structlog.get_logger("service").critical("actor_stopped", actor=name, exc_info=error)


def _reveal(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value()
