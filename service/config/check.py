"""The check of the whole configuration: settings, routes' file and keys, every fault at once. Makes no network call."""

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import msgspec
import structlog

from actors.embeddings import EmbeddingsConfig, build_embeddings
from actors.llm_gateway import GatewayConfig, build_gateway
from protocol.errors import ConfigurationError, FieldError
from service.auth.keys import KeyRing
from service.auth.token_config import token_plans
from service.auth.tokens import open_token_verifier
from service.config.env_file import EnvFile, read_env_file
from service.config.routes_file import PLACEHOLDER, RoutesFile, read_routes
from service.config.settings import SETTINGS, Settings, read_settings, variable
from service.config.wording import masked

ConfigT = TypeVar("ConfigT", GatewayConfig, EmbeddingsConfig)

DEFAULTS: Final = frozenset({"LLM_PROVIDER", "DEFAULT_LLM_MODEL", "DEFAULT_EMBEDDING_MODEL"})

_log = structlog.get_logger("service")


class Checked(msgspec.Struct, frozen=True):
    """The configuration of a service, and what is wrong with it.

    Attributes:
        settings: the settings; invalid ones have their defaults.
        env: the settings file.
        file: the routes' file.
        faults: what keeps the service from starting, each with its place.
        notices: what has no effect, each with its place.
    """

    settings: Settings
    env: EnvFile
    file: RoutesFile
    faults: tuple[FieldError, ...]
    notices: tuple[FieldError, ...]

    @property
    def files(self) -> list[str]:
        """The files that were read, in their order."""
        read = ((self.env.path, self.env.found), (self.file.path, self.file.stamp is not None))
        return [str(path.absolute()) for path, found in read if path is not None and found]

    def require(self) -> Settings:
        """Return the settings.

        Raises:
            ConfigurationError: there are faults; it has each.
        """
        if self.faults:
            raise ConfigurationError.of(self.faults)
        return self.settings

    def log(self) -> None:
        """Log which files were read, and what in them has no effect."""
        _log.info("settings_read", files=self.files)
        for notice in self.notices:
            _log.warning("setting_ignored", place=notice.path, reason=notice.message)


def check_configuration(env_file: str | None = ".env", **overrides: Any) -> Checked:  # noqa: ANN401 - field by field
    """Read and check the configuration; ``overrides`` are settings that win over all files."""
    env = read_env_file(env_file)
    settings, faults = read_settings(env, **overrides)
    file = read_routes(settings.routes_file)
    faults += file.faults
    faults += start_faults(settings, file)
    try:
        settings.check_exposure(keys=_may_have_keys(file) or _refused("API_KEYS", faults))
        open_token_verifier(settings.tokens())
    except ConfigurationError as error:
        faults += error.faults
    return Checked(
        settings, env, file, tuple(sorted(dict.fromkeys(faults), key=file.line)), _notices(settings, env, file)
    )


def start_faults(settings: Settings, file: RoutesFile) -> tuple[FieldError, ...]:
    """Return why the gateway, the embeddings or the keys can't be made of a file, with the place of each fault."""
    faults = [
        *_tried(lambda config: build_gateway(config)(), settings.gateway(file.routes)),
        *_tried(lambda config: build_embeddings(config)(), settings.embeddings(file.routes)),
    ]
    pepper = settings.key_pepper.get_secret_value().encode() if settings.key_pepper else b""
    keys = KeyRing((key.get_secret_value() for key in settings.api_keys), pepper=pepper, variable=variable)
    for check in (lambda: keys.replace(file.keys, file.plans), lambda: token_plans(file.jwt, file.plans)):
        try:
            check()
        except ConfigurationError as error:
            faults += error.faults
    hidden = [FieldError(masked(fault.path), masked(fault.message)) for fault in dict.fromkeys(faults)]
    return tuple(sorted(file.located(hidden), key=file.line))


def _may_have_keys(file: RoutesFile) -> bool:
    """Whether a file has keys, or may have some that can't be read."""
    unread = file.lines is None and file.faults
    return bool(file.keys or unread or any(": keys" in fault.path for fault in file.faults))


def _refused(name: str, faults: Iterable[FieldError]) -> bool:
    """Whether a setting is set, but invalid."""
    return any(fault.path.rpartition(": ")[2] == name for fault in faults)


def _tried(make: Callable[[ConfigT], object], config: ConfigT) -> list[FieldError]:
    """Make an actor without starting it; what is wrong is put right and made again, until nothing more is found."""
    found: list[FieldError] = []
    while True:
        try:
            make(config)
        except ConfigurationError as error:
            faults = [_placed(fault, config) for fault in error.faults]
        else:
            return found
        found += faults
        mended = _mended(config, {fault.path for fault in faults})
        if mended == config:
            return found
        config = mended


def _placed(fault: FieldError, config: GatewayConfig | EmbeddingsConfig) -> FieldError:
    """Return the fault of a provider's own check, which begins with its name, with the path in the file."""
    return FieldError(f"providers.{fault.path}", fault.message) if fault.path in config.routes.providers else fault


def _mended(config: ConfigT, paths: set[str]) -> ConfigT:
    providers = {
        name: PLACEHOLDER
        if any(path == f"providers.{name}" or path.startswith(f"providers.{name}.") for path in paths)
        else spec
        for name, spec in config.routes.providers.items()
    }
    config = msgspec.structs.replace(config, routes=msgspec.structs.replace(config.routes, providers=providers))
    if DEFAULTS.isdisjoint(paths):
        return config
    return msgspec.structs.replace(config, llm_provider="local", default_model="")


def _notices(settings: Settings, env: EnvFile, file: RoutesFile) -> tuple[FieldError, ...]:
    named = {spec.api_key_env for spec in file.routes.providers.values()} | {spec.env for spec in file.keys.values()}
    notices = env.notices(SETTINGS, named)
    path = settings.local_model_path
    if path is not None and not path.is_file():
        notices.append(FieldError("LOCAL_MODEL_PATH", "there is no such file, so the local model can't be loaded"))
    return tuple(notices)
