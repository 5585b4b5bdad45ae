"""Edits of the routes' file that keep every other byte of it: a key's table is added, or disabled."""

import os
import re
import stat
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from protocol.errors import ConfigurationError
from service.auth.keys import KeySpec
from service.config.routes_file import open_routes

MAX_TRIES: Final = 200  # places of a text that are tried

_FALSE: Final = re.compile(r"\bdisabled[\"']?\s*=\s*false\b")


class KeysFile:
    """The keys of a routes' file.

    An edit is tried on the text, and written only if the file then says what it said before but for the change. It is
    written beside the file and then renamed, so that a running service reads the old file or the new one. Two edits at
    once follow one another.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def keys(self) -> dict[str, KeySpec]:
        """Return the keys by their names; none where there is no file.

        Raises:
            ConfigurationError: the file is invalid, or can't be read.
        """
        return open_routes(self.path).keys if self.path.exists() else {}

    def add(self, name: str, text: str) -> None:
        """Add the table of a new key at the end.

        Raises:
            ConfigurationError: the key is there already; the file is invalid, or can't be written.
        """
        with self._locked():
            self.check_new(name)
            after = f"{self._text()}{self.gap()}{text}"
            held = _parsed(self._text())
            wanted = {**held, "keys": {**held.get("keys", {}), **_parsed(text)["keys"]}}
            if not _says(after, wanted):
                raise ConfigurationError(
                    f"{self.path}: no table can be added at its end; add it by hand, without --save"
                )
            self._replace(after)

    def gap(self) -> str:
        """Return what goes between the file and a table at its end."""
        held = self._text()
        return "" if not held else "\n" if held.endswith("\n") else "\n\n"

    def check_new(self, name: str) -> None:
        """Refuse a name that is taken, also by a disabled key: the spending is counted by name.

        Raises:
            ConfigurationError: the key is there already; the file is invalid, or can't be read.
        """
        held = self.keys().get(name)
        if held is not None:
            state = "is disabled but still there" if held.disabled else "is there already"
            raise ConfigurationError(f"{self.path}: keys.{name} {state}; choose another name")

    def disable(self, name: str) -> bool:
        """Add ``disabled = true`` to a key; returns False where it has it already.

        Raises:
            ConfigurationError: there is no such key; the file is invalid, or can't be written.
        """
        with self._locked():
            keys = self.keys()
            if name not in keys:
                there = ", ".join(sorted(keys)) or "none"
                raise ConfigurationError(f"{self.path}: there is no key of the name {name!r}; there are: {there}")
            if keys[name].disabled:
                return False
            self._replace(_disabled(self._text(), name, self.path))
            return True

    def _text(self) -> str:
        try:
            return self.path.read_bytes().decode() if self.path.exists() else ""
        except OSError as error:
            raise ConfigurationError(f"{self.path}: {error.strerror or error}") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold a lock on the file's folder."""
        if sys.platform == "win32":
            yield
            return
        import fcntl  # noqa: PLC0415 - not on Windows

        try:
            folder = os.open(self._target().parent, os.O_RDONLY)
        except OSError as error:
            raise ConfigurationError(f"{self.path}: {error.strerror or error}") from error
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _replace(self, text: str) -> None:
        target = self._target()
        try:
            descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        except OSError as error:
            raise ConfigurationError(f"{self.path}: {error.strerror or error}") from error
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text.encode())
                file.flush()
                _take_rights(file.fileno(), target)
                os.fsync(file.fileno())
            Path(name).replace(target)
        except OSError as error:
            Path(name).unlink(missing_ok=True)
            raise ConfigurationError(f"{self.path}: {error.strerror or error}") from error

    def _target(self) -> Path:
        """Return the file behind a link, so that the link stays."""
        return self.path.resolve()


def _take_rights(descriptor: int, target: Path) -> None:
    """Give a file the mode and the owner of the one that it replaces; the usual mode where there is none."""
    if sys.platform == "win32":
        return
    try:
        held = target.stat()
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(descriptor, 0o666 & ~mask)
        return
    os.fchmod(descriptor, stat.S_IMODE(held.st_mode))
    if (held.st_uid, held.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(descriptor, held.st_uid, held.st_gid)


def _disabled(text: str, name: str, path: Path) -> str:
    """Return the text with ``disabled = true`` in a key, wherever the key's table is written.

    Each place where that may go is tried: the first after which the text says this, and nothing else has changed.
    """
    wanted = _parsed(text)
    wanted["keys"][name]["disabled"] = True
    for count, tried in enumerate(_attempts(text, name)):
        if _says(tried, wanted):
            return tried
        if count == MAX_TRIES:
            break
    raise ConfigurationError(f"{path}: keys.{name} can't be changed here; write `disabled = true` into it by hand")


def _attempts(text: str, name: str) -> Iterator[str]:
    word = rf"(?:{re.escape(name)}|\"{re.escape(name)}\"|'{re.escape(name)}')"
    keys = r"(?:keys|\"keys\"|'keys')"
    end = "\r\n" if "\r\n" in text else "\n"
    for found in re.finditer(rf"^[ \t]*\[[ \t]*{keys}[ \t]*\.[ \t]*{word}[ \t]*\][^\n]*(?:\n|\Z)", text, re.MULTILINE):
        head = found[0] if found[0].endswith("\n") else found[0] + end
        yield text[: found.start()] + head + f"disabled = true{end}" + text[found.end() :]
        if (held := _FALSE.search(text, found.end())) is not None:
            yield _switched(text, held)
    for found in re.finditer(rf"^[ \t]*(?:{keys}[ \t]*\.[ \t]*)?{word}[ \t]*\.", text, re.MULTILINE):
        yield text[: found.start()] + f"{found[0]}disabled = true{end}" + text[found.start() :]
    for found in re.finditer(rf"(?<![\w-]){word}[ \t]*=[ \t]*\{{", text):
        yield f"{text[: found.end()]} disabled = true,{text[found.end() :]}"
    for found in _FALSE.finditer(text):
        yield _switched(text, found)


def _switched(text: str, found: re.Match[str]) -> str:
    return text[: found.end() - len("false")] + "true" + text[found.end() :]


def _parsed(text: str) -> dict[str, Any]:
    return tomllib.loads(text.removeprefix("\ufeff"))


def _says(text: str, wanted: dict[str, Any]) -> bool:
    try:
        return _parsed(text) == wanted
    except tomllib.TOMLDecodeError:
        return False
