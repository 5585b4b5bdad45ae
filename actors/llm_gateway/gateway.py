"""The actor that answers: it finds the provider, admits, attempts, validates and counts."""

import random
from collections.abc import Callable, Collection, Mapping
from typing import ClassVar, Final

from actors.ledger import MemoryLedger
from actors.llm_gateway.attempt_deps import Commons
from actors.llm_gateway.budget import Till
from actors.llm_gateway.completion import Course
from actors.llm_gateway.config import Limits
from actors.llm_gateway.drain import Drain
from actors.llm_gateway.provider import Provider
from actors.llm_gateway.provider_endpoint import Upstream
from actors.llm_gateway.routing import RoutingTable
from actors.llm_gateway.schema import Schemas
from actors.runtime import Actor, Deferred, handles
from actors.upstream.concurrency import Lane
from actors.upstream.pricing import Prices
from actors.upstream.retry import RetryPolicy
from protocol.errors import ConfigurationError
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

MARGIN: Final = 0.02  # seconds by which our deadline precedes the asker's, so that it hears a typed error


class LLMGateway(Actor[Complete | ResolveModel | ListModels | GetProviders | SetRoutes]):
    """Answers from its providers, as its routes say.

    A model is named by an alias of the routes, or as ``provider/model``, or by a name that the provider of
    ``default_model`` accepts, or ``default``.

    Args:
        providers: by their names; they are opened and closed with the actor.
        default_model: what ``default`` means where the routes don't say, as ``provider/model``.
        routes: what is in force until ``SetRoutes`` says otherwise.
        make_provider: makes a provider that the routes name; None where they may name none.
        limits: what is allowed.
        retry: when a failed attempt is followed by another.
        draw: gives a number in 0..1, for routes that are weighted.
        ledger: where what accounts spend is kept; None for one in memory that nobody else sees.

    Raises:
        ConfigurationError: ``default_model`` or a route names a provider or a model that is not there.
    """

    capacity: ClassVar[int] = 4096

    def __init__(
        self,
        providers: Mapping[str, Provider],
        *,
        default_model: str,
        routes: Routes | None = None,
        make_provider: Callable[[str, ProviderSpec], Provider] | None = None,
        limits: Limits | None = None,
        retry: RetryPolicy | None = None,
        draw: Callable[[], float] = random.random,
        ledger: Ledger | None = None,
    ) -> None:
        self._default_model = default_model
        self._make_provider = make_provider
        self._limits = limits or Limits()
        self._retry = retry or RetryPolicy()
        self._draw = draw
        self._schemas = Schemas()
        self._prices = Prices()
        self._ledger = ledger or MemoryLedger()
        self._builtin = {name: self._upstream(provider) for name, provider in providers.items()}
        self._retired: set[Upstream] = set()
        self._named: dict[str, Upstream] = {}
        self._routes = routes or Routes()
        self._named = self._made(self._routes)
        self._table = self._planned(self._routes, self._named)

    async def started(self) -> None:
        """Open the providers; none of them waits for anything slow."""
        self._commons = Commons(
            clock=self.system.clock,
            tracer=self.system.tracer,
            tracing=self.system.tracing,
            retry=self._retry,
            max_chars=self._limits.max_chars,
            till=Till(self._prices, self._ledger),
            drain=Drain(self.system, seconds=self._limits.drain),
        )
        for upstream in (*self._builtin.values(), *self._named.values()):
            await upstream.provider.open()
        if any(upstream.provider.price_id for upstream in self._upstreams()):
            self._reading = self.system.background(self._prices.load(), name="prices")

    async def stopped(self) -> None:
        """Close the providers, also those that new routes have done away with."""
        for upstream in (*self._builtin.values(), *self._named.values(), *self._retired):
            await upstream.provider.close()

    @handles(Complete)
    async def complete(self, message: Complete) -> Deferred[Completion]:
        """Answer beside the mailbox: nothing here waits for the network."""
        limit, asked = self.system.clock.time() + self._limits.total, self.deadline
        deadline = limit if asked is None else min(limit, asked - MARGIN)
        return self.defer(self._complete(message, deadline))

    @handles(ResolveModel)
    async def resolve(self, message: ResolveModel) -> ModelInfo:
        """Say who would serve a model; of a route, its first target."""
        return self._info(message.model)

    @handles(ListModels)
    async def models(self, _message: ListModels) -> tuple[ModelInfo, ...]:
        """``default``, what it means, the aliases, and then every model that a provider lists."""
        return tuple(map(self._info, self._table.names))

    @handles(GetProviders)
    async def statuses(self, _message: GetProviders) -> tuple[ProviderStatus, ...]:
        """Every provider, with what it does at the moment."""
        now = self.system.clock.time()
        return tuple(_status(upstream, now) for upstream in self._upstreams())

    @handles(SetRoutes)
    async def set_routes(self, message: SetRoutes) -> None:
        """Put other routes in force. A provider that they do away with is closed after its last request."""
        if message.routes == self._routes:
            return
        named = self._made(message.routes)
        table = self._planned(message.routes, named)
        old = self._named
        for upstream in named.values():
            await upstream.provider.open()
        self._routes, self._named, self._table = message.routes, named, table
        for upstream in set(old.values()) - set(named.values()):
            self._retired.add(upstream)
            await self._let_go(upstream)

    def _upstream(self, provider: Provider, spec: ProviderSpec | None = None) -> Upstream:
        concurrency, queue = self._limits.concurrency, self._limits.queue
        if spec is not None:
            concurrency = spec.concurrency or concurrency
            queue = queue if spec.queue is None else spec.queue
        return Upstream(provider, Lane(provider.name, concurrency=concurrency, queue=queue), spec)

    def _made(self, routes: Routes) -> dict[str, Upstream]:
        """Return the providers that ``routes`` name; those that are the same as before are the same still."""
        named: dict[str, Upstream] = {}
        for name, spec in routes.providers.items():
            known = self._named.get(name)
            if known is not None and known.spec == spec:
                named[name] = known
            elif self._make_provider is None:
                raise ConfigurationError(f"providers.{name}: this gateway makes no providers")
            else:
                named[name] = self._upstream(self._make_provider(name, spec), spec)
        return named

    def _planned(self, routes: Routes, named: Mapping[str, Upstream]) -> RoutingTable:
        return RoutingTable({**self._builtin, **named}, routes, self._default_model)

    def _upstreams(self) -> Collection[Upstream]:
        return {**self._builtin, **self._named}.values()

    def _info(self, name: str) -> ModelInfo:
        return ModelInfo(name, self._table.legs(name, _first)[0].upstream.provider.name)

    async def _let_go(self, upstream: Upstream) -> None:
        if upstream.idle and upstream in self._retired:
            self._retired.discard(upstream)
            await upstream.provider.close()

    async def _complete(self, message: Complete, deadline: float) -> Completion:
        request = message.request
        legs = self._table.legs(request.model, self._draw)
        validator = None if request.schema is None else self._schemas.validator(request.schema)
        for leg in legs:
            leg.upstream.hold()
        try:
            return await Course(message, legs, deadline=deadline, commons=self._commons, validator=validator).run()
        finally:
            for leg in legs:
                leg.upstream.release()
                if self._retired:
                    await self._let_go(leg.upstream)


def _status(upstream: Upstream, now: float) -> ProviderStatus:
    state, detail = upstream.provider.status()
    return ProviderStatus(
        name=upstream.provider.name,
        state=state,
        detail=detail,
        in_flight=upstream.lane.in_flight,
        queued=upstream.queued,
        targets=upstream.targets(now),
    )


def _first() -> float:
    return 1.0
