"""Builds a gateway and its providers from a ``GatewayConfig``."""

import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from actors.ledger import MemoryLedger
from actors.llm_gateway.drain import SECONDS
from actors.llm_gateway.gateway import GatewayLimits, LLMGateway
from actors.llm_gateway.named import NamedProviders, patient
from actors.llm_gateway.provider import (
    BETWEEN_CHUNKS_TIMEOUT,
    FIRST_TOKEN_TIMEOUT,
    MAX_ANSWER_CHARS,
    TOTAL_TIMEOUT,
    Provider,
    ProviderDeadlines,
)
from actors.upstream.retry import RetryPolicy
from protocol.errors import ConfigurationError
from protocol.ledger import Ledger
from protocol.routes import Routes
from protocol.upstream import BASE_URLS, CONNECT_TIMEOUT

if TYPE_CHECKING:
    from actors.wire.client import WireClient

KNOWN: Final = ("anthropic", "local", "openai")


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Configuration of a gateway.

    Attributes:
        llm_provider: the provider of the default model; empty for the one that has a key, else ``local``.
        default_model: the target of ``default``: a model of that provider, or ``provider/model``; empty for the
            provider's own default.
        openai_api_key: empty for none.
        openai_base_url: any OpenAI-compatible address, with its ``/v1``; empty for OpenAI's.
        anthropic_api_key: empty for none.
        anthropic_base_url: any Anthropic-compatible address, without ``/v1``; empty for Anthropic's.
        local_model_path: a GGUF file; None for the installed model.
        concurrency: calls under way at once, for each provider.
        queue: calls that may wait for a place, for each provider.
        connect_timeout: seconds until a connection is established.
        first_token_timeout: seconds from sending a call to its first content; the local model has as long as the
            request has.
        idle_timeout: the longest silence within a stream, in seconds.
        total_timeout: seconds for a request whose sender allows more.
        max_answer_chars: the most characters of an answer.
        drain: seconds for which the stream of a call that is cancelled after content is read on to its usage; 0 for
            not at all.
        retry: when a failed attempt is followed by another.
        routes: aliases, and further providers.
        secrets: returns the value of an environment variable, for the keys of the routes' providers.
        draw: returns a number in 0..1, for weighted routes.
    """

    llm_provider: str = ""
    default_model: str = ""
    openai_api_key: str = ""
    openai_base_url: str = ""
    anthropic_api_key: str = ""
    anthropic_base_url: str = ""
    local_model_path: Path | None = None
    concurrency: int = 64
    queue: int = 256
    connect_timeout: float = CONNECT_TIMEOUT
    first_token_timeout: float = FIRST_TOKEN_TIMEOUT
    idle_timeout: float = BETWEEN_CHUNKS_TIMEOUT
    total_timeout: float = TOTAL_TIMEOUT
    max_answer_chars: int = MAX_ANSWER_CHARS
    drain: float = SECONDS
    retry: RetryPolicy = RetryPolicy()
    routes: Routes = Routes()
    secrets: Callable[[str], str | None] = os.environ.get
    draw: Callable[[], float] = random.random


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
    limits = GatewayLimits(
        concurrency=config.concurrency,
        queue=config.queue,
        total=config.total_timeout,
        max_chars=config.max_answer_chars,
        drain=config.drain,
    )
    shared_ledger = ledger or MemoryLedger()

    def make() -> LLMGateway:
        from actors.wire.client import WireClient  # noqa: PLC0415 - imported only where a gateway is made

        wire = WireClient(max_connections=0)
        providers, model = _providers(config, name, wire)
        named = NamedProviders(
            wire, deadlines=_deadlines(config), secrets=config.secrets, local_model_path=config.local_model_path
        )
        return LLMGateway(
            providers,
            default_model=model,
            routes=config.routes,
            make_provider=named,
            limits=limits,
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
    name = config.llm_provider
    if not name:
        name = "openai" if config.openai_api_key else "anthropic" if config.anthropic_api_key else "local"
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
    deadlines = _deadlines(config)
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
        eager=default == "local",
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


def _deadlines(config: GatewayConfig) -> ProviderDeadlines:
    return ProviderDeadlines(
        connect=config.connect_timeout,
        first_token=config.first_token_timeout,
        between_chunks=config.idle_timeout,
    )
