"""Settings: from the environment and from ``.env``; the environment wins."""

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from actors.cache import CacheLimits
from actors.channels.limits import ChannelLimits, HistoryLimits
from actors.delivery.fanout import TOTAL_SUBSCRIPTIONS
from actors.embeddings.config import EmbeddingBounds, EmbeddingsConfig
from actors.embeddings.embedder import EmbedderLimits
from actors.fair_shares import MAX_TENANTS
from actors.llm_gateway.config import GatewayConfig, GatewayLimits
from actors.llm_gateway.provider import BETWEEN_CHUNKS_TIMEOUT, FIRST_TOKEN_TIMEOUT, ProviderDeadlines
from actors.requests.limits import RequestLimits
from protocol.errors import ConfigurationError, FieldError
from protocol.fetching import FetchConfig
from protocol.routes import Routes
from protocol.upstream import BASE_URLS
from service.addresses import ConnectionLimits
from service.auth.keys import GUESSED, MIN_KEY
from service.auth.origin_config import OriginConfig, parse_host, parse_network, parse_origin
from service.auth.token_config import TokenConfig
from service.config.env_file import EnvFile, read_env_file
from service.config.wording import one_of, setting_faults
from service.frames import PING_INTERVAL

Environment = Literal["development", "production", "test"]
ProviderName = Literal["local", "openai", "anthropic"]
CommaList = Annotated[tuple[str, ...], NoDecode]
SecretList = Annotated[tuple[SecretStr, ...], NoDecode]
LogLevel = Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "FATAL"]
LogLevels = Annotated[tuple[tuple[Annotated[str, Field(min_length=1)], LogLevel], ...], NoDecode]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Bytes = Annotated[int, Field(ge=1024)]

LEVEL_ALIASES: Final = {"WARN": "WARNING", "CRITICAL": "FATAL"}
MAX_PEPPER: Final = 64  # bytes, those of a key of BLAKE2b
NODE_ENV: Final = "NODE_ENV"
ENVIRONMENTS: Final[tuple[str, ...]] = get_args(Environment)
NO_ROUTES: Final = Routes()

_CACHE: Final = CacheLimits()
_CHANNELS: Final = ChannelLimits()
_CONNECTIONS: Final = ConnectionLimits()
_EMBEDDINGS: Final = EmbeddingsConfig()
_GATEWAY: Final = GatewayConfig()
_REQUESTS: Final = RequestLimits()
_TOKENS: Final = TokenConfig()


