"""Builds a gateway and its providers from a ``GatewayConfig``."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from actors.ledger import MemoryLedger
from actors.llm_gateway.config import GatewayConfig
from actors.llm_gateway.gateway import LLMGateway
from actors.llm_gateway.named import NamedProviders, patient
from actors.llm_gateway.provider import Provider
from protocol.errors import ConfigurationError
from protocol.ledger import Ledger
from protocol.routes import Routes
from protocol.upstream import BASE_URLS

if TYPE_CHECKING:
    from actors.wire.client import WireClient

KNOWN: Final = ("anthropic", "local", "openai")


def build_gateway(config: GatewayConfig, *, ledger: Ledger | None = None) -> Callable[[], LLMGateway]:
    """Return a function for ``System.spawn`` that makes a gateway of every provider with a key or an own address.

    Args:
        config: the configuration.
        ledger: counts what accounts spend; None for one in memory, which outlives a restart of the actor.

    Raises:
        ConfigurationError: the provider is not one of the known ones, or has no key. The function itself raises it for
            routes that name a provider or a model that does not exist.
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


def default_provider(config: GatewayConfig) -> str:
    """Return the name of the provider of the default model.

    Raises:
        ConfigurationError: it is not one of the known ones, or has no key.
    """
    name = config.provider
    if name not in KNOWN:
        raise ConfigurationError(f"LLM_PROVIDER is {name[:80]!r}, but the known providers are: {', '.join(KNOWN)}")
    if not _usable(config)[name]:
        variable = f"{name.upper()}_API_KEY"
        raise ConfigurationError(f"LLM_PROVIDER is {name!r}, so set {variable} (or another {name.upper()}_BASE_URL)")
    return name


def _usable(config: GatewayConfig) -> Mapping[str, bool]:
    """Return which providers are usable: with a key, or at another address than the vendor's, which may need none."""
    openai, anthropic = config.openai_base_url.rstrip("/"), config.anthropic_base_url.rstrip("/")
    return {
        "openai": bool(config.openai_api_key) or openai not in ("", BASE_URLS["openai"]),
        "anthropic": bool(config.anthropic_api_key) or anthropic not in ("", BASE_URLS["anthropic"]),
        "local": True,
    }


def _providers(config: GatewayConfig, default: str, wire: "WireClient") -> tuple[dict[str, Provider], str]:
    """Return the providers, and the default model as ``provider/model``."""
    from actors.llm_gateway.providers import anthropic, local, openai  # noqa: PLC0415 - as in build_gateway

    usable = _usable(config)
    deadlines = config.deadlines
    providers: dict[str, Provider] = {}
    if usable["openai"]:
        providers["openai"] = openai.OpenAIProvider(
            wire,
            base_url=config.openai_base_url or BASE_URLS["openai"],
            api_key=config.openai_api_key,
            deadlines=deadlines,
        )
    if usable["anthropic"]:
        providers["anthropic"] = anthropic.AnthropicProvider(
            wire,
            base_url=config.anthropic_base_url or BASE_URLS["anthropic"],
            api_key=config.anthropic_api_key,
            deadlines=deadlines,
        )
    own_model = local.LocalProvider(
        wire,
        path=config.local_model_path,
        eager=default == "local" and _names_local(config.routes),
        deadlines=patient(deadlines),
    )
    providers["local"] = own_model
    own = {
        "openai": openai.DEFAULT_MODEL,
        "anthropic": anthropic.DEFAULT_MODEL,
        "local": own_model.models[0],
    }
    model = config.default_model or own[default]
    prefix, slash, _ = model.partition("/")
    return providers, model if slash and prefix in providers else f"{default}/{model}"


def _names_local(routes: Routes) -> bool:
    """Return whether anything leads to the local model that the settings make: a route, or the lack of a default."""
    if not routes.default:
        return True
    targets = (target for route in routes.routes.values() for target in route.targets)
    models = [target if isinstance(target, str) else target.model for target in targets]
    return any(model.startswith("local/") for model in (routes.default, *models)) and "local" not in routes.providers
