"""The default provider and model: which are usable, and what is wrong with those that are configured.

Importing it loads no provider and no HTTP client.
"""

from collections.abc import Mapping
from typing import Final

from actors.llm_gateway.config import GatewayConfig
from actors.local.model import MODEL_NAME
from protocol.errors import ConfigurationError, FieldError
from protocol.nearest import nearest
from protocol.upstream import BASE_URLS, without_key

LOCAL: Final = "local"
KNOWN: Final = ("anthropic", LOCAL, "openai")
MAX_SHOWN: Final = 80  # characters of a name in a message


def default_provider(config: GatewayConfig) -> str:
    """Return the name of the provider of the default model.

    Raises:
        ConfigurationError: it is not one of the known ones, or has no key; or the default model is none that a provider
            can have.
    """
    name = config.provider
    if name not in KNOWN:
        shown = name[:MAX_SHOWN]
        message = f"{shown!r} is none of the known providers: {', '.join(KNOWN)}{nearest(shown, KNOWN)}"
        raise ConfigurationError.of((FieldError("LLM_PROVIDER", message),))
    upper = name.upper()
    faults = []
    if not usable(config)[name] and name not in config.routes.providers:
        faults.append(
            FieldError("LLM_PROVIDER", f"{name} has no key: set {upper}_API_KEY (or another {upper}_BASE_URL)")
        )
    fault = _model_fault(config, name) if config.default_model else ""
    if fault:
        faults.append(FieldError("DEFAULT_LLM_MODEL", f"{config.default_model[:MAX_SHOWN]!r}: {fault}"))
    if faults:
        raise ConfigurationError.of(faults)
    return name


def usable(config: GatewayConfig) -> Mapping[str, bool]:
    """Return which providers are usable: with a key, or at another address than the vendor's, which may need none."""
    return {
        "openai": bool(config.openai_api_key) or not at_vendor("openai", config.openai_base_url),
        "anthropic": bool(config.anthropic_api_key) or not at_vendor("anthropic", config.anthropic_base_url),
        "local": True,
    }


def default_model(config: GatewayConfig, provider: str, own: str) -> str:
    """Return the default model as ``provider/model``. ``own`` is the default of ``provider``."""
    model = config.default_model or own
    prefix, slash, _ = model.partition("/")
    named = slash and (prefix in config.routes.providers or usable(config).get(prefix, False))
    return model if named else f"{provider}/{model}"


def local_model(config: GatewayConfig) -> str:
    """Return the name of the local model: that of its file."""
    return MODEL_NAME if config.local_model_path is None else config.local_model_path.stem.lower()


def at_vendor(dialect: str, base_url: str) -> bool:
    """Return whether an address is the vendor's own, whose models' names have no slash."""
    return base_url.rstrip("/") in ("", BASE_URLS[dialect])


def _model_fault(config: GatewayConfig, default: str) -> str:
    """Return why no provider has the default model; empty where one may have it."""
    prefix, slash, model = config.default_model.partition("/")
    available = usable(config)
    named = config.routes.providers
    providers = sorted({*named, *(name for name in KNOWN if available[name])})
    if slash and prefix in providers:
        return _missing(config, prefix, model)
    if config.default_model in config.routes.routes:
        return "it is an alias of the routes' file: write it there, as `default`"
    if not slash or default in named or not _vendors(config, default):
        return _missing(config, default, config.default_model)
    hint = without_key(prefix) or nearest(prefix, providers)
    return f"there is no provider {prefix!r}; the providers are: {', '.join(providers)}{hint}"


def _vendors(config: GatewayConfig, provider: str) -> bool:
    """Return whether a model's name of a provider that the settings make can't have a slash."""
    if provider == LOCAL:
        return True
    return at_vendor(provider, config.openai_base_url if provider == "openai" else config.anthropic_base_url)


def _missing(config: GatewayConfig, provider: str, model: str) -> str:
    """Return that a provider lacks ``model``, where that is known."""
    spec = config.routes.providers.get(provider)
    listed: tuple[str, ...] = () if spec is None else spec.models
    if provider == LOCAL and spec is None:
        listed = (local_model(config),)
    if not model:
        return f"it names no model of {provider}: write provider/model"
    if not listed or model in listed:
        return ""
    return f"{provider} has no model {model!r}; it has: {', '.join(listed)}{nearest(model, listed)}"