class Settings(BaseSettings):
    """The operator's settings. Each field is the environment variable of the same name in capitals.

    ``load_settings`` makes them; the class itself reads no file.

    Attributes:
        host: the address to listen on; anything but loopback needs keys or tokens.
        port: the TCP port; 0 takes a free one.
        environment: in ``production`` a page of another origin needs ``ws_allowed_origins`` to open a socket also where
            there are keys; ``test`` is as ``development``. Unset: that of NODE_ENV.
        api_keys: the keys of callers without limits, each of at least 16 characters; empty, and with no other keys and
            no tokens: no authentication.
        key_pepper: a secret input of the keys' digests, at most 64 bytes; changing it invalidates the digests in the
            routes' file.
        jwt_secret: verifies tokens signed with HS256, at least 32 bytes.
        jwt_jwks_url: the address of the public keys that verify tokens signed with RS256, ES256 or EdDSA.
        jwt_issuer: the ``iss`` that a token must have; empty: any.
        jwt_audience: the ``aud`` that a token must have; empty: only tokens without one.
        jwt_leeway_seconds: seconds by which the clocks of the issuer and of the service may differ.
        fetch_allowed: hosts, IP addresses and networks, beside the internet by ``https``, from which documents such as
            public keys may be fetched, as ``127.0.0.1``, ``10.0.0.0/8`` or ``auth.internal:8080``; by ``http`` too.
        cors_allowed_origins: origins whose pages may call, as ``https://app.example.com``, or ``*`` for all; empty: the
            service's own pages alone.
        ws_allowed_origins: origins whose pages may open a socket; empty: those of ``cors_allowed_origins``.
        rate_limits_fail_open: whether calls go on, uncounted, where the counters of rate limits can't be reached; else
            they are refused (503).
        ws_heartbeat_seconds: seconds between two pings of a socket; below the idle timeout of every proxy.
        allowed_hosts: names, beside this machine's, under which the service is called, or ``*`` for all; empty: with
            keys all, without keys only this machine's.
        trusted_proxies: networks of the proxies whose ``X-Forwarded-Host`` and ``X-Forwarded-Proto`` count, as
            ``10.0.0.0/8``; their connections are those of many clients.
        max_connections: connections of clients at once; fewer where the limit of open files does not allow them.
        max_connections_per_address: of one IPv4 address or one IPv6 /64 network; loopback and ``trusted_proxies`` have
            no such bound.
        keep_alive_seconds: seconds for which a connection may be idle between two calls; above a proxy's own.
        max_body_bytes: the largest body of a request to a model, in bytes, inflated; other bodies have at most 1 MiB.
        max_bodies_bytes: bytes of all large bodies that are at work, and, counted by themselves, of the input of all
            running requests; the tenants share each of the two.
        shutdown_grace_seconds: seconds for which running calls may go on after the signal to stop.
        llm_provider: the provider of the default model; unset: the one that has a key, else ``local``.
        default_llm_model: what the model name ``default`` means; empty: the provider's own default.
        openai_api_key: the key for ``openai_base_url``.
        openai_base_url: any OpenAI-compatible address, with its ``/v1``.
        anthropic_api_key: the key for ``anthropic_base_url``.
        anthropic_base_url: any Anthropic-compatible address, without ``/v1``.
        local_model_path: a GGUF file; unset: the model that is installed with the ``local`` extra.
        routes_file: providers, aliases and their targets, and keys; unset: ``tidegate.toml``, where there is one.
        default_embedding_model: what ``default`` means for embeddings, as ``provider/model``; empty: the embedding
            provider's own default.
        embedding_batch_inputs: the most texts in one embeddings call.
        embedding_cache_max_bytes: bytes of cached vectors; 0 caches none.
        provider_concurrency: calls in flight at once, for each provider.
        provider_queue: calls that may wait for a free slot, for each provider.
        connect_timeout_seconds: seconds until a connection to a provider is open.
        first_token_timeout_seconds: seconds from sending a call to its first content.
        idle_timeout_seconds: the longest silence within a provider's stream, in seconds.
        drain_seconds: seconds for which the stream of a call that is given up after content is read on to its usage; 0
            closes it at once.
        request_ttl_seconds: seconds for which a finished request is kept after its last change.
        max_tenants: tenants that each have a floor of every bound: ``docs/limits.md`` lists all bounds.
        max_requests: requests that are kept at once; one more replaces the oldest ended one of the tenant with the
            most, and is refused where the tenant's are running and what is free is kept for others.
        requests_max_bytes: bytes of all ended requests together, their input included; the oldest one of the tenant
            with the most is dropped first.
        max_idempotency_keys: idempotency keys that are remembered, some 500 bytes each; the tenants share them evenly.
            None is forgotten early: one more is refused.
        idempotency_ttl_seconds: seconds for which an idempotency key is remembered, from its submission.
        log_max_bytes: bytes of the newest entries that each log keeps ready to send; older ones are packed, and none is
            dropped.
        abandon_grace_seconds: seconds for which a request with ``onAbandon: cancel`` goes on without a follower.
        cache_max_bytes: bytes of finished logs kept for replay.
        cache_max_entries: finished logs kept for replay.
        channel_history_entries: publications that each channel keeps for clients that reconnect.
        channel_history_bytes: bytes of one channel's history.
        channel_history_ttl_seconds: seconds for which a publication is kept.
        channels_max_bytes: bytes of all histories together; that of the least recently published channel of the tenant
            with the most is dropped first.
        max_channels: channels that exist at once; one more replaces the least recently published unused one of the
            tenant with the most, and is refused where the tenant's are in use and what is free is kept for others.
        max_subscriptions: subscriptions of all sockets together; each socket has at most 1000.
        loop_lag_warning_ms: milliseconds without a turn of the event loop after which a line says so, and
            health is degraded for a minute.
        log_level: the lowest level that is logged: TRACE, DEBUG, INFO, WARNING (or ``warn``), ERROR or FATAL.
        log_levels: the lowest level of single loggers and of those below them, as ``service.http=debug,wire=trace``.
        log_format: ``auto`` is pretty on a terminal in development and JSON elsewhere.
        log_to_file: whether the log is also written, as JSON, to ``server.log`` in ``log_dir``.
        log_dir: the folder of the log file; rotated daily (UTC) and at 100 MB, compressed, 14 files are kept.
        otel_exporter_otlp_endpoint: the collector of spans, over OTLP/HTTP; unset: no tracing.
        otel_service_name: ``service.name`` of every span.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True)

    host: str = "127.0.0.1"
    port: int = Field(3000, ge=0, le=65_535)
    environment: Environment = "development"
    api_keys: SecretList = ()
    key_pepper: SecretStr | None = None
    jwt_secret: SecretStr | None = Field(None, min_length=32)
    jwt_jwks_url: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_leeway_seconds: float = Field(_TOKENS.leeway, ge=0, le=300)
    fetch_allowed: CommaList = ()
    cors_allowed_origins: CommaList = ()
    ws_allowed_origins: CommaList = ()
    rate_limits_fail_open: bool = True
    ws_heartbeat_seconds: float = Field(PING_INTERVAL, ge=1, le=3600)
    allowed_hosts: CommaList = ()
    trusted_proxies: CommaList = ()
    max_connections: int = Field(_CONNECTIONS.total, ge=1, le=1_000_000)
    max_connections_per_address: int = Field(_CONNECTIONS.per_address, ge=1, le=1_000_000)
    keep_alive_seconds: Seconds = _CONNECTIONS.keep_alive
    max_body_bytes: Bytes = 33_554_432
    max_bodies_bytes: Bytes = _REQUESTS.max_input_bytes
    shutdown_grace_seconds: float = Field(10.0, ge=0, le=3600)

    llm_provider: ProviderName | None = None
    default_llm_model: str = ""
    openai_api_key: SecretStr | None = None
    openai_base_url: str = BASE_URLS["openai"]
    anthropic_api_key: SecretStr | None = None
    anthropic_base_url: str = BASE_URLS["anthropic"]
    local_model_path: Path | None = None
    routes_file: Path | None = None
    default_embedding_model: str = ""
    embedding_batch_inputs: int = Field(_EMBEDDINGS.limits.inputs, ge=1, le=2048)
    embedding_cache_max_bytes: int = Field(_EMBEDDINGS.bounds.cache_bytes, ge=0)
    provider_concurrency: int = Field(_GATEWAY.limits.concurrency, ge=1, le=10_000)
    provider_queue: int = Field(_GATEWAY.limits.queue, ge=0, le=100_000)
    connect_timeout_seconds: Seconds = _GATEWAY.deadlines.connect
    first_token_timeout_seconds: Seconds = FIRST_TOKEN_TIMEOUT
    idle_timeout_seconds: Seconds = BETWEEN_CHUNKS_TIMEOUT
    drain_seconds: float = Field(_GATEWAY.limits.drain, ge=0, le=60)

    request_ttl_seconds: Seconds = _REQUESTS.ttl
    max_tenants: int = Field(MAX_TENANTS, ge=1, le=100_000)
    max_requests: int = Field(_REQUESTS.max_requests, ge=1)
    requests_max_bytes: Bytes = _REQUESTS.max_bytes
    max_idempotency_keys: int = Field(_REQUESTS.max_keys, ge=1)
    idempotency_ttl_seconds: float = Field(_REQUESTS.key_ttl, ge=1, le=2_592_000)
    log_max_bytes: Bytes = _REQUESTS.ring_bytes
    abandon_grace_seconds: float = Field(_REQUESTS.abandon_grace, ge=0, le=3600)
    cache_max_bytes: Bytes = _CACHE.max_bytes
    cache_max_entries: int = Field(_CACHE.max_entries, ge=1)
    channel_history_entries: int = Field(_CHANNELS.history.entries, ge=1, le=100_000)
    channel_history_bytes: Bytes = _CHANNELS.history.size
    channel_history_ttl_seconds: float = Field(_CHANNELS.history.ttl, ge=1, le=86_400)
    channels_max_bytes: Bytes = _CHANNELS.size
    max_channels: int = Field(_CHANNELS.channels, ge=1)
    max_subscriptions: int = Field(TOTAL_SUBSCRIPTIONS, ge=1)

    loop_lag_warning_ms: float = Field(100.0, ge=10, le=60_000)
    log_level: LogLevel = "INFO"
    log_levels: LogLevels = ()
    log_format: Literal["auto", "json", "pretty"] = "auto"
    log_to_file: bool = False
    log_dir: Path = Path("logs")
    otel_exporter_otlp_endpoint: str = ""
    otel_service_name: str = "tidegate"

    @field_validator(
        "api_keys", "cors_allowed_origins", "ws_allowed_origins", "allowed_hosts", "trusted_proxies", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            raise ValueError("should be a list that is separated by commas, without brackets and quotes")
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("api_keys")
    @classmethod
    def _long_enough(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        short = [str(place) for place, key in enumerate(value, start=1) if len(key.get_secret_value()) < MIN_KEY]
        if short:
            raise ValueError(
                f"each key needs at least {MIN_KEY} characters; too short: number {', '.join(short)} of {len(value)}; "
                f"{GUESSED}"
            )
        return value

    @field_validator("cors_allowed_origins", "ws_allowed_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(parse_origin, value))

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(parse_host, value))

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(parse_network(part)) for part in value)

    @field_validator("llm_provider", "log_format", "environment", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return _level(value) if isinstance(value, str) else value

    @field_validator("log_levels", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if not all(middle for _, middle, _ in pairs):
            raise ValueError("should be like service.http=debug,wire=trace")
        return tuple((name.strip(), _level(level)) for name, _, level in pairs)

    @field_validator("openai_base_url", "anthropic_base_url", "otel_exporter_otlp_endpoint", "jwt_jwks_url")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("should be an address that begins with http:// or https://")
        return value.rstrip("/")

    @field_validator("fetch_allowed")
    @classmethod
    def _fetched(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        FetchConfig(allowed=value)
        return value

    @field_validator("key_pepper")
    @classmethod
    def _pepper(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) > MAX_PEPPER:
            raise ValueError(f"should have at most {MAX_PEPPER} bytes")
        return value

    @property
    def provider(self) -> str:
        """The provider of the default model: as set, else the one that has a key, else ``local``."""
        return self.gateway().provider

    @property
    def exposed(self) -> bool:
        """Whether other machines can reach the service, and the settings have neither keys nor tokens."""
        return not (self.api_keys or self.tokens().enabled or is_loopback(self.host))

    def check_exposure(self, *, keys: bool = False) -> None:
        """Refuse to serve a network without authentication. ``keys``: whether the routes' file has keys.

        Raises:
            ConfigurationError: the address is not loopback, and there is neither a key nor a token configuration.
        """
        if keys or not self.exposed:
            return
        message = (
            f"HOST={self.host} can be reached from other machines, but API_KEYS is not set, so anybody could use the "
            "model. Set API_KEYS to one or more secret keys, separated by commas (callers send one as "
            "`Authorization: Bearer <key>`), put keys into the routes' file (`tidegate key create`), or set "
            "HOST=127.0.0.1."
        )
        raise ConfigurationError.of((FieldError("", message),))

    # ------------------------------------------------------------------------------------------- what the settings make

    def gateway(self, routes: Routes = NO_ROUTES) -> GatewayConfig:
        """Return the configuration of the gateway, with the routes of the file."""
        return GatewayConfig(
            llm_provider=self.llm_provider or "",
            default_model=self.default_llm_model,
            openai_api_key=_reveal(self.openai_api_key),
            openai_base_url=self.openai_base_url,
            anthropic_api_key=_reveal(self.anthropic_api_key),
            anthropic_base_url=self.anthropic_base_url,
            local_model_path=self.local_model_path,
            limits=GatewayLimits(
                concurrency=self.provider_concurrency,
                queue=self.provider_queue,
                drain=self.drain_seconds,
            ),
            deadlines=ProviderDeadlines(
                connect=self.connect_timeout_seconds,
                first_token=self.first_token_timeout_seconds,
                between_chunks=self.idle_timeout_seconds,
            ),
            routes=routes,
            secrets=variable,
        )

    def embeddings(self, routes: Routes = NO_ROUTES) -> EmbeddingsConfig:
        """Return the configuration of the embeddings, with the routes of the file."""
        return EmbeddingsConfig(
            llm_provider=self.llm_provider or "",
            default_model=self.default_embedding_model,
            openai_api_key=_reveal(self.openai_api_key),
            openai_base_url=self.openai_base_url,
            local_model_path=self.local_model_path,
            routes=routes,
            secrets=variable,
            connect_timeout=self.connect_timeout_seconds,
            limits=EmbedderLimits(inputs=self.embedding_batch_inputs),
            bounds=EmbeddingBounds(cache_bytes=self.embedding_cache_max_bytes),
        )

    def requests(self) -> RequestLimits:
        """Return the bounds of the request router."""
        return RequestLimits(
            ttl=self.request_ttl_seconds,
            max_requests=self.max_requests,
            max_bytes=self.requests_max_bytes,
            max_input_bytes=self.max_bodies_bytes,
            max_keys=self.max_idempotency_keys,
            key_ttl=self.idempotency_ttl_seconds,
            ring_bytes=self.log_max_bytes,
            abandon_grace=self.abandon_grace_seconds,
        )

    def cache(self) -> CacheLimits:
        """Return the bounds of the cache."""
        return CacheLimits(max_entries=self.cache_max_entries, max_bytes=self.cache_max_bytes)

    def channels(self) -> ChannelLimits:
        """Return the bounds of the channels."""
        history = HistoryLimits(
            self.channel_history_entries, self.channel_history_bytes, self.channel_history_ttl_seconds
        )
        return ChannelLimits(history=history, channels=self.max_channels, size=self.channels_max_bytes)

    def origins(self) -> OriginConfig:
        """Return which pages and hosts are allowed."""
        return OriginConfig(
            pages=frozenset(self.cors_allowed_origins),
            sockets=frozenset(self.ws_allowed_origins),
            open_sockets=self.environment != "production",
            hosts=frozenset(self.allowed_hosts),
            proxies=tuple(map(parse_network, self.trusted_proxies)),
        )

    def connections(self) -> ConnectionLimits:
        """Return the bounds of clients' connections."""
        return ConnectionLimits(
            total=self.max_connections,
            per_address=self.max_connections_per_address,
            keep_alive=self.keep_alive_seconds,
            proxies=tuple(map(parse_network, self.trusted_proxies)),
        )

    def tokens(self) -> TokenConfig:
        """Return how signed tokens are verified."""
        return TokenConfig(
            secret=_reveal(self.jwt_secret).encode(),
            jwks_url=self.jwt_jwks_url,
            issuer=self.jwt_issuer,
            audience=self.jwt_audience,
            leeway=self.jwt_leeway_seconds,
            fetch_allowed=self.fetch_allowed,
        )


