"""The file of routes and keys: read at the start, looked at every few seconds, put in force when it has changed."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec
import structlog

from actors.requests.router import ForgetModels
from actors.runtime import Actor, Ref, handles
from protocol.channels import DisconnectUser
from protocol.errors import ConfigurationError
from protocol.identity import Principal
from protocol.message import Message
from protocol.routes import EmbeddingRoute, ProviderSpec, Route, Routes, SetRoutes
from service.auth.keys import KeySpec, check_keys

T = TypeVar("T")

DEFAULT_NAME: Final = "tidegate.toml"
LOOK_INTERVAL: Final = 2.0  # seconds
ASK_TIMEOUT: Final = 1.0  # seconds
MAX_BYTES: Final = 1_048_576
TABLES: Final = frozenset({"default", "embeddings", "keys", "providers", "routes"})

Stamp = tuple[int, int, int] | None
"""What tells one version of a file from another: its time, size and identity; None where there is no file."""

_log = structlog.get_logger("service")


class RoutesFile(msgspec.Struct, frozen=True):
    """A file as it was read.

    Attributes:
        path: where it is.
        stamp: which version of it was read.
        routes: what it says of models; nothing where there is no file.
        keys: what it says of keys, by their names.
    """

    path: Path
    stamp: Stamp
    routes: Routes
    keys: dict[str, KeySpec] = {}


class KeyHolder(Protocol):
    """Whoever is told of the file's keys."""

    def replace(self, specs: Mapping[str, KeySpec]) -> tuple[Principal, ...]:
        """Hold these from now on, and no others of the file's; return whose keys open nothing any more.

        Raises:
            ConfigurationError: one of them can't be held, and nothing has changed.
        """


class TicketHolder(Protocol):
    """Who has issued tickets."""

    def withdraw(self, principal: Principal) -> None:
        """Let nobody in any more by what ``principal`` has had."""


def open_routes(path: Path | None) -> RoutesFile:
    """Read the file at ``path``; with None, the one of the default name where there is one.

    Raises:
        ConfigurationError: it is not there, or is not what it may be; the message names the key.
    """
    file = path or Path(DEFAULT_NAME)
    stamp = stamp_of(file)
    if stamp is None and path is None:
        return RoutesFile(file, None, Routes())
    routes, keys = read_file(file)
    return RoutesFile(file, stamp, routes, keys)


def stamp_of(path: Path) -> Stamp:
    """Return which version of a file there is."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def read_file(path: Path) -> tuple[Routes, dict[str, KeySpec]]:
    """Read the file: its routes and its keys.

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
        _check_names(table)
        return parse_routes(table), parse_keys(table)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error.detail}") from error


def parse_routes(table: dict[str, Any]) -> Routes:
    """Return what a table of TOML says of models.

    Raises:
        ConfigurationError: a key is missing or not what it may be; the message names it.
    """
    providers = _convert("providers", table.get("providers", {}), dict[str, Any])
    routes = _convert("routes", table.get("routes", {}), dict[str, Any])
    embeddings = _convert("embeddings", table.get("embeddings", {}), dict[str, Any])
    return Routes(
        default=_convert("default", table.get("default", ""), str),
        providers={name: _convert(f"providers.{name}", spec, ProviderSpec) for name, spec in providers.items()},
        routes={alias: _convert(f"routes.{alias}", route, Route) for alias, route in routes.items()},
        embeddings={name: _convert(f"embeddings.{name}", route, EmbeddingRoute) for name, route in embeddings.items()},
    )


def parse_keys(table: dict[str, Any]) -> dict[str, KeySpec]:
    """Return what a table of TOML says of keys.

    Raises:
        ConfigurationError: a key is missing or not what it may be; the message names it.
    """
    described = _convert("keys", table.get("keys", {}), dict[str, Any])
    keys = {name: _convert(f"keys.{name}", spec, KeySpec) for name, spec in described.items()}
    check_keys(keys)
    return keys


def _check_names(table: dict[str, Any]) -> None:
    unknown = sorted(table.keys() - TABLES)
    if unknown:
        raise ConfigurationError(f"{unknown[0]}: there is no such key; there are: {', '.join(sorted(TABLES))}")


