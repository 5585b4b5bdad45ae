"""The file of routes and keys: read at the start, checked every two seconds, applied when it has changed."""

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec
import structlog

from actors.requests.router_messages import ForgetModels
from actors.runtime import Actor, Ref, handles
from protocol.errors import ConfigurationError, FieldError
from protocol.identity import Principal
from protocol.limits import PLANS, Plan
from protocol.message import Message
from protocol.nearest import nearest
from protocol.routes import EmbeddingRoute, ProviderSpec, Route, Routes, SetRoutes, Target
from protocol.users import DisconnectUser
from service.auth.keys import KeySpec, check_keys
from service.auth.token_config import TokenLimits, TokenPlans, token_plans
from service.config.toml_lines import TomlLines
from service.config.toml_tables import table_faults
from service.config.wording import masked

T = TypeVar("T")

DEFAULT_NAME: Final = "tidegate.toml"
CHECK_INTERVAL: Final = 2.0  # seconds
ASK_TIMEOUT: Final = 1.0  # seconds
MAX_BYTES: Final = 1_048_576
KINDS: Final = {
    "embeddings": EmbeddingRoute,
    "keys": KeySpec,
    "plans": Plan,
    "providers": ProviderSpec,
    "routes": Route,
}
TABLES: Final = frozenset({"default", "jwt", *KINDS})
NAMES: Final = ", ".join(sorted(TABLES))
PLACEHOLDER: Final = ProviderSpec(kind="openai", base_url="http://127.0.0.1:9/v1")
"""Stands for a provider that can't be read, so that routes to it are no further faults. It is never called."""

Stamp = tuple[int, int, int] | None
"""Identifies a version of a file: its time, size and inode; None where there is no file."""

_log = structlog.get_logger("service")


class RoutesFile(msgspec.Struct, frozen=True):
    """The content of the file.

    Attributes:
        path: the file.
        stamp: the version that was read; None where there is no file.
        routes: its routes and providers; of a file with faults those that can be read. A provider that can't be read is
            there by its name.
        keys: its keys, by their names.
        plans: the plans that keys and tokens may name, the shipped ones included.
        jwt: how the holders of tokens are limited; None where it does not say.
        faults: what is wrong in it, each with its line.
        lines: the lines of its keys.
    """

    path: Path
    stamp: Stamp
    routes: Routes
    keys: dict[str, KeySpec] = {}
    plans: Mapping[str, Plan] = msgspec.field(default_factory=lambda: PLANS)
    jwt: TokenLimits | None = None
    faults: tuple[FieldError, ...] = ()
    lines: TomlLines | None = None

    def line(self, fault: FieldError) -> int:
        """Return the line of a located fault; 0 for one at another place."""
        found = fault.path.removeprefix(f"{self.path}:").partition(":")[0]
        return int(found) if found.isdigit() else 0

    def located(self, faults: Iterable[FieldError]) -> tuple[FieldError, ...]:
        """Return faults with the file and the line in front of a path in it; other places stay."""
        return tuple(map(self._located, faults))

    def _located(self, fault: FieldError) -> FieldError:
        line = self.lines.line(fault.path) if self.lines else 0
        if not line and fault.path.partition(".")[0] not in TABLES:
            return fault
        return FieldError(f"{self.path}:{line}: {fault.path}" if line else f"{self.path}: {fault.path}", fault.message)


class KeyHolder(Protocol):
    """Holds the file's keys."""

    def replace(self, specs: Mapping[str, KeySpec], plans: Mapping[str, Plan]) -> tuple[Principal, ...]:
        """Replace the file's keys, which name ``plans``; returns the principals of keys that are not valid any more.

        Raises:
            ConfigurationError: a key is invalid, and nothing has changed.
        """


class RoutesHolder(Protocol):
    """Holds what callers' calls may send upstream by a route."""

    def replace(self, routes: Routes) -> None:
        """Take other routes."""


class TicketHolder(Protocol):
    """Holds the tickets that were issued."""

    def withdraw(self, principal: Principal) -> None:
        """Invalidate the tickets of ``principal``."""


def open_routes(path: Path | None) -> RoutesFile:
    """Read the file as ``read_routes`` does.

    Raises:
        ConfigurationError: the file can't be read, or is invalid; the message names every fault.
    """
    file = read_routes(path)
    if file.faults:
        raise ConfigurationError.of(file.faults)
    return file


