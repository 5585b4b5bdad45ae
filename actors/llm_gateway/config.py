"""The configuration of a gateway: values and their defaults. Importing it loads no provider and no HTTP client."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import msgspec

from actors.llm_gateway.provider import ProviderDeadlines
from actors.resilience.retry import RetryPolicy
from protocol.routes import Routes


class GatewayLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of a gateway.

    Attributes:
        concurrency: calls in flight at once, for each provider.
        queue: calls that may wait for a free slot, for each provider.
        total: seconds for a request whose caller allows more, or has no deadline.
        max_chars: the most characters of an answer.
        drain: seconds for which the stream of a call that is given up after content is read on to its usage; 0 for not
            at all.
    """

    concurrency: int = 64
    queue: int = 256
    total: float = 600.0
    max_chars: int = 4 * 1024 * 1024
    drain: float = 1.0


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of a gateway.

    Attributes:
        llm_provider: the provider of the default model; empty for the one that has a key, else ``local``.
        default_model: what ``default`` means: a model of that provider, or ``provider/model``; empty for the provider's
            own default.
        openai_api_key: empty for none.
        openai_base_url: any OpenAI-compatible address, with its ``/v1``; empty for OpenAI's.
        anthropic_api_key: empty for none.
        anthropic_base_url: any Anthropic-compatible address, without ``/v1``; empty for Anthropic's.
        local_model_path: a GGUF file; None for the installed model.
        limits: the bounds on calls, their time and their answers.
        deadlines: how long an attempt may be silent. The local model's first token has the whole request's time.
        retry: when a failed attempt is followed by another.
        routes: named providers, and the targets of each alias.
        secrets: returns the value of an environment variable, for the keys of the routes' providers.
        draw: returns a number in 0..1, for routes that are weighted.
    """

    llm_provider: str = ""
    default_model: str = ""
    openai_api_key: str = ""
    openai_base_url: str = ""
    anthropic_api_key: str = ""
    anthropic_base_url: str = ""
    local_model_path: Path | None = None
    limits: GatewayLimits = GatewayLimits()
    deadlines: ProviderDeadlines = ProviderDeadlines()
    retry: RetryPolicy = RetryPolicy()
    routes: Routes = Routes()
    secrets: Callable[[str], str | None] = os.environ.get
    draw: Callable[[], float] = random.random

    @property
    def provider(self) -> str:
        """The provider of the default model: as configured, else the one that has a key, else ``local``."""
        if self.llm_provider:
            return self.llm_provider
        if self.openai_api_key:
            return "openai"
        return "anthropic" if self.anthropic_api_key else "local"