SETTINGS: Final = frozenset({*(name.upper() for name in Settings.model_fields), NODE_ENV})


def load_settings(env_file: str | Path | None = ".env", **overrides: Any) -> Settings:  # noqa: ANN401 - field by field
    """Read the settings; ``overrides`` win over the environment, and that over ``env_file``.

    Raises:
        ConfigurationError: settings are invalid; the message names each and what it may be, never its value.
    """
    settings, faults = read_settings(read_env_file(env_file), **overrides)
    if faults:
        raise ConfigurationError.of(faults)
    return settings


def load_pepper(env_file: str | Path | None = ".env") -> SecretStr | None:
    """Read ``key_pepper`` alone: a key can be made where other settings are invalid, such as for want of a key.

    Raises:
        ConfigurationError: it is invalid, or the file or its line can't be read.
    """
    return _load_with("KEY_PEPPER", env_file).key_pepper


def load_routes_path(env_file: str | Path | None = ".env") -> Path | None:
    """Read ``routes_file`` alone; raises as ``load_pepper`` does."""
    return _load_with("ROUTES_FILE", env_file).routes_file


def _load_with(name: str, env_file: str | Path | None) -> Settings:
    """Read the settings, of which only ``name`` has to be valid."""
    settings, faults = read_settings(read_env_file(env_file))
    mine = [fault for fault in faults if name in fault.path + fault.message or fault.path == str(env_file)]
    if mine:
        raise ConfigurationError.of(mine)
    return settings