def _convert(key: str, value: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
        raise ConfigurationError(f"{key}{path.rstrip('`')}: {reason}") from error


class Look(Message[None], frozen=True):
    """Time to look at the file."""


class Taken(Message[None], frozen=True):
    """So many of the takers have taken ``routes``."""

    routes: Routes
    by: int


class Refused(Message[None], frozen=True):
    """One of the takers has not taken ``routes``."""

    routes: Routes
    error: Exception


class RoutesWatcher(Actor[Look | Taken | Refused]):
    """Puts the file in force when it changes. A bad file is reported once, and what was in force stays.

    Keys are in force as soon as the file has been read, also where its routes are then refused: a key that was taken
    away opens nothing any more, and its holder's sockets are closed. Routes are offered to the takers one after the
    other, and again at every look, so that one that was restarted learns them again; equal ones change nothing. Where a
    later one refuses, those before it get the routes that stay with the next look.

    Args:
        file: as it was read at the start; its keys are in force already.
        takers: who is told of the routes.
        router: who knows models by their names.
        keys: who is told of the keys.
        tickets: those that a key has been used for open nothing without it.
        hub: who closes sockets.
    """

    def __init__(
        self,
        file: RoutesFile,
        *,
        takers: Sequence[Ref[SetRoutes]],
        router: Ref[ForgetModels],
        keys: KeyHolder,
        tickets: TicketHolder,
        hub: Ref[DisconnectUser],
    ) -> None:
        self._path = file.path
        self._stamp = file.stamp
        self._wanted = file.routes
        self._in_force = file.routes
        self._takers = tuple(takers)
        self._router = router
        self._keys = keys
        self._tickets = tickets
        self._hub = hub
        self._held = file.keys

    async def started(self) -> None:
        """Look regularly."""
        self.schedule(LOOK_INTERVAL, Look())

    @handles(Look)
    async def look(self, _message: Look) -> None:
        """Read the file if it has changed, and tell the takers."""
        self.schedule(LOOK_INTERVAL, Look())
        for gone in self._read():
            self._tickets.withdraw(gone)
            await self._hub.tell(DisconnectUser(tenant=gone.tenant, user=gone.subject))
        self._offer(self._wanted, 0)

    @handles(Taken)
    async def taken(self, message: Taken) -> None:
        """Tell the next one; after the last, let the router ask for the models anew."""
        if message.by < len(self._takers):
            self._offer(message.routes, message.by)
            return
        if message.routes == self._in_force:
            return
        self._in_force = message.routes
        _log.info("routes_changed", path=str(self._path), routes=sorted(message.routes.routes))
        await self._router.tell(ForgetModels())

    @handles(Refused)
    async def refused(self, message: Refused) -> None:
        """Report what names something that is not there; one that is busy is told again at the next look."""
        if isinstance(message.error, ConfigurationError) and message.routes == self._wanted:
            self._wanted = self._in_force
            self._report(message.error)

    def _offer(self, routes: Routes, place: int) -> None:
        self.ask_then(
            self._takers[place],
            SetRoutes(routes),
            timeout=ASK_TIMEOUT,
            ok=lambda _: Taken(routes, place + 1),
            err=lambda error: Refused(routes, error),
        )

    def _read(self) -> tuple[Principal, ...]:
        """Read the file if it has changed; return whose keys open nothing any more."""
        stamp = stamp_of(self._path)
        if stamp == self._stamp:
            return ()
        self._stamp = stamp
        try:
            routes, keys = read_file(self._path)
            gone = self._keys.replace(keys)
        except ConfigurationError as error:
            self._wanted = self._in_force
            self._report(error)
            return ()
        self._wanted = routes
        if keys != self._held:
            self._held = keys
            _log.info("keys_changed", path=str(self._path), keys=sorted(keys))
        return gone

    def _report(self, error: ConfigurationError) -> None:
        _log.warning("routes_rejected", path=str(self._path), reason=error.detail, kept=sorted(self._in_force.routes))
