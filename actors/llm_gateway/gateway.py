"""The gateway actor: routes chat requests to providers, and keeps the providers open."""

import random
from collections.abc import Callable, Collection, Mapping
from typing import ClassVar, Final

from actors.ledger import MemoryLedger
from actors.llm_gateway.attempt_deps import AttemptDeps
from actors.llm_gateway.completion import CompletionRun
from actors.llm_gateway.config import GatewayLimits
from actors.llm_gateway.drain import Drain
from actors.llm_gateway.provider import Provider
from actors.llm_gateway.provider_endpoint import ProviderEndpoint
from actors.llm_gateway.routing import RoutingTable
from actors.llm_gateway.schema import Schemas
from actors.resilience.retry import RetryPolicy
from actors.runtime import Actor, Deferred, handles
from actors.upstream.budget import BudgetGuard
from actors.upstream.concurrency import ConcurrencyLimiter
from actors.upstream.pricing import Prices
from protocol.errors import ConfigurationError, DeadlineExceeded, FieldError
from protocol.gateway import (
    Complete,
    Completion,
    GetProviders,
    ListModels,
    ModelInfo,
    ProviderStatus,
    ResolveModel,
)
from protocol.ledger import Ledger
from protocol.routes import ProviderSpec, Routes, SetRoutes

MARGIN: Final = 0.02  # seconds by which our deadline precedes the asker's, so that it gets a typed error