def read_settings(
    file: EnvFile,
    **overrides: Any,  # noqa: ANN401 - field by field
) -> tuple[Settings, list[FieldError]]:
    """Return the settings, with the defaults of those that are invalid, and every fault with its place."""
    environment = {name.lower() for name, value in os.environ.items() if value}
    written = {name.lower(): name for name, value in file.values.items() if value}
    read = {name: file.values[written[name]] for name in written.keys() & Settings.model_fields.keys() - environment}
    given = {**read, **overrides}
    faults = file.faults(SETTINGS)
    if "environment" not in given.keys() | environment:
        node = os.environ.get(NODE_ENV) or file.values.get(NODE_ENV, "")
        if node.strip().lower() in ENVIRONMENTS:
            given["environment"] = node
        elif node:
            place = NODE_ENV if os.environ.get(NODE_ENV) else f"{file.place(NODE_ENV)}: {NODE_ENV}"
            faults.append(FieldError(place, f"should be {one_of(ENVIRONMENTS)}, where ENVIRONMENT is not set"))
    try:
        return Settings(**given), faults
    except ValidationError as error:
        invalid = dict.fromkeys(setting_faults(error, Settings.model_fields))
    for name, words in invalid:
        inside = name.lower() in read and name.lower() not in overrides
        faults.append(FieldError(f"{file.place(written[name.lower()])}: {name}" if inside else name, words))
    defaults = {name.lower(): Settings.model_fields[name.lower()].default for name, _ in invalid}
    return Settings(**{**given, **defaults}), faults


def variable(name: str, env_file: Path = Path(".env")) -> str | None:
    """Return a variable that is no setting, such as a named provider's key, from the environment or the file."""
    return os.environ.get(name) or read_env_file(env_file).values.get(name) or None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _level(text: str) -> str:
    """Return the name of a level as the settings have it: in capitals, ``warn`` and ``critical`` by their own names."""
    name = text.strip().upper()
    return LEVEL_ALIASES.get(name, name)


def _reveal(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value()
