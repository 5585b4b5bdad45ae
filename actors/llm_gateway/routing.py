"""Routing table: from a model's name to its targets, in the order in which they are called."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from actors.llm_gateway.provider_endpoint import ProviderEndpoint
from protocol.errors import ConfigurationError, FieldError, NotFound
from protocol.llm import ChatRequest
from protocol.nearest import nearest
from protocol.routes import Route, Routes, Target
from protocol.upstream import without_key

DEFAULT: Final = "default"
MAX_FOUND: Final = 256  # names outside the routes whose targets are kept
OPTIONS: Final = ("temperature", "top_p", "max_tokens", "seed")


class ResolvedTarget:
    """A target of a route, with its endpoint.

    Attributes:
        endpoint: serves the model.
        model: the provider's own name of it.
        price_id: the provider's name in the price list; empty for none.
        weight: its share of the requests that call it first.
        first_token: the longest wait for its first content, in seconds; None for as long as the request has.
        hedge_after: seconds without content after which a second call is made beside it; None for never.
    """

    __slots__ = ("_options", "_stop", "endpoint", "first_token", "hedge_after", "model", "price_id", "weight")

    def __init__(
        self, endpoint: ProviderEndpoint, model: str, target: Target | None = None, *, hedge_after: float | None = None
    ) -> None:
        self.endpoint = endpoint
        self.model = model
        self.price_id = endpoint.provider.price_id
        self.weight = 1.0 if target is None else target.weight
        own = None if target is None else target.first_token_timeout
        self.first_token = own or endpoint.provider.deadlines.first_token
        self.hedge_after = hedge_after
        self._options = {} if target is None else _options(target)
        self._stop = () if target is None else target.stop

    def request(self, request: ChatRequest, seed: int | None = None) -> ChatRequest:
        """Return ``request`` with the target's options where it has none of its own.

        ``seed`` is a made-up one: sent where neither has a seed, and the provider is known to have seeds.
        """
        request = self._with_options(request)
        if seed is None or request.seed is not None or not self.endpoint.provider.seeds:
            return request
        return msgspec.structs.replace(request, seed=seed)

    def _with_options(self, request: ChatRequest) -> ChatRequest:
        if not self._options and not self._stop:
            return request
        added: dict[str, Any] = {name: value for name, value in self._options.items() if getattr(request, name) is None}
        if self._stop and not request.stop:
            added["stop"] = self._stop
        return msgspec.structs.replace(request, **added)


def _options(target: Target) -> dict[str, Any]:
    options = {name: getattr(target, name) for name in OPTIONS}
    return {name: value for name, value in options.items() if value is not None}


class RoutingTable:
    """Routes over endpoints, each name checked.

    Args:
        endpoints: by the providers' names.
        routes: the operator's aliases.
        default_model: the target of ``default`` where ``routes`` have none, as ``provider/model``; its provider also
            serves names that are no alias and have no provider in front.

    Raises:
        ConfigurationError: a route names a provider or a model that does not exist; the message says where.
    """

    def __init__(self, endpoints: Mapping[str, ProviderEndpoint], routes: Routes, default_model: str) -> None:
        self._endpoints = endpoints
        name, _, model = default_model.partition("/")
        if name not in endpoints or not model:
            raise ConfigurationError(f"the default model is {default_model!r}, but {self._known()}")
        self._default_endpoint = endpoints[name]
        self._aliases = tuple(routes.routes)
        self._faults: list[FieldError] = []
        self._routes = {alias: self._compiled(alias, route) for alias, route in routes.routes.items()}
        self._weighted = {alias for alias, route in routes.routes.items() if route.order == "weighted"}
        self._default = [ResolvedTarget(self._default_endpoint, model)]
        self._found: dict[str, list[ResolvedTarget]] = {}
        self._default_name = default_model
        if routes.default:
            self._default_name = routes.default
            self._default = self._routes.get(routes.default) or self._checked("default", Target(model=routes.default))
        if self._faults:
            raise ConfigurationError.of(self._faults)

    @property
    def names(self) -> tuple[str, ...]:
        """``default``, the target of ``default``, every alias, and then the models that the providers list."""
        names = [DEFAULT, self._default_name, *self._routes]
        names += [f"{name}/{model}" for name, endpoint in self._endpoints.items() for model in endpoint.provider.models]
        return tuple(dict.fromkeys(names))

    def targets(self, name: str, draw: Callable[[], float]) -> list[ResolvedTarget]:
        """Return the targets of ``name`` in the order in which they are called; ``draw`` returns a number in 0..1.

        Raises:
            NotFound: ``model_not_found``.
        """
        alias = self._default_name if name == DEFAULT else name
        targets = self._routes.get(alias)
        if targets is None:
            return self._default if name == DEFAULT else self._found.get(name) or self._find(name)
        if alias in self._weighted:
            return sorted(targets, key=lambda target: draw() ** (1 / target.weight), reverse=True)
        return targets

    def _find(self, name: str) -> list[ResolvedTarget]:
        targets = [self._direct(name)]
        if len(self._found) >= MAX_FOUND:
            self._found.clear()
        self._found[name] = targets
        return targets

    def _direct(self, name: str) -> ResolvedTarget:
        prefix, slash, model = name.partition("/")
        endpoint = self._endpoints.get(prefix) if slash else None
        if endpoint is None:
            endpoint, model = self._default_endpoint, name
        elif model == DEFAULT and endpoint.provider.models:
            model = endpoint.provider.models[0]
        if not model or not endpoint.provider.accepts(model):
            raise NotFound(f"there is no model {name[:80]!r}", code="model_not_found")
        return ResolvedTarget(endpoint, model)

    def _compiled(self, alias: str, route: Route) -> list[ResolvedTarget]:
        if alias == DEFAULT:
            message = "name the route otherwise, and set `default` to that name"
            self._faults.append(FieldError("routes.default", message))
        compiled: list[ResolvedTarget] = []
        for index, target in enumerate(route.targets):
            full = Target(model=target) if isinstance(target, str) else target
            compiled += self._checked(f"routes.{alias}.targets[{index}]", full, hedge_after=route.hedge_after)
        return compiled

    def _checked(self, where: str, target: Target, *, hedge_after: float | None = None) -> list[ResolvedTarget]:
        """Return the target, or nothing and keep its fault."""
        name, _, model = target.model.partition("/")
        endpoint = self._endpoints.get(name)
        fault = ""
        if endpoint is None or not model:
            fault = f"{target.model!r} is no `provider/model`: {self._known()}{self._meant(target.model)}"
        elif not endpoint.provider.accepts(model):
            fault = f"{name} has no model {model!r}{nearest(model, endpoint.provider.models)}"
        else:
            return [ResolvedTarget(endpoint, model, target, hedge_after=hedge_after)]
        self._faults.append(FieldError(where, fault))
        return []

    def _meant(self, target: str) -> str:
        """Return what an unknown target may mean."""
        name, slash, _ = target.partition("/")
        if slash and name not in self._endpoints:
            return without_key(name) or nearest(name, self._endpoints)
        listed = (f"{name}/{model}" for name, endpoint in self._endpoints.items() for model in endpoint.provider.models)
        return nearest(target, (*self._aliases, *listed))

    def _known(self) -> str:
        return f"the providers are: {', '.join(sorted(self._endpoints))}"
