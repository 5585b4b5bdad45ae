"""From a model's name to the targets that are asked for it, in their order."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from actors.llm_gateway.provider_endpoint import Upstream
from protocol.errors import ConfigurationError, NotFound
from protocol.llm import ChatRequest
from protocol.routes import Route, Routes, Target

DEFAULT: Final = "default"
FOUND: Final = 256  # names beside the routes' that are kept with what they have led to
OPTIONS: Final = ("temperature", "top_p", "max_tokens", "seed")


class Leg:
    """One target of a route, found.

    Attributes:
        upstream: whose model it is.
        model: the provider's own name of it.
        weight: its share of the requests that ask it first.
        first_token: the longest wait for its first content, in seconds; None for as long as the request has.
        hedge_after: seconds to its first content, after which another call is made beside it; None for never.
    """

    __slots__ = ("_options", "_stop", "first_token", "hedge_after", "model", "upstream", "weight")

    def __init__(
        self, upstream: Upstream, model: str, target: Target | None = None, *, hedge_after: float | None = None
    ) -> None:
        self.upstream = upstream
        self.model = model
        self.weight = 1.0 if target is None else target.weight
        own = None if target is None else target.first_token_timeout
        self.first_token = own or upstream.provider.deadlines.first_token
        self.hedge_after = hedge_after
        self._options = {} if target is None else _options(target)
        self._stop = () if target is None else target.stop

    def request(self, request: ChatRequest) -> ChatRequest:
        """Return ``request`` with the target's options where it has none of its own."""
        if not self._options and not self._stop:
            return request
        added: dict[str, Any] = {name: value for name, value in self._options.items() if getattr(request, name) is None}
        if self._stop and not request.stop:
            added["stop"] = self._stop
        return msgspec.structs.replace(request, **added)


def _options(target: Target) -> dict[str, Any]:
    given = {name: getattr(target, name) for name in OPTIONS}
    return {name: value for name, value in given.items() if value is not None}


class RoutingTable:
    """Routes over upstreams, each name checked.

    Args:
        upstreams: by the providers' names.
        routes: what the operator has named.
        default_model: what ``default`` means where ``routes`` don't say, as ``provider/model``; also, its provider is
            asked for names that are no alias and have no provider in front.

    Raises:
        ConfigurationError: a name leads nowhere; the message says where it stands.
    """

    def __init__(self, upstreams: Mapping[str, Upstream], routes: Routes, default_model: str) -> None:
        self._upstreams = upstreams
        name, _, model = default_model.partition("/")
        if name not in upstreams or not model:
            raise ConfigurationError(f"the default model is {default_model!r}, but {self._known()}")
        self._home = upstreams[name]
        self._routes = {alias: self._compiled(alias, route) for alias, route in routes.routes.items()}
        self._weighted = {alias for alias, route in routes.routes.items() if route.order == "weighted"}
        self._default = [Leg(self._home, model)]
        self._found: dict[str, list[Leg]] = {}
        self._meaning = default_model
        if routes.default:
            self._meaning = routes.default
            self._default = self._routes.get(routes.default) or [self._target("default", Target(model=routes.default))]

    @property
    def names(self) -> tuple[str, ...]:
        """``default``, what it means, every alias, and then the models that the providers list."""
        names = [DEFAULT, self._meaning, *self._routes]
        names += [f"{name}/{model}" for name, upstream in self._upstreams.items() for model in upstream.provider.models]
        return tuple(dict.fromkeys(names))

    def legs(self, name: str, draw: Callable[[], float]) -> list[Leg]:
        """Return the targets of ``name`` in the order in which they are asked; ``draw`` gives a number in 0..1.

        Raises:
            NotFound: ``model_not_found``.
        """
        alias = self._meaning if name == DEFAULT else name
        legs = self._routes.get(alias)
        if legs is None:
            return self._default if name == DEFAULT else self._found.get(name) or self._find(name)
        if alias in self._weighted:
            return sorted(legs, key=lambda leg: draw() ** (1 / leg.weight), reverse=True)
        return legs

    def _find(self, name: str) -> list[Leg]:
        legs = [self._direct(name)]
        if len(self._found) >= FOUND:
            self._found.clear()
        self._found[name] = legs
        return legs

    def _direct(self, name: str) -> Leg:
        prefix, slash, model = name.partition("/")
        upstream = self._upstreams.get(prefix) if slash else None
        if upstream is None:
            upstream, model = self._home, name
        elif model == DEFAULT and upstream.provider.models:
            model = upstream.provider.models[0]
        if not model or not upstream.provider.accepts(model):
            raise NotFound(f"there is no model {name[:80]!r}", code="model_not_found")
        return Leg(upstream, model)

    def _compiled(self, alias: str, route: Route) -> list[Leg]:
        if alias == DEFAULT:
            raise ConfigurationError("routes.default: name the route otherwise, and set `default` to that name")
        targets = (Target(model=target) if isinstance(target, str) else target for target in route.targets)
        return [
            self._target(f"routes.{alias}.targets[{index}]", target, hedge_after=route.hedge_after)
            for index, target in enumerate(targets)
        ]

    def _target(self, where: str, target: Target, *, hedge_after: float | None = None) -> Leg:
        name, _, model = target.model.partition("/")
        upstream = self._upstreams.get(name)
        if upstream is None or not model:
            raise ConfigurationError(f"{where}: {target.model!r} is no `provider/model`: {self._known()}")
        if not upstream.provider.accepts(model):
            raise ConfigurationError(f"{where}: {name} has no model {model!r}")
        return Leg(upstream, model, target, hedge_after=hedge_after)

    def _known(self) -> str:
        return f"the providers are: {', '.join(sorted(self._upstreams))}"
