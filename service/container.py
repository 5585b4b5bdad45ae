"""The composition of the service: the one place that makes its actors and passes them to each other."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

import structlog

from actors.cache import CacheActor
from actors.embeddings import build_embeddings
from actors.fair_shares import Tenants
from actors.ledger import MemoryLedger
from actors.llm_gateway import LLMGateway, build_gateway
from actors.rate_limiter import MemoryRateLimiter
from actors.rate_limits import RateLimits
from actors.requests.router import RequestRouter
from actors.requests.router_messages import ForgetModels
from actors.runtime import Ref, System
from actors.subscription_hub import SubscriptionHub
from protocol.cache import CacheDelete, CacheGet, CachePut, GetCacheStats
from protocol.channels import ChannelMessage
from protocol.embeddings import Embed
from protocol.errors import ConfigurationError
from protocol.gateway import Complete, GetProviders, ListModels, ResolveModel
from protocol.hub import (
    DisconnectAll,
    DisconnectIdle,
    GetHubStats,
    LimitSocket,
    SocketClosed,
    Subscribe,
    Unsubscribe,
)
from protocol.ledger import Ledger
from protocol.limits import RateLimiter
from protocol.requests import (
    AwaitRequests,
    CancelOwned,
    CancelRequest,
    CountRequests,
    DeleteRequest,
    EndRequests,
    GetRequest,
    Submit,
)
from protocol.routes import SetRoutes
from protocol.users import UserMessage
from service.auth.authenticator import Authenticator
from service.auth.keys import KeyRing
from service.auth.passing import Passing
from service.auth.tickets import Tickets
from service.auth.token_config import token_plans
from service.auth.tokens import open_token_verifier
from service.body_shares import BodyShares
from service.config.check import start_faults
from service.config.routes_file import RoutesFile, open_routes
from service.config.routes_watcher import GetRejected, RoutesWatcher
from service.config.settings import Settings, variable
from service.frames import text_frame
from service.lifecycle import Lifecycle
from service.telemetry.setup import Telemetry, open_telemetry
from service.watchdog import LoopWatchdog

RouterMessage = (
    Submit
    | GetRequest
    | CancelRequest
    | CancelOwned
    | DeleteRequest
    | CountRequests
    | AwaitRequests
    | EndRequests
    | ForgetModels
)
GatewayMessage = Complete | ResolveModel | ListModels | GetProviders | SetRoutes
EmbeddingsMessage = Embed | ListModels | SetRoutes
HubMessage = (
    Subscribe
    | Unsubscribe
    | LimitSocket
    | SocketClosed
    | DisconnectAll
    | DisconnectIdle
    | GetHubStats
    | ChannelMessage
    | UserMessage
)
CacheMessage = CacheGet | CachePut | CacheDelete | GetCacheStats


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """The parts of one running service.

    Attributes:
        settings: the operator's settings.
        auth: authenticates callers.
        lifecycle: the phase of the service, and its running calls.
        telemetry: the tracer, where spans are exported.
        system: runs the actors.
        router: submits, finds, cancels and deletes requests.
        gateway: calls the providers of models.
        hub: the subscriptions of sockets, and the channels.
        cache: finished logs.
        embeddings: turns texts into vectors.
        ledger: what accounts have spent.
        limits: what callers may do in a time.
        routes: watches the routes' file.
        tenants: share the bounds.
        watchdog: watches the event loop, where the server has started it.
        passing: which fields of a call go upstream.
        bodies: counts the bytes of large bodies.
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
    limits: RateLimits
    routes: Ref[GetRejected]
    tenants: Tenants
    watchdog: LoopWatchdog
    passing: Passing
    bodies: BodyShares


