"""The lines of a TOML file in which its keys stand: the standard library's parser does not tell them."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any, Final

TOKEN: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|[\[\]{}=,\n]|[^\s"\'#\[\]{}=,]+',
    re.DOTALL,
)
MAX_PATH: Final = 1024  # characters of a path; the lines from a longer one on are not found
PLACE: Final = re.compile(r"^(.*)(?:\.[^.\[\]]*|\[\d+\])$", re.DOTALL)


class TomlLines:
    """The line of each key, by paths such as ``routes.fast.targets[1].weight``.

    Args:
        text: the file. Of one that is no TOML, the lines of its beginning are found.

    Attributes:
        repeated: the first and the last line of each table or key that is there more than once.
    """

    def __init__(self, text: str) -> None:
        self._lines: dict[str, int] = {}
        self._parents: dict[str, int] = {}
        self._places: dict[str, int] = {}  # of arrays of tables: how many tables there are so far
        self.repeated: dict[str, tuple[int, int]] = {}
        self._tokens = _tokens(text)
        self._now, self._line = "", 1
        self._advance()
        try:
            self._read_file()
        except (StopIteration, RecursionError, ValueError):
            return

    def line(self, path: str) -> int:
        """Return the line of a path, or of the nearest key around it; 0 for none."""
        while (line := self._lines.get(path) or self._parents.get(path)) is None:
            found = PLACE.match(path)
            if found is None:
                return 0
            path = found[1]
        return line

    def _keep(self, path: str, line: int) -> None:
        if len(path) > MAX_PATH:
            raise ValueError("a path is too long")
        self._lines[path] = line
        while (found := PLACE.match(path)) is not None and found[1] not in self._parents:
            path = found[1]
            self._parents[path] = line

    def _advance(self) -> None:
        self._now, self._line = next(self._tokens)

    def _read_file(self) -> None:
        table = ""
        while True:
            if self._now == "\n":
                self._advance()
            elif self._now == "[":
                table = self._read_header()
            else:
                self._read_pair(table)

    def _read_header(self) -> str:
        line = self._line
        self._advance()
        several = self._now == "["
        if several:
            self._advance()
        table = self._read_key("]")
        if several:
            place = self._places.get(table, 0)
            self._places[table] = place + 1
            table = f"{table}[{place}]"
        elif table in self._lines:
            self.repeated[table] = (self._lines[table], line)
        self._keep(table, line)
        while self._now != "\n":
            self._advance()
        return table

    def _read_pair(self, table: str) -> None:
        line = self._line
        key = self._read_key("=")
        path = f"{table}.{key}" if table else key
        if path in self._lines and table not in self.repeated:
            self.repeated[path] = (self._lines[path], line)
        self._keep(path, line)
        self._advance()
        self._read_value(path)

    def _read_key(self, end: str) -> str:
        raw = ""
        while self._now != end:
            if self._now in ("\n", "[", "{", "}"):
                raise ValueError("this is no key")
            raw += self._now
            self._advance()
        names: list[str] = []
        inner: Any = tomllib.loads(f"{raw} = 0")
        while isinstance(inner, dict):
            ((name, inner),) = inner.items()
            names.append(name)
        return ".".join(names)

    def _read_value(self, path: str) -> None:
        if self._now == "[":
            self._read_array(path)
        elif self._now == "{":
            self._read_inline(path)
        else:
            while self._now not in ("\n", ",", "]", "}"):
                self._advance()

    def _read_array(self, path: str) -> None:
        self._advance()
        place = 0
        while self._now != "]":
            if self._now == ",":
                place += 1
                self._advance()
            elif self._now == "\n":
                self._advance()
            elif self._now == "}":
                raise ValueError("this is no value")
            else:
                self._lines[f"{path}[{place}]"] = self._line
                self._read_value(f"{path}[{place}]")
        self._advance()

    def _read_inline(self, path: str) -> None:
        self._advance()
        while self._now != "}":
            if self._now in (",", "\n"):
                self._advance()
            else:
                self._read_pair(path)
        self._advance()


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    line, position = 1, 0
    for match in TOKEN.finditer(text):
        line += text.count("\n", position, match.start())
        position = match.start()
        if not match[0].startswith("#"):
            yield match[0], line
    yield "\n", line
