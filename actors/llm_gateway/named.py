"""Builds the providers that the routes' file names."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from actors.llm_gateway.provider import Provider, ProviderDeadlines
from actors.llm_gateway.providers.forced import ForcedProvider
from protocol.errors import ConfigurationError
from protocol.routes import ProviderSpec
from protocol.upstream import BASE_URLS

if TYPE_CHECKING:
    from actors.wire.client import WireClient

ONLY: Final = {
    "omit": ("openai", "azure"),
    "seeds": ("openai",),
    "path": ("local",),
    "api_version": ("azure",),
    "region": ("bedrock", "vertex"),
    "project": ("vertex",),
    "profile": ("bedrock",),
}
NEEDED: Final = {"azure": ("base_url", "api_version"), "bedrock": ("region",), "vertex": ("project", "region")}
CHAINS: Final = {"azure": "azure.identity", "bedrock": "boto3", "vertex": "google.auth"}
"""The module that finds a cloud's credentials where no key is given; the extra of the cloud's name installs it."""


class NamedProviders:
    """Makes the providers that the routes name.

    Args:
        wire: the shared client.
        deadlines: the longest silences of their attempts.
        secrets: returns the value of an environment variable.
        local_model_path: the file of a local provider that has none of its own; None for the installed model.
    """

    def __init__(
        self,
        wire: "WireClient",
        *,
        deadlines: ProviderDeadlines,
        secrets: Callable[[str], str | None],
        local_model_path: Path | None,
    ) -> None:
        self._wire = wire
        self._deadlines = deadlines
        self._secrets = secrets
        self._local_model_path = local_model_path

    def __call__(self, name: str, spec: ProviderSpec) -> Provider:
        """Return the provider.

        Raises:
            ConfigurationError: its table is wrong, a key is not set, or a package is not installed.
        """
        check(name, spec)
        if spec.kind == "local":
            return self._local(name, spec)
        key = (self._secrets(spec.api_key_env) if spec.api_key_env else "") or ""
        if spec.api_key_env and not key:
            raise ConfigurationError(f"providers.{name}.api_key_env: {spec.api_key_env} is not set")
        wired = spec.kind in ("openai", "anthropic")
        provider = self._wired(name, spec, key) if wired else self._cloud(name, spec, key)
        return ForcedProvider(provider) if spec.structured == "tool" else provider

    def _local(self, name: str, spec: ProviderSpec) -> Provider:
        from actors.llm_gateway.providers.local import LocalProvider  # noqa: PLC0415 - as in build_gateway

        path = Path(spec.path) if spec.path else self._local_model_path
        return LocalProvider(self._wire, path=path, eager=False, deadlines=patient(self._deadlines), name=name)

    def _wired(self, name: str, spec: ProviderSpec, key: str) -> Provider:
        from actors.llm_gateway.providers import anthropic, openai  # noqa: PLC0415 - as in _local

        make: Callable[..., Provider] = anthropic.AnthropicProvider
        if spec.kind == "openai":
            make = partial(openai.OpenAIProvider, omit=spec.omit)
        provider = make(
            self._wire,
            base_url=spec.base_url or BASE_URLS[spec.kind],
            api_key=key,
            models=spec.models,
            deadlines=self._deadlines,
            name=name,
            price_id=spec.price_id,
        )
        provider.seeds = provider.seeds or spec.seeds
        return provider

    def _cloud(self, name: str, spec: ProviderSpec, key: str) -> Provider:
        from actors.llm_gateway.providers import azure, bedrock, vertex  # noqa: PLC0415 - as in _local

        if not key and not installed(CHAINS[spec.kind]):
            raise ConfigurationError(
                f"providers.{name}: without an api_key_env it needs a package that is not installed: "
                f"pip install 'tidegate[{spec.kind}]'"
            )
        kinds: dict[str, Callable[..., Provider]] = {
            "azure": azure.AzureProvider,
            "bedrock": bedrock.BedrockProvider,
            "vertex": vertex.VertexProvider,
        }
        return kinds[spec.kind](self._wire, spec, api_key=key, deadlines=self._deadlines, name=name)


def check(name: str, spec: ProviderSpec) -> None:
    """Check that the fields fit the kind.

    Raises:
        ConfigurationError: a field does not fit, or is missing; the message names it.
    """
    where = f"providers.{name}"
    if not name or "/" in name:
        raise ConfigurationError(f"{where}: a provider's name is not empty and has no slash")
    for field, kinds in ONLY.items():
        if getattr(spec, field) and spec.kind not in kinds:
            raise ConfigurationError(f"{where}.{field}: it is for {' and '.join(kinds)}, not for {spec.kind}")
    for field in NEEDED.get(spec.kind, ()):
        if not getattr(spec, field):
            raise ConfigurationError(f"{where}.{field}: {spec.kind} needs one")
    if spec.kind == "local" and (spec.base_url or spec.api_key_env or spec.models):
        raise ConfigurationError(f"{where}: a local provider has a path, and no address, key or list of models")
    if spec.kind == "local" and spec.structured != "native":
        raise ConfigurationError(f"{where}.structured: a local provider has a grammar for that")
    if spec.profile and spec.api_key_env:
        raise ConfigurationError(f"{where}: a profile is for AWS's own credentials, which a key takes the place of")


def installed(module: str) -> bool:
    """Return whether a module exists, without importing it."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def patient(deadlines: ProviderDeadlines) -> ProviderDeadlines:
    """Return ``deadlines`` for a model that may have to be loaded first: without one for the first token."""
    return msgspec.structs.replace(deadlines, first_token=None)