@asynccontextmanager
async def open_container(
    settings: Settings,
    *,
    telemetry: Telemetry | None = None,
    gateway: Callable[[], LLMGateway] | None = None,
    ledger: Ledger | None = None,
    limiter: RateLimiter | None = None,
) -> AsyncIterator[Container]:
    """Start every part of the service, and stop them in reverse order.

    Args:
        settings: the operator's settings.
        telemetry: exports spans; by default made from ``settings``, and closed at the end.
        gateway: makes the gateway; by default from ``settings``. A test passes one with a scripted upstream.
        ledger: records what accounts spend; None for one in memory. A custom gateway needs the same one.
        limiter: counts against the callers' plans; None for one in memory.

    Raises:
        ConfigurationError: the settings name something that does not exist.
    """
    routes = open_routes(settings.routes_file)
    keys = open_keys(settings, routes)
    auth = Authenticator(keys, open_token_verifier(settings.tokens()), Tickets(tenants=keys.tenants))
    with _faults_of(settings, routes):
        auth.set_plans(token_plans(routes.jwt, routes.plans))
    ledger = ledger or MemoryLedger()
    limits = RateLimits(limiter or MemoryRateLimiter(), open_on_failure=settings.rate_limits_fail_open)
    with _faults_of(settings, routes):
        make_gateway = gateway or build_gateway(settings.gateway(routes.routes), ledger=ledger)
    spans = open_telemetry(settings) if telemetry is None else telemetry
    try:
        async with System(tracer_provider=spans.provider, on_escalate=_escalated) as system:
            with _faults_of(settings, routes):
                container = _assemble(settings, spans, system, make_gateway, routes, keys, auth, (ledger, limits))
            yield container
    finally:
        await auth.close()
        if telemetry is None:
            await spans.close()


def open_keys(settings: Settings, file: RoutesFile) -> KeyRing:
    """Return the keys of the settings and of the file, and with them the tenants that share the bounds.

    Raises:
        ConfigurationError: a key is invalid; the message names it.
    """
    pepper = settings.key_pepper.get_secret_value().encode() if settings.key_pepper else b""
    secrets = (key.get_secret_value() for key in settings.api_keys)
    tenants = Tenants(settings.max_tenants, open=settings.tokens().enabled)
    keys = KeyRing(secrets, pepper=pepper, variable=variable, tenants=tenants)
    with _faults_of(settings, file):
        keys.replace(file.keys, file.plans)
    return keys


@contextmanager
def _faults_of(settings: Settings, file: RoutesFile) -> Iterator[None]:
    """Raise, instead of the fault that was met first, every fault, each with its place."""
    try:
        yield
    except ConfigurationError as error:
        faults = start_faults(settings, file)
        raise ConfigurationError.of(faults or file.located(error.faults)) from error


def _assemble(
    settings: Settings,
    telemetry: Telemetry,
    system: System,
    make_gateway: Callable[[], LLMGateway],
    routes: RoutesFile,
    keys: KeyRing,
    auth: Authenticator,
    counters: tuple[Ledger, RateLimits],
) -> Container:
    ledger, limits = counters
    tenants, bounds = keys.tenants, settings.requests()
    cache = system.spawn(lambda: CacheActor(settings.cache(), tenants), name="cache")
    gateway = system.spawn(make_gateway, name="llm-gateway")
    router = system.spawn(
        lambda: RequestRouter(gateway=gateway, cache=cache, limits=bounds, tenants=tenants),
        name="request-router",
    )
    embeddings = system.spawn(
        build_embeddings(settings.embeddings(routes.routes), ledger=ledger, tenants=tenants), name="embeddings"
    )
    hub = system.spawn(
        lambda: SubscriptionHub(
            text_frame, channels=settings.channels(), subscriptions=settings.max_subscriptions, tenants=tenants
        ),
        name="subscription-hub",
    )
    passing = Passing(routes.routes)
    watcher = system.spawn(
        lambda: RoutesWatcher(
            routes,
            targets=(embeddings, gateway),
            router=router,
            keys=keys,
            rights=auth,
            limit_tokens=auth.set_plans,
            passing=passing,
            check=partial(start_faults, settings),
        ),
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
        limits=limits,
        routes=watcher,
        tenants=tenants,
        watchdog=LoopWatchdog(settings.loop_lag_warning_ms / 1000, tracer=telemetry.tracer),
        passing=passing,
        bodies=BodyShares(settings.max_bodies_bytes, tenants),
    )


def _escalated(name: str, error: Exception) -> None:
    structlog.get_logger("service").critical("actor_stopped", actor=name, exc_info=error)
