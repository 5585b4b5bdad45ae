"""The settings file ``.env``: its values, the lines they stand in, and the lines that can't be read."""

import io
import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

import msgspec
from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream

from protocol.errors import FieldError
from protocol.nearest import nearest

MAX_BYTES: Final = 1_048_576
MAX_LINES: Final = 5000  # the time to read them grows with their square
UTF16: Final = (b"\xff\xfe", b"\xfe\xff")  # the first two bytes of such a file
NAME: Final = re.compile(r"\s*(?:export\s+)?[\"']?([A-Za-z_][A-Za-z0-9_]*)")
REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)")
SHOWN_NAME: Final = re.compile(r"(?=[A-Za-z_])(?:[A-Z0-9_]+|[a-z0-9_]+)")
KEY: Final = "_API_KEY"  # ends the names of providers' keys
LONGEST_NAME: Final = 24  # characters of a name without an underscore; a longer one may be a part of a secret


class EnvFile(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a file.

    Attributes:
        path: the file; None for none.
        found: whether it was read.
        values: by the names as they are written; of repeated names the last one.
        lines: the line of each name in ``values``.
        repeated: the earlier lines of names that are set again.
        broken: the lines that can't be read, each with the name that it seems to set, which may be empty.
        used: the names that values refer to, as ``${NAME}``.
        fault: why the file can't be read; empty where it can.
    """

    path: Path | None = None
    found: bool = False
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    repeated: tuple[tuple[str, int], ...] = ()
    broken: tuple[tuple[str, int], ...] = ()
    used: frozenset[str] = frozenset()
    fault: str = ""

    def place(self, name: str) -> str:
        """Return the file and the line of a name, as ``.env:3``."""
        return f"{self.path}:{self.lines[name]}"

    def faults(self, settings: Collection[str]) -> list[FieldError]:
        """Return what keeps the service from starting: the file or the line of a setting can't be read.

        Args:
            settings: the names of all settings, in capitals.
        """
        faults = [FieldError(str(self.path), self.fault)] if self.fault else []
        return faults + [
            FieldError(f"{self.path}:{line}", f"{name.upper()} can't be read: {UNREADABLE}")
            for name, line in self.broken
            if name.upper() in settings
        ]

    def notices(self, settings: Collection[str], known: Collection[str]) -> list[FieldError]:
        """Return what has no effect, each with its line.

        Args:
            settings: the names of all settings, in capitals.
            known: further names that something reads, as they are written.
        """
        found = [
            (line, f"the line can't be read: {UNREADABLE}")
            for name, line in self.broken
            if name.upper() not in settings
        ]
        last = {name.upper(): line for name, line in self.lines.items()}
        found += [(line, f"{shown(name)} is set again in line {last[name.upper()]}") for name, line in self.repeated]
        for name, line in self.lines.items():
            if name.upper() not in settings and name not in {*known, *self.used}:
                found.append((line, f"{shown(name)}: {_unknown(name.upper(), settings)}"))
        return [FieldError(f"{self.path}:{line}", message) for line, message in sorted(found)]


UNREADABLE: Final = "write NAME=value, and close the quotes"


def read_env_file(path: Path | str | None) -> EnvFile:
    """Read a file; one that does not exist is empty. Names are told apart by their capitals in values only."""
    if path is None:
        return EnvFile()
    path = Path(path)
    try:
        text = _text(path)
    except FileNotFoundError:
        return EnvFile(path=path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return EnvFile(path=path, fault=f"it can't be read: {reason or type(error).__name__}")
    return _parsed(path, text)


def shown(name: str) -> str:
    """Return a name for a message: not where it may be a piece of a secret that a broken line made a name of."""
    plain = SHOWN_NAME.fullmatch(name) and (len(name) <= LONGEST_NAME or "_" in name)
    return name[:80] if plain else "a name"


def _unknown(name: str, settings: Collection[str]) -> str:
    """Return why a name has no effect: there is no such setting, or no provider of the routes has this key."""
    if name.endswith(KEY):
        hint = nearest(name, [setting for setting in settings if setting.endswith(KEY)], likeness=0.9)
        return f"nothing reads it{hint or ': no provider of the routes names it as its api_key_env'}"
    return f"there is no such setting{nearest(name, settings)}"


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    if content.count(b"\n") > MAX_LINES:
        raise ValueError(f"it has more than {MAX_LINES} lines")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        hint = ": it was saved as UTF-16" if content.startswith(UTF16) else ""
        raise ValueError(f"line {line} is no UTF-8 text{hint}") from None


def _parsed(path: Path, text: str) -> EnvFile:
    bindings = list(parse_stream(io.StringIO(text)))
    good = [binding for binding in bindings if binding.key is not None and binding.value is not None]
    broken = [binding for binding in bindings if binding.error or (binding.key and binding.value is None)]
    values = dotenv_values(stream=io.StringIO("".join(binding.original.string for binding in good)))
    lines: dict[str, int] = {}
    repeated: list[tuple[str, int]] = []
    written: dict[str, str] = {}  # the last spelling of each name, by its capitals
    for binding in good:
        name = binding.key or ""
        earlier = written.get(name.upper())
        if earlier is not None:
            repeated.append((earlier, lines.pop(earlier)))
        written[name.upper()] = name
        lines[name] = _line(binding)
    return EnvFile(
        path=path,
        found=True,
        values={name: value for name, value in values.items() if value is not None and name in lines},
        lines=lines,
        repeated=tuple(repeated),
        used=frozenset(REFERENCE.findall(text)),
        broken=tuple(lost for binding in broken for lost in _lost(binding)),
    )


def _line(binding: Binding) -> int:
    """Return the line of a statement: blank lines before it belong to it."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def _lost(binding: Binding) -> list[tuple[str, int]]:
    """Return the lines of a broken statement: its first one, and those that an open quote has swallowed."""
    lost: list[tuple[str, int]] = []
    for line, text in enumerate(binding.original.string.lstrip().splitlines(), start=_line(binding)):
        found = NAME.match(text)
        if not lost or (found and text[found.end() :].lstrip().startswith("=")):
            lost.append(("" if found is None else found[1], line))
    return lost
