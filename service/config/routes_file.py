"""The file of routes and keys: read at the start, checked every two seconds, applied when it has changed."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec
import structlog

from actors.requests.router_messages import ForgetModels
from actors.runtime import Actor, Ref, handles
from protocol.errors import ConfigurationError
from protocol.identity import Principal
from protocol.message import Message
from protocol.routes import EmbeddingRoute, ProviderSpec, Route, Routes, SetRoutes
from protocol.users import DisconnectUser
from service.auth.keys import KeySpec, check_keys

T = TypeVar("T")

DEFAULT_NAME: Final = "tidegate.toml"
CHECK_INTERVAL: Final = 2.0  # seconds
ASK_TIMEOUT: Final = 1.0  # seconds
MAX_BYTES: Final = 1_048_576
TABLES: Final = frozenset({"default", "embeddings", "keys", "providers", "routes"})

Stamp = tuple[int, int, int] | None
"""Identifies a version of a file: its time, size and inode; None where there is no file."""

_log = structlog.get_logger("service")


class RoutesFile(msgspec.Struct, frozen=True):
    """The content of the file.

    Attributes:
        path: the file.
        stamp: the version that was read.
        routes: its routes and providers; empty where there is no file.
        keys: its keys, by their names.
    """

    path: Path
    stamp: Stamp
    routes: Routes
    keys: dict[str, KeySpec] = {}


class KeyHolder(Protocol):
    """Holds the file's keys."""

    def replace(self, specs: Mapping[str, KeySpec]) -> tuple[Principal, ...]:
        """Replace the file's keys; returns the principals of keys that are not valid any more.

        Raises:
            ConfigurationError: a key is invalid, and nothing has changed.
        """


class TicketHolder(Protocol):
    """Holds the tickets that were issued."""

    def withdraw(self, principal: Principal) -> None:
        """Invalidate the tickets of ``principal``."""


def open_routes(path: Path | None) -> RoutesFile:
    """Read the file at ``path``; None for the file of the default name, if it exists.

    Raises:
        ConfigurationError: the file does not exist, or is invalid; the message names the key.
    """
    file = path or Path(DEFAULT_NAME)
    stamp = stamp_of(file)
    if stamp is None and path is None:
        return RoutesFile(file, None, Routes())
    routes, keys = read_file(file)
    return RoutesFile(file, stamp, routes, keys)


def stamp_of(path: Path) -> Stamp:
    """Return the current version of a file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def read_file(path: Path) -> tuple[Routes, dict[str, KeySpec]]:
    """Read the file: its routes and its keys.

    Raises:
        ConfigurationError: the file can't be read, or is invalid; the message names the key.
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
    """Return the routes in a TOML table.

    Raises:
        ConfigurationError: a key is missing or invalid; the message names it.
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
    """Return the API keys in a TOML table.

    Raises:
        ConfigurationError: a key is missing or invalid; the message names it.
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


class CheckFile(Message[None], frozen=True):
    """Check whether the file has changed."""


class RoutesAccepted(Message[None], frozen=True):
    """The first ``count`` actors have accepted ``routes``."""

    routes: Routes
    count: int


class RoutesRefused(Message[None], frozen=True):
    """An actor has refused ``routes``."""

    routes: Routes
    error: Exception


class RoutesWatcher(Actor[CheckFile | RoutesAccepted | RoutesRefused]):
    """Applies the file when it changes. A bad file is reported once, and the routes in force stay.

    Keys are applied as soon as the file has been read, even where its routes are refused later: a removed key is not
    valid any more, its tickets are invalidated and its holder's sockets are closed. Routes are sent to the actors one
    after the other, and again at every check, so that a restarted actor gets them again; equal routes change nothing.
    Where an actor refuses, those before it get the routes in force again with the next check.

    Args:
        file: the file as read at the start; its keys are applied already.
        targets: the actors that take the routes.
        router: caches which models exist.
        keys: holds the keys.
        tickets: holds the tickets.
        hub: closes sockets.
    """

    def __init__(
        self,
        file: RoutesFile,
        *,
        targets: Sequence[Ref[SetRoutes]],
        router: Ref[ForgetModels],
        keys: KeyHolder,
        tickets: TicketHolder,
        hub: Ref[DisconnectUser],
    ) -> None:
        self._path = file.path
        self._stamp = file.stamp
        self._wanted = file.routes
        self._in_force = file.routes
        self._targets = tuple(targets)
        self._router = router
        self._keys = keys
        self._tickets = tickets
        self._hub = hub
        self._held = file.keys

    async def started(self) -> None:
        """Start the regular check."""
        self.schedule(CHECK_INTERVAL, CheckFile())

    @handles(CheckFile)
    async def check(self, _message: CheckFile) -> None:
        """Read the file if it has changed, and send its routes to the actors."""
        self.schedule(CHECK_INTERVAL, CheckFile())
        for removed in self._read():
            self._tickets.withdraw(removed)
            await self._hub.tell(DisconnectUser(tenant=removed.tenant, user=removed.subject))
        self._offer(self._wanted, 0)

    @handles(RoutesAccepted)
    async def accepted(self, message: RoutesAccepted) -> None:
        """Send the routes to the next actor; after the last one, clear the router's cache of models."""
        if message.count < len(self._targets):
            self._offer(message.routes, message.count)
            return
        if message.routes == self._in_force:
            return
        self._in_force = message.routes
        _log.info("routes_changed", path=str(self._path), routes=sorted(message.routes.routes))
        await self._router.tell(ForgetModels())

    @handles(RoutesRefused)
    async def refused(self, message: RoutesRefused) -> None:
        """Report routes that name something that does not exist; a busy actor gets them again at the next check."""
        if isinstance(message.error, ConfigurationError) and message.routes == self._wanted:
            self._wanted = self._in_force
            self._report(message.error)

    def _offer(self, routes: Routes, place: int) -> None:
        self.ask_then(
            self._targets[place],
            SetRoutes(routes),
            timeout=ASK_TIMEOUT,
            ok=lambda _: RoutesAccepted(routes, place + 1),
            err=lambda error: RoutesRefused(routes, error),
        )

    def _read(self) -> tuple[Principal, ...]:
        """Read the file if it has changed; returns the principals of removed keys."""
        stamp = stamp_of(self._path)
        if stamp == self._stamp:
            return ()
        self._stamp = stamp
        try:
            routes, keys = read_file(self._path)
            removed = self._keys.replace(keys)
        except ConfigurationError as error:
            self._wanted = self._in_force
            self._report(error)
            return ()
        self._wanted = routes
        if keys != self._held:
            self._held = keys
            _log.info("keys_changed", path=str(self._path), keys=sorted(keys))
        return removed

    def _report(self, error: ConfigurationError) -> None:
        _log.warning("routes_rejected", path=str(self._path), reason=error.detail, kept=sorted(self._in_force.routes))