def read_routes(path: Path | None) -> RoutesFile:
    """Read the file at ``path``, with what is wrong in it; None for the file of the default name, if it exists."""
    file = path or Path(DEFAULT_NAME)
    stamp = stamp_of(file)
    if stamp is None and path is None:
        return RoutesFile(file, None, Routes())
    text = ""
    try:
        text = _text(file)
        table = tomllib.loads(text)
    except OSError as error:
        return _unreadable(file, stamp, FieldError(str(file), error.strerror or type(error).__name__))
    except RecursionError:
        return _unreadable(file, stamp, FieldError(str(file), "it is nested too deeply"))
    except ValueError as error:
        return _unreadable(file, stamp, *_syntax_faults(file, text, error))
    lines = TomlLines(text)
    routes, keys, faults = parse(table)
    plans = {**PLANS, **{name: _read(plan, Plan, Plan()) for name, plan in _entries("plans", table, []).items()}}
    jwt = _read(table.get("jwt"), TokenLimits, None)
    read = RoutesFile(file, stamp, routes, keys, plans, jwt, lines=lines)
    return msgspec.structs.replace(read, faults=read.located(faults))


def stamp_of(path: Path) -> Stamp:
    """Return the current version of a file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def parse(table: dict[str, Any]) -> tuple[Routes, dict[str, KeySpec], list[FieldError]]:
    """Return the routes and the keys of a TOML table as far as they can be read, and every fault."""
    faults = [
        FieldError(masked(name), f"there is no such key{nearest(name, TABLES) or f'; there are: {NAMES}'}")
        for name in sorted(table.keys() - TABLES)
    ]
    parts = {name: _entries(name, table, faults) for name in sorted(KINDS)}
    default = table.get("default", "")
    if "jwt" in table:
        faults += table_faults(table["jwt"], TokenLimits, "jwt")
    faults += table_faults(default, str, "default")
    unread = [alias for alias, route in parts["routes"].items() if list(table_faults(route, Route, ""))]
    routes = Routes(
        default=default if isinstance(default, str) and default not in unread else "",
        providers={name: _read(spec, ProviderSpec, _placeholder(spec)) for name, spec in parts["providers"].items()},
        routes={alias: read for alias, route in parts["routes"].items() if (read := _read_route(route)) is not None},
        embeddings=_read_all(parts["embeddings"], EmbeddingRoute),
    )
    keys = _read_all(parts["keys"], KeySpec)
    try:
        check_keys(keys)
    except ConfigurationError as error:
        faults += error.faults
    return routes, keys, faults


def parse_keys(table: dict[str, Any]) -> dict[str, KeySpec]:
    """Return the API keys in a TOML table.

    Raises:
        ConfigurationError: something is missing or invalid; the message names it.
    """
    _, keys, faults = parse({"keys": table.get("keys", {})})
    if faults:
        raise ConfigurationError.of(faults)
    return keys


def _entries(name: str, table: dict[str, Any], faults: list[FieldError]) -> dict[str, Any]:
    """Return the entries of a table of tables, and add what is wrong in them to ``faults``."""
    entries = table.get(name, {})
    if not isinstance(entries, dict):
        faults.append(FieldError(name, f"should be tables, as [{name}.NAME]"))
        return {}
    for key, entry in entries.items():
        faults += table_faults(entry, KINDS[name], f"{name}.{masked(key)}")
    return entries


def _read(entry: object, kind: type[T], otherwise: T) -> T:
    try:
        return msgspec.convert(entry, kind)
    except msgspec.ValidationError:
        return otherwise


def _placeholder(entry: object) -> ProviderSpec:
    """Return what stands for a provider with faults: its key is wanted all the same."""
    variable = entry.get("api_key_env") if isinstance(entry, dict) else None
    return msgspec.structs.replace(PLACEHOLDER, api_key_env=variable if isinstance(variable, str) else "")


def _read_all(entries: dict[str, Any], kind: type[T]) -> dict[str, T]:
    read = {name: _read(entry, kind, None) for name, entry in entries.items()}
    return {name: entry for name, entry in read.items() if entry is not None}


def _read_route(entry: object) -> Route | None:
    """Return a route; of one with faults the targets that can be read."""
    route = _read(entry, Route, None)
    targets = entry.get("targets") if route is None and isinstance(entry, dict) else None
    if not isinstance(targets, list):
        return route
    readable = tuple(target for target in targets if not any(table_faults(target, str | Target, "")))
    return _read({"targets": readable}, Route, None)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    return content.decode("utf-8-sig")


def _unreadable(path: Path, stamp: Stamp, *faults: FieldError) -> RoutesFile:
    return RoutesFile(path, stamp, Routes(), faults=faults)


def _syntax_faults(path: Path, text: str, error: ValueError) -> Iterable[FieldError]:
    """Return what keeps a text from being TOML: every key that is there twice, or the one fault of the parser."""
    for key, (first, second) in TomlLines(text).repeated.items():
        yield FieldError(f"{path}:{second}: {masked(key)}", f"it is there already, in line {first}")
    if not TomlLines(text).repeated:
        message, _, line = str(error).partition(" (at ")
        number = line.removeprefix("line ").partition(",")[0] if line else ""
        if line.startswith("end"):
            number = str(text.count("\n") + 1)
        if isinstance(error, UnicodeDecodeError):
            message = f"it is no UTF-8 text: byte {error.start}"
        yield FieldError(f"{path}:{number}" if number.isdigit() else str(path), masked(message))


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


class GetRejected(Message[tuple[FieldError, ...]], frozen=True):
    """Get what is wrong in the file, where its routes are not in force; empty where they are."""


class RoutesWatcher(Actor[CheckFile | RoutesAccepted | RoutesRefused | GetRejected]):
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
        limit_tokens: limits the holders of tokens by these plans from now on; None where there are no tokens.
        passing: takes the routes when they are in force; None for nobody.
        check: finds all that the actors would refuse in a file, with the places; None to leave it to them.
    """

    def __init__(  # noqa: PLR0913 - one for each that follows the file
        self,
        file: RoutesFile,
        *,
        targets: Sequence[Ref[SetRoutes]],
        router: Ref[ForgetModels],
        keys: KeyHolder,
        tickets: TicketHolder,
        hub: Ref[DisconnectUser],
        limit_tokens: Callable[[TokenPlans], object] | None = None,
        passing: RoutesHolder | None = None,
        check: Callable[[RoutesFile], Iterable[FieldError]] | None = None,
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
        self._limit_tokens = limit_tokens
        self._held = file.keys
        self._passing = passing
        self._check = check
        self._rejected: tuple[FieldError, ...] = ()

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
        if self._passing is not None:
            self._passing.replace(message.routes)
        _log.info("routes_changed", path=str(self._path), routes=sorted(message.routes.routes))
        await self._router.tell(ForgetModels())

    @handles(RoutesRefused)
    async def refused(self, message: RoutesRefused) -> None:
        """Report routes that name something that does not exist; a busy actor gets them again at the next check."""
        if isinstance(message.error, ConfigurationError) and message.routes == self._wanted:
            self._wanted = self._in_force
            self._report(message.error)

    @handles(GetRejected)
    async def rejected(self, _message: GetRejected) -> tuple[FieldError, ...]:
        """Return what is wrong in the file."""
        return self._rejected

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
        file = read_routes(self._path)
        faults = (*file.faults, *(self._check(file) if self._check else ()))
        removed: tuple[Principal, ...] = ()
        if not file.faults:
            try:
                plans = token_plans(file.jwt, file.plans)
                removed = self._keys.replace(file.keys, file.plans)
            except ConfigurationError as error:
                faults = (*faults, *file.located(error.faults))
            else:
                self._hold(file.keys)
                if self._limit_tokens is not None:
                    self._limit_tokens(plans)
        if faults:
            self._wanted = self._in_force
            self._report(ConfigurationError.of(tuple(dict.fromkeys(faults))))
        else:
            self._wanted = file.routes
            self._rejected = ()
        return removed

    def _hold(self, keys: dict[str, KeySpec]) -> None:
        if keys != self._held:
            self._held = keys
            _log.info("keys_changed", path=str(self._path), keys=sorted(keys))

    def _report(self, error: ConfigurationError) -> None:
        self._rejected = error.faults
        _log.warning("routes_rejected", path=str(self._path), reason=error.detail, kept=sorted(self._in_force.routes))
