"""Endpoints of embedders, and the routing table from names to them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from actors.embeddings.embedder import Embedder
from actors.upstream.concurrency import ConcurrencyLimiter
from actors.upstream.endpoint import Endpoint
from protocol.errors import ConfigurationError, FieldError, NotFound
from protocol.gateway import ModelInfo
from protocol.nearest import nearest
from protocol.routes import ProviderSpec, Routes
from protocol.upstream import without_key

DEFAULT: Final = "default"

MakeEmbedder = Callable[[str, ProviderSpec], Embedder | None]


class EmbedderEndpoint(Endpoint):
    """An embedder, with its concurrency, its retry budget, and the health of its models.

    Args:
        embedder: makes the vectors.
        limiter: as for every ``Endpoint``; so is ``spec``.
    """

    __slots__ = ("embedder",)

    def __init__(self, embedder: Embedder, limiter: ConcurrencyLimiter, spec: ProviderSpec | None = None) -> None:
        super().__init__(embedder.name, limiter, spec, url=embedder.base_url)
        self.embedder = embedder


class EmbeddingTarget(NamedTuple):
    """A target of a route, with its endpoint; ``model`` is the embedder's own name of it."""

    endpoint: EmbedderEndpoint
    model: str

    @property
    def name(self) -> str:
        """Its name in routes."""
        return f"{self.endpoint.name}/{self.model}"

    @property
    def price_id(self) -> str:
        """The embedder's name in the price list; empty for none."""
        return self.endpoint.embedder.price_id


class EmbedderEndpoints:
    """All embedders, and the routes to them.

    Args:
        embedders: by their names.
        default_model: the target of ``default``: an alias, or ``provider/model``, whose provider also serves names
            without a provider.
        routes: the operator's aliases and further providers.
        make: makes a provider that the routes name; returns None for one that does not embed.
        limiter: makes the concurrency limiter of an embedder.

    Raises:
        ConfigurationError: a route names a provider or a model that does not exist; the message says where.
    """

    def __init__(
        self,
        embedders: Mapping[str, Embedder],
        *,
        default_model: str,
        routes: Routes,
        make: MakeEmbedder,
        limiter: Callable[[Embedder], ConcurrencyLimiter],
    ) -> None:
        self._default_model = default_model
        self._make = make
        self._limiter = limiter
        self._builtin = {name: EmbedderEndpoint(embedder, limiter(embedder)) for name, embedder in embedders.items()}
        self._retired: set[EmbedderEndpoint] = set()
        self._routes = routes
        self._named: dict[str, EmbedderEndpoint] = {}
        self._named = self._named_endpoints(routes)
        self._table = _RoutingTable({**self._builtin, **self._named}, routes, default_model)

    async def open(self) -> None:
        """Open the embedders."""
        for endpoint in (*self._builtin.values(), *self._named.values()):
            await endpoint.embedder.open()

    async def close(self) -> None:
        """Close the embedders, also those that new routes have removed."""
        for endpoint in (*self._builtin.values(), *self._named.values(), *self._retired):
            await endpoint.embedder.close()

    def targets(self, name: str) -> tuple[EmbeddingTarget, ...]:
        """Return the targets of ``name`` in their order. Raises ``NotFound``: ``model_not_found``."""
        return self._table.targets(name)

    def models(self) -> tuple[ModelInfo, ...]:
        """Return ``default``, the target of ``default``, every alias, and then the models that the embedders list."""
        return tuple(ModelInfo(name, self.targets(name)[0].endpoint.name) for name in self._table.names)

    async def replace(self, routes: Routes) -> None:
        """Replace the routes. An embedder that the new ones do not name is closed after its last call.

        Raises:
            ConfigurationError: they name a provider or a model that does not exist; the old routes stay.
        """
        if routes != self._routes:
            named = self._named_endpoints(routes)
            table = _RoutingTable({**self._builtin, **named}, routes, self._default_model)
            for endpoint in named.values():
                await endpoint.embedder.open()
            self._retired |= set(self._named.values()) - set(named.values())
            self._routes, self._named, self._table = routes, named, table
        await self.close_unused()

    async def close_unused(self) -> None:
        """Close the removed embedders that no request uses any more."""
        for endpoint in [endpoint for endpoint in self._retired if endpoint.idle]:
            self._retired.discard(endpoint)
            await endpoint.embedder.close()

    def _named_endpoints(self, routes: Routes) -> dict[str, EmbedderEndpoint]:
        """Return the embedders that ``routes`` name; one whose spec has not changed is kept."""
        named: dict[str, EmbedderEndpoint] = {}
        faults: list[FieldError] = []
        for name, spec in routes.providers.items():
            known = self._named.get(name)
            if known is not None and known.spec == spec:
                named[name] = known
                continue
            try:
                embedder = self._make(name, spec)
            except ConfigurationError as error:
                faults += error.faults
            else:
                if embedder is not None:
                    named[name] = EmbedderEndpoint(embedder, self._limiter(embedder), spec)
        if faults:
            raise ConfigurationError.of(faults)
        return named


class _RoutingTable:
    """Routes over endpoints, each name checked."""

    def __init__(self, endpoints: Mapping[str, EmbedderEndpoint], routes: Routes, default_model: str) -> None:
        self._endpoints = endpoints
        faults: list[FieldError] = []
        self._aliases: dict[str, tuple[EmbeddingTarget, ...]] = {}
        for alias, route in routes.embeddings.items():
            try:
                self._aliases[alias] = tuple(self._target(f"embeddings.{alias}", target) for target in route.targets)
            except ConfigurationError as error:
                faults += error.faults
        if DEFAULT in routes.embeddings:
            message = "name the route otherwise, and set DEFAULT_EMBEDDING_MODEL to that name"
            faults.append(FieldError("embeddings.default", message))
        if faults:
            raise ConfigurationError.of(faults)
        self._default = self._aliases.get(default_model) or (
            self._target("DEFAULT_EMBEDDING_MODEL, the embedding model", default_model),
        )
        self._default_endpoint = self._default[0].endpoint
        self._default_name = default_model

    @property
    def names(self) -> Sequence[str]:
        names = [DEFAULT, self._default_name, *self._aliases]
        names += [f"{name}/{model}" for name, endpoint in self._endpoints.items() for model in endpoint.embedder.models]
        return tuple(dict.fromkeys(names))

    def targets(self, name: str) -> tuple[EmbeddingTarget, ...]:
        if name == DEFAULT:
            return self._default
        return self._aliases.get(name) or (self._direct(name),)

    def _direct(self, name: str) -> EmbeddingTarget:
        prefix, slash, model = name.partition("/")
        endpoint = self._endpoints.get(prefix) if slash else None
        if endpoint is None:
            endpoint, model = self._default_endpoint, name
        if not endpoint.embedder.accepts(model):
            raise NotFound(f"there is no embedding model {name[:80]!r}", code="model_not_found")
        return EmbeddingTarget(endpoint, model)

    def _target(self, where: str, target: str) -> EmbeddingTarget:
        name, _, model = target.partition("/")
        endpoint = self._endpoints.get(name)
        if endpoint is None or not model:
            known = ", ".join(sorted(self._endpoints))
            raise ConfigurationError(
                f"{where}: {target!r} is no `provider/model`: the providers that embed are: {known}"
                f"{without_key(name) or nearest(name, self._endpoints)}"
            )
        if not endpoint.embedder.accepts(model):
            listed = endpoint.embedder.models
            raise ConfigurationError(f"{where}: {name} has no model {model!r}{nearest(model, listed)}")
        return EmbeddingTarget(endpoint, model)
