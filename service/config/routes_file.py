"""The file of routes and keys: its content, and what is wrong in it."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import structlog

from protocol.errors import ConfigurationError, FieldError
from protocol.limits import PLANS, Plan
from protocol.nearest import nearest
from protocol.routes import EmbeddingRoute, ProviderSpec, Route, Routes, Target
from service.auth.keys import KeySpec, check_keys
from service.auth.token_config import TokenLimits
from service.config.toml_lines import TomlLines
from service.config.toml_tables import table_faults
from service.config.wording import masked

T = TypeVar("T")

DEFAULT_NAME: Final = "tidegate.toml"
MAX_BYTES: Final = 1_048_576
MAX_PARTS: Final = 64  # of a dotted key: the time to read one grows with the square of their number
LONG_KEY: Final = re.compile(rf"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){{{MAX_PARTS}}}""")
MAX_FAULTS: Final = 100  # of one file that are named; of the others the number
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

Stamp = tuple[int, int, int, int] | None
"""Identifies a version of a file: its times, size and inode; None where there is no file."""

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
    named = read.located(faults[:MAX_FAULTS])
    if len(faults) > MAX_FAULTS:
        named += (FieldError(str(file), f"it has {len(faults) - MAX_FAULTS} more faults"),)
    return msgspec.structs.replace(read, faults=named)


def stamp_of(path: Path) -> Stamp:
    """Return the current version of a file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


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
    text = content.decode("utf-8-sig")
    long = LONG_KEY.search(text)
    if long is not None:
        line = text.count("\n", 0, long.start()) + 1
        raise ValueError(f"a key has more than {MAX_PARTS} parts (at line {line}, column 1)")
    return text


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
