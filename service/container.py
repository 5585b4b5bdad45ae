"""The composition of the service: the one place that makes its actors and passes them to each other."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

import structlog

from actors.cache import CacheActor
from actors.embeddings import build_embeddings
from actors.ledger import MemoryLedger
from actors.llm_gateway import LLMGateway, build_gateway
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
from service.auth.tokens import open_token_verifier
from service.config.check import start_faults
from service.config.routes_file import RoutesFile, open_routes
from service.config.routes_watcher import GetRejected, RoutesWatcher
from service.config.settings import Settings, variable
from service.frames import text_frame
from service.lifecycle import Lifecycle
from service.telemetry.setup import Telemetry, open_telemetry

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
        routes: watches the routes' file.
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
    routes: Ref[GetRejected]


@asynccontextmanager
async def open_container(
    settings: Settings,
    *,
    telemetry: Telemetry | None = None,
    gateway: Callable[[], LLMGateway] | None = None,
    ledger: Ledger | None = None,
) -> AsyncIterator[Container]:
    """Start every part of the service, and stop them in reverse order.

    Args:
        settings: the operator's settings.
        telemetry: exports spans; by default made from ``settings``, and closed at the end.
        gateway: makes the gateway; by default from ``settings``. A test passes one with a scripted upstream.
        ledger: records what accounts spend; None for one in memory. A custom gateway needs the same one.

    Raises:
        ConfigurationError: the settings name something that does not exist.
    """
    routes = open_routes(settings.routes_file)
    keys = open_keys(settings, routes)
    auth = Authenticator(keys, open_token_verifier(settings.tokens()))
    ledger = ledger or MemoryLedger()
    with _faults_of(settings, routes):
        make_gateway = gateway or build_gateway(settings.gateway(routes.routes), ledger=ledger)
    spans = open_telemetry(settings) if telemetry is None else telemetry
    try:
        async with System(tracer_provider=spans.provider, on_escalate=_escalated) as system:
            with _faults_of(settings, routes):
                container = _assemble(settings, spans, system, make_gateway, routes, keys, auth, ledger)
            yield container
    finally:
        await auth.close()
        if telemetry is None:
            await spans.close()


def open_keys(settings: Settings, file: RoutesFile) -> KeyRing:
    """Return the keys of the settings and of the file.

    Raises:
        ConfigurationError: a key is invalid; the message names it.
    """
    pepper = settings.key_pepper.get_secret_value().encode() if settings.key_pepper else b""
    keys = KeyRing((key.get_secret_value() for key in settings.api_keys), pepper=pepper, variable=variable)
    with _faults_of(settings, file):
        keys.replace(file.keys)
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
    ledger: Ledger,
) -> Container:
    cache = system.spawn(lambda: CacheActor(settings.cache()), name="cache")
    gateway = system.spawn(make_gateway, name="llm-gateway")
    router = system.spawn(
        lambda: RequestRouter(gateway=gateway, cache=cache, limits=settings.requests()), name="request-router"
    )
    embeddings = system.spawn(build_embeddings(settings.embeddings(routes.routes), ledger=ledger), name="embeddings")
    hub = system.spawn(lambda: SubscriptionHub(text_frame, channels=settings.channels()), name="subscription-hub")
    watcher = system.spawn(
        lambda: RoutesWatcher(
            routes,
            targets=(embeddings, gateway),
            router=router,
            keys=keys,
            rights=auth,
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
        routes=watcher,
    )


def _escalated(name: str, error: Exception) -> None:
    structlog.get_logger("service").critical("actor_stopped", actor=name, exc_info=error)
