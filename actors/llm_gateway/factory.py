"""Builds a gateway and its providers from a ``GatewayConfig``."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from actors.ledger import MemoryLedger
from actors.llm_gateway.config import GatewayConfig
from actors.llm_gateway.defaults import LOCAL, default_model, default_provider, local_model, usable
from actors.llm_gateway.gateway import LLMGateway
from actors.llm_gateway.named import NamedProviders, patient
from actors.llm_gateway.provider import Provider
from protocol.ledger import Ledger
from protocol.routes import Routes, Target
from protocol.upstream import BASE_URLS

if TYPE_CHECKING:
    from actors.wire.client import WireClient


def build_gateway(config: GatewayConfig, *, ledger: Ledger | None = None) -> Callable[[], LLMGateway]:
    """Return a function for ``System.spawn`` that makes a gateway of every provider with a key or an own address.

    Args:
        config: the configuration.
        ledger: counts what accounts spend; None for one in memory, which outlives a restart of the actor.

    Raises:
        ConfigurationError: the provider is not one of the known ones, or has no key, or no provider has the default
            model. The function itself raises it for routes that name a provider or a model that does not exist.
    """
    name = default_provider(config)
    shared_ledger = ledger or MemoryLedger()

    def make() -> LLMGateway:
        from actors.wire.client import WireClient  # noqa: PLC0415 - imported only where a gateway is made

        wire = WireClient(max_connections=0)
        providers, model = _providers(config, name, wire)
        named = NamedProviders(
            wire, deadlines=config.deadlines, secrets=config.secrets, local_model_path=config.local_model_path
        )
        return LLMGateway(
            providers,
            default_model=model,
            routes=config.routes,
            make_provider=named,
            limits=config.limits,
            retry=config.retry,
            draw=config.draw,
            ledger=shared_ledger,
        )

    return make


def _providers(config: GatewayConfig, default: str, wire: "WireClient") -> tuple[dict[str, Provider], str]:
    """Return the providers, and the default model as ``provider/model``."""
    from actors.llm_gateway.providers import anthropic, local, openai  # noqa: PLC0415 - as in build_gateway

    available = usable(config)
    deadlines = config.deadlines
    providers: dict[str, Provider] = {}
    if available["openai"]:
        providers["openai"] = openai.OpenAIProvider(
            wire,
            base_url=config.openai_base_url or BASE_URLS["openai"],
            api_key=config.openai_api_key,
            deadlines=deadlines,
        )
    if available["anthropic"]:
        providers["anthropic"] = anthropic.AnthropicProvider(
            wire,
            base_url=config.anthropic_base_url or BASE_URLS["anthropic"],
            api_key=config.anthropic_api_key,
            deadlines=deadlines,
        )
    own = {
        "openai": openai.DEFAULT_MODEL,
        "anthropic": anthropic.DEFAULT_MODEL,
        "local": local_model(config),
    }
    model = default_model(config, default, own[default])
    providers["local"] = local.LocalProvider(
        wire,
        path=config.local_model_path,
        eager=_loads_local(config.routes, model),
        deadlines=patient(deadlines),
    )
    return providers, model


def _loads_local(routes: Routes, default_model: str) -> bool:
    """Return whether the local model is loaded at the start: it is the default, or the settings' with a route to it."""
    if LOCAL in routes.providers:
        return False
    settings_default = _is_local(default_model)
    if not routes.default:
        return settings_default
    named = [_is_local(target) for route in routes.routes.values() for target in route.targets]
    route = routes.routes.get(routes.default)
    if route is None:
        return _is_local(routes.default) or (settings_default and any(named))
    mine = list(map(_is_local, route.targets))
    return any(mine if route.order == "weighted" else mine[:1]) or (settings_default and any(named))


def _is_local(target: str | Target) -> bool:
    """Return whether a target is the local model that the settings make."""
    model = target if isinstance(target, str) else target.model
    return model.partition("/")[0] == LOCAL
