"""The routes' file: read at the start, looked at every few seconds, and put in force when it has changed."""

import tomllib
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import structlog

from actors.request_router import ForgetModels
from actors.runtime import Actor, Ref, handles
from protocol.errors import ConfigurationError
from protocol.message import Message
from protocol.routes import ProviderSpec, Route, Routes, SetRoutes

T = TypeVar("T")

DEFAULT_NAME: Final = "tidegate.toml"
LOOK_INTERVAL: Final = 2.0  # seconds
ASK_TIMEOUT: Final = 1.0  # seconds
MAX_BYTES: Final = 1_048_576
KEYS: Final = frozenset({"default", "providers", "routes"})

Stamp = tuple[int, int, int] | None
"""What tells one version of a file from another: its time, size and identity; None where there is no file."""

_log = structlog.get_logger("service")


class RoutesFile(msgspec.Struct, frozen=True):
    """A file as it was read.

    Attributes:
        path: where it is.
        stamp: which version of it was read.
        routes: what it says; nothing where there is no file.
    """

    path: Path
    stamp: Stamp
    routes: Routes


def open_routes(path: Path | None) -> RoutesFile:
    """Read the file at ``path``; with None, the one of the default name where there is one.

    Raises:
        ConfigurationError: it is not there, or is not what it may be; the message names the key.
    """
    file = path or Path(DEFAULT_NAME)
    stamp = stamp_of(file)
    if stamp is None and path is None:
        return RoutesFile(file, None, Routes())
    return RoutesFile(file, stamp, read_routes(file))


def stamp_of(path: Path) -> Stamp:
    """Return which version of a file there is."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def read_routes(path: Path) -> Routes:
    """Read the file.

    Raises:
        ConfigurationError: it can't be read, or is not what it may be; the message names the key.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise ConfigurationError(f"{path}: it is larger than {MAX_BYTES} bytes")
        table = tomllib.loads(text.decode())
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    try:
        return parse_routes(table)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error.detail}") from error


def parse_routes(table: dict[str, Any]) -> Routes:
    """Return what a table of TOML says.

    Raises:
        ConfigurationError: a key is unknown, missing or not what it may be; the message names it.
    """
    unknown = sorted(table.keys() - KEYS)
    if unknown:
        raise ConfigurationError(f"{unknown[0]}: there is no such key; there are: {', '.join(sorted(KEYS))}")
    providers = _convert("providers", table.get("providers", {}), dict[str, Any])
    routes = _convert("routes", table.get("routes", {}), dict[str, Any])
    return Routes(
        default=_convert("default", table.get("default", ""), str),
        providers={name: _convert(f"providers.{name}", spec, ProviderSpec) for name, spec in providers.items()},
        routes={alias: _convert(f"routes.{alias}", route, Route) for alias, route in routes.items()},
    )


def _convert(key: str, value: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
        raise ConfigurationError(f"{key}{path.rstrip('`')}: {reason}") from error


class Look(Message[None], frozen=True):
    """Time to look at the file."""


class InForce(Message[None], frozen=True):
    """The gateway has taken ``routes``."""

    routes: Routes


class Refused(Message[None], frozen=True):
    """The gateway has not taken ``routes``."""

    routes: Routes
    error: Exception


class RoutesWatcher(Actor[Look | InForce | Refused]):
    """Puts the file's routes in force when it changes. A bad file is reported once, and what was in force stays.

    The gateway is told at every look, so that one that was restarted learns them again; equal ones change nothing.

    Args:
        file: as it was read at the start.
        gateway: who is told.
        router: who knows models by their names.
    """

    def __init__(self, file: RoutesFile, *, gateway: Ref[SetRoutes], router: Ref[ForgetModels]) -> None:
        self._path = file.path
        self._stamp = file.stamp
        self._wanted = file.routes
        self._in_force = file.routes
        self._gateway = gateway
        self._router = router

    async def started(self) -> None:
        """Look regularly."""
        self.schedule(LOOK_INTERVAL, Look())

    @handles(Look)
    async def look(self, _message: Look) -> None:
        """Read the file if it has changed, and tell the gateway."""
        self.schedule(LOOK_INTERVAL, Look())
        self._read()
        routes = self._wanted
        self.ask_then(
            self._gateway,
            SetRoutes(routes),
            timeout=ASK_TIMEOUT,
            ok=lambda _: InForce(routes),
            err=lambda error: Refused(routes, error),
        )

    @handles(InForce)
    async def in_force(self, message: InForce) -> None:
        """Let the router ask for the models anew."""
        if message.routes == self._in_force:
            return
        self._in_force = message.routes
        _log.info("routes_changed", path=str(self._path), routes=sorted(message.routes.routes))
        await self._router.tell(ForgetModels())

    @handles(Refused)
    async def refused(self, message: Refused) -> None:
        """Report what names something that is not there; a gateway that is busy is told again at the next look."""
        if isinstance(message.error, ConfigurationError) and message.routes == self._wanted:
            self._wanted = self._in_force
            self._report(message.error)

    def _read(self) -> None:
        stamp = stamp_of(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._wanted = read_routes(self._path)
        except ConfigurationError as error:
            self._wanted = self._in_force
            self._report(error)

    def _report(self, error: ConfigurationError) -> None:
        _log.warning("routes_rejected", path=str(self._path), reason=error.detail, kept=sorted(self._in_force.routes))
