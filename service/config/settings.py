"""Settings: from the environment and from ``.env``; the environment wins."""

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, NoDecode, SettingsConfigDict

from protocol.errors import ConfigurationError

ProviderName = Literal["local", "openai", "anthropic"]
CommaList = Annotated[tuple[str, ...], NoDecode]
SecretList = Annotated[tuple[SecretStr, ...], NoDecode]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Bytes = Annotated[int, Field(ge=1024)]

MAX_PEPPER: Final = 64  # bytes, those of a key of BLAKE2b


class Settings(BaseSettings):
    """What the operator decides. Each field is the environment variable of the same name in capitals.

    Attributes:
        host: the address to listen on; anything but loopback needs keys or tokens.
        port: the TCP port; 0 takes a free one.
        environment: ``production`` checks the origins of WebSockets.
        api_keys: who may call, without limits; with no other keys and no tokens, empty: everybody who reaches the
            address.
        key_pepper: goes into the digests of keys, at most 64 bytes; with another one the digests in the routes' file
            are void.
        jwt_secret: verifies tokens signed with HS256, at least 32 bytes.
        jwt_jwks_url: where the public keys are that verify tokens signed with RS256, ES256 or EdDSA.
        jwt_issuer: the ``iss`` that a token must have; empty: any.
        jwt_audience: the ``aud`` that a token must have; empty: only tokens without one.
        jwt_leeway_seconds: by which the clocks of a token's issuer and of the service may differ.
        ws_allowed_origins: origins that may open a socket in production.
        max_body_bytes: the largest body that is read.
        shutdown_grace_seconds: how long running requests may go on after the signal to stop.
        llm_provider: the provider of the default model; unset: the one that has a key, else ``local``.
        default_llm_model: what the model name ``default`` means; empty: the provider's own default.
        openai_api_key: the key for ``openai_base_url``.
        openai_base_url: any OpenAI-compatible address, with its ``/v1``.
        anthropic_api_key: the key for ``anthropic_base_url``.
        anthropic_base_url: any Anthropic-compatible address, without ``/v1``.
        local_model_path: a GGUF file; unset: the model that is installed with the ``local`` extra.
        routes_file: providers, aliases and their targets, and keys; unset: ``tidegate.toml``, where there is one.
        default_embedding_model: what ``default`` means for embeddings, as ``provider/model``; empty: the
            own model of the provider that embeds.
        embedding_batch_inputs: the most texts in one call for embeddings.
        embedding_cache_max_bytes: bytes of vectors kept; 0 keeps none.
        provider_concurrency: calls under way at once, for each provider.
        provider_queue: calls that may wait for a place, for each provider.
        connect_timeout_seconds: until the connection to a provider stands.
        first_token_timeout_seconds: from sending a call to its first content.
        idle_timeout_seconds: the longest silence within a provider's stream.
        drain_seconds: how long the stream of a call that is given up after content is read on, for the
            usage at its end; 0 closes it at once.
        request_ttl_seconds: how long a finished request is kept after its last change.
        max_requests: requests that are kept at once; for one more the oldest ended one goes, and where all are running
            it is refused.
        requests_max_bytes: what ended requests may hold together, their input included; the oldest goes first.
        log_max_bytes: bytes of the newest entries that each log holds ready to be sent; older ones are packed, and
            none is dropped.
        abandon_grace_seconds: how long a request with ``onAbandon: cancel`` goes on when nobody follows it.
        cache_max_bytes: bytes of finished logs kept for replay.
        cache_max_entries: finished logs kept for replay.
        channel_history_entries: publications that each channel keeps for those who come back.
        channel_history_bytes: what they may take.
        channel_history_ttl_seconds: how long each is kept.
        channels_max_bytes: what the histories of all channels may take; that of the channel that has been silent for
            longest goes first.
        max_channels: channels that are known at once; for one more the one goes that has been silent for longest, and
            where all are in use it is refused.
        log_level: the lowest level that is logged.
        log_format: ``auto`` is pretty on a terminal in development and JSON elsewhere.
        otel_exporter_otlp_endpoint: where spans go, over OTLP/HTTP; unset: no tracing.
        otel_service_name: ``service.name`` of every span.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    host: str = "127.0.0.1"
    port: int = Field(3000, ge=0, le=65_535)
    environment: Literal["development", "production"] = "development"
    api_keys: SecretList = ()
    key_pepper: SecretStr | None = None
    jwt_secret: SecretStr | None = Field(None, min_length=32)
    jwt_jwks_url: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_leeway_seconds: float = Field(30.0, ge=0, le=300)
    ws_allowed_origins: CommaList = ()
    max_body_bytes: Bytes = 1_048_576
    shutdown_grace_seconds: float = Field(10.0, ge=0, le=3600)

    llm_provider: ProviderName | None = None
    default_llm_model: str = ""
    openai_api_key: SecretStr | None = None
    openai_base_url: str = "https://api.openai.com/v1"
    anthropic_api_key: SecretStr | None = None
    anthropic_base_url: str = "https://api.anthropic.com"
    local_model_path: Path | None = None
    routes_file: Path | None = None
    default_embedding_model: str = ""
    embedding_batch_inputs: int = Field(512, ge=1, le=2048)
    embedding_cache_max_bytes: int = Field(67_108_864, ge=0)
    provider_concurrency: int = Field(64, ge=1, le=10_000)
    provider_queue: int = Field(256, ge=0, le=100_000)
    connect_timeout_seconds: Seconds = 10.0
    first_token_timeout_seconds: Seconds = 120.0
    idle_timeout_seconds: Seconds = 60.0
    drain_seconds: float = Field(1.0, ge=0, le=60)

    request_ttl_seconds: Seconds = 300.0
    max_requests: int = Field(20_000, ge=1)
    requests_max_bytes: Bytes = 536_870_912
    log_max_bytes: Bytes = 262_144
    abandon_grace_seconds: float = Field(10.0, ge=0, le=3600)
    cache_max_bytes: Bytes = 67_108_864
    cache_max_entries: int = Field(10_000, ge=1)
    channel_history_entries: int = Field(1000, ge=1, le=100_000)
    channel_history_bytes: Bytes = 262_144
    channel_history_ttl_seconds: float = Field(300.0, ge=1, le=86_400)
    channels_max_bytes: Bytes = 67_108_864
    max_channels: int = Field(10_000, ge=1)

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "json", "pretty"] = "auto"
    otel_exporter_otlp_endpoint: str = ""
    otel_service_name: str = "tidegate"

    @field_validator("api_keys", "ws_allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("llm_provider", "log_format", "environment", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("openai_base_url", "anthropic_base_url", "otel_exporter_otlp_endpoint", "jwt_jwks_url")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("should be an address that begins with http:// or https://")
        return value.rstrip("/")

    @field_validator("key_pepper")
    @classmethod
    def _pepper(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) > MAX_PEPPER:
            raise ValueError(f"should have at most {MAX_PEPPER} bytes")
        return value

    @property
    def provider(self) -> ProviderName:
        """The provider of the default model: as set, else the one that has a key, else ``local``."""
        if self.llm_provider is not None:
            return self.llm_provider
        if self.openai_api_key is not None:
            return "openai"
        return "anthropic" if self.anthropic_api_key is not None else "local"

    @property
    def tokens(self) -> bool:
        """Whether signed tokens are accepted."""
        return self.jwt_secret is not None or bool(self.jwt_jwks_url)

    @property
    def exposed(self) -> bool:
        """Whether the service can be reached from elsewhere, and neither keys of the settings nor tokens guard it."""
        return not (self.api_keys or self.tokens or is_loopback(self.host))

    def check_exposure(self, *, keys: bool = False) -> None:
        """Refuse to offer the service to a network without authentication; ``keys`` says that there are more of them.

        Raises:
            ConfigurationError: the address is not loopback, and no key is set.
        """
        if keys or not self.exposed:
            return
        message = (
            f"HOST={self.host} can be reached from other machines, but API_KEYS is not set, so anybody could use the "
            "model. Set API_KEYS to one or more secret keys, separated by commas (callers send one as "
            "`Authorization: Bearer <key>`), put keys into the routes' file (`tidegate key create`), or set "
            "HOST=127.0.0.1."
        )
        raise ConfigurationError(message)


def load_settings(env_file: str | Path | None = ".env", **overrides: Any) -> Settings:  # noqa: ANN401 - field by field
    """Read the settings; ``overrides`` win over the environment, and that over ``env_file``.

    Raises:
        ConfigurationError: a setting is not what it may be; the message names each and what it may be, never its value.
    """
    try:
        return Settings(**{"_env_file": env_file, **overrides})
    except ValidationError as error:
        faults = (f"{_name(fault['loc'])}: {_reason(fault['msg'])}" for fault in error.errors(include_input=False))
        raise ConfigurationError("; ".join(faults)) from None


def variable(name: str, env_file: Path = Path(".env")) -> str | None:
    """Return a variable that is no setting, such as a named provider's key: from the environment, or from the file."""
    value = os.environ.get(name)
    if not value:
        value = DotEnvSettingsSource(BaseSettings, env_file=env_file, case_sensitive=True).env_vars.get(name)
    return value or None


def is_loopback(host: str) -> bool:
    """Whether ``host`` is an address that only this machine can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_PREFIXES: Final = ("Value error, ", "Input ")


def _name(location: tuple[int | str, ...]) -> str:
    return str(location[0]).upper() if location else "settings"


def _reason(message: str) -> str:
    for prefix in _PREFIXES:
        message = message.removeprefix(prefix)
    return message