class LLMGateway(Actor[Complete | ResolveModel | ListModels | GetProviders | SetRoutes]):
    """Answers chat requests from its providers, as its routes say.

    A model is named by an alias of the routes, or as ``provider/model``, or by a name that the provider of
    ``default_model`` accepts, or ``default``.

    Args:
        providers: by their names; they are opened and closed with the actor.
        default_model: the target of ``default`` where the routes have none, as ``provider/model``.
        routes: in force until ``SetRoutes`` replaces them.
        make_provider: makes a provider that the routes name; None where they may name none.
        limits: the gateway's bounds.
        retry: when a failed attempt is followed by another.
        draw: returns a number in 0..1, for weighted routes.
        ledger: counts what accounts spend; None for one in memory, of this actor alone.

    Raises:
        ConfigurationError: ``default_model`` or a route names a provider or a model that does not exist.
    """

    capacity: ClassVar[int] = 4096

    def __init__(
        self,
        providers: Mapping[str, Provider],
        *,
        default_model: str,
        routes: Routes | None = None,
        make_provider: Callable[[str, ProviderSpec], Provider] | None = None,
        limits: GatewayLimits | None = None,
        retry: RetryPolicy | None = None,
        draw: Callable[[], float] = random.random,
        ledger: Ledger | None = None,
    ) -> None:
        self._default_model = default_model
        self._make_provider = make_provider
        self._limits = limits or GatewayLimits()
        self._retry = retry or RetryPolicy()
        self._draw = draw
        self._prices = Prices()
        self._ledger = ledger or MemoryLedger()
        self._builtin = {name: self._endpoint(provider) for name, provider in providers.items()}
        self._retired: set[ProviderEndpoint] = set()
        self._named: dict[str, ProviderEndpoint] = {}
        self._routes = routes or Routes()
        self._named = self._named_endpoints(self._routes)
        self._table = self._routing(self._routes, self._named)

    async def started(self) -> None:
        """Open the providers; none of them waits for anything slow."""
        self._schemas = Schemas()
        self._deps = AttemptDeps(
            clock=self.system.clock,
            tracer=self.system.tracer,
            tracing=self.system.tracing,
            retry=self._retry,
            max_chars=self._limits.max_chars,
            budget=BudgetGuard(self._prices, self._ledger),
            drain=Drain(self.system, seconds=self._limits.drain),
            schemas=self._schemas,
        )
        for endpoint in (*self._builtin.values(), *self._named.values()):
            await endpoint.provider.open()
        if any(endpoint.provider.price_id for endpoint in self._endpoints()):
            self._reading = self.system.background(self._prices.load(), name="prices")

    async def stopped(self) -> None:
        """Close the providers, also those that new routes have removed."""
        for endpoint in (*self._builtin.values(), *self._named.values(), *self._retired):
            await endpoint.provider.close()
        await self._schemas.close()

    @handles(Complete)
    async def complete(self, message: Complete) -> Deferred[Completion]:
        """Answer in a task beside the mailbox, so that the mailbox never waits for the network."""
        latest, theirs = self.system.clock.time() + self._limits.total, self.deadline
        if theirs is not None and theirs - MARGIN < latest:
            return self.defer(self._complete(message, theirs - MARGIN))
        return self.defer(self._complete_within_total(message, latest))

    @handles(ResolveModel)
    async def resolve(self, message: ResolveModel) -> ModelInfo:
        """Return the provider of a model; of a route, that of its first target."""
        return self._info(message.model)

    @handles(ListModels)
    async def models(self, _message: ListModels) -> tuple[ModelInfo, ...]:
        """Return ``default``, the target of ``default``, the aliases, and then every model that a provider lists."""
        return tuple(map(self._info, self._table.names))

    @handles(GetProviders)
    async def statuses(self, _message: GetProviders) -> tuple[ProviderStatus, ...]:
        """Return the status of every provider."""
        now = self.system.clock.time()
        return tuple(_status(endpoint, now) for endpoint in self._endpoints())

    @handles(SetRoutes)
    async def set_routes(self, message: SetRoutes) -> None:
        """Replace the routes. A provider that the new ones do not name is closed after its last request."""
        if message.routes == self._routes:
            return
        named = self._named_endpoints(message.routes)
        table = self._routing(message.routes, named)
        old = self._named
        for endpoint in named.values():
            await endpoint.provider.open()
        self._routes, self._named, self._table = message.routes, named, table
        for endpoint in set(old.values()) - set(named.values()):
            self._retired.add(endpoint)
            await self._close_unused(endpoint)

    def _endpoint(self, provider: Provider, spec: ProviderSpec | None = None) -> ProviderEndpoint:
        concurrency, queue = self._limits.concurrency, self._limits.queue
        if spec is not None:
            concurrency = spec.concurrency or concurrency
            queue = queue if spec.queue is None else spec.queue
        return ProviderEndpoint(provider, ConcurrencyLimiter(provider.name, concurrency=concurrency, queue=queue), spec)

    def _named_endpoints(self, routes: Routes) -> dict[str, ProviderEndpoint]:
        """Return the providers that ``routes`` name; one whose spec has not changed is kept."""
        named: dict[str, ProviderEndpoint] = {}
        faults: list[FieldError] = []
        for name, spec in routes.providers.items():
            known = self._named.get(name)
            if known is not None and known.spec == spec:
                named[name] = known
            elif self._make_provider is None:
                faults.append(FieldError(f"providers.{name}", "this gateway makes no providers"))
            else:
                try:
                    named[name] = self._endpoint(self._make_provider(name, spec), spec)
                except ConfigurationError as error:
                    faults += error.faults
        if faults:
            raise ConfigurationError.of(faults)
        return named

    def _routing(self, routes: Routes, named: Mapping[str, ProviderEndpoint]) -> RoutingTable:
        return RoutingTable({**self._builtin, **named}, routes, self._default_model)

    def _endpoints(self) -> Collection[ProviderEndpoint]:
        return {**self._builtin, **self._named}.values()

    def _info(self, name: str) -> ModelInfo:
        return ModelInfo(name, self._table.targets(name, _first)[0].endpoint.provider.name)

    async def _close_unused(self, endpoint: ProviderEndpoint) -> None:
        if endpoint.idle and endpoint in self._retired:
            self._retired.discard(endpoint)
            await endpoint.provider.close()

    async def _complete_within_total(self, message: Complete, latest: float) -> Completion:
        try:
            return await self._complete(message, latest)
        except DeadlineExceeded as error:
            raise error.within(self._limits.total) from error

    async def _complete(self, message: Complete, deadline: float) -> Completion:
        request = message.request
        targets = self._table.targets(request.model, self._draw)
        validator = None if request.schema is None else self._schemas.validator(request.schema)
        for target in targets:
            target.endpoint.hold()
        try:
            return await CompletionRun(message, targets, deadline=deadline, deps=self._deps, validator=validator).run()
        finally:
            for target in targets:
                target.endpoint.release()
                if self._retired:
                    await self._close_unused(target.endpoint)


def _status(endpoint: ProviderEndpoint, now: float) -> ProviderStatus:
    state, detail = endpoint.provider.status()
    return ProviderStatus(
        name=endpoint.provider.name,
        state=state,
        detail=detail,
        in_flight=endpoint.limiter.in_flight,
        queued=endpoint.queued,
        targets=endpoint.targets(now),
        fault=endpoint.fault,
    )


def _first() -> float:
    return 1.0
