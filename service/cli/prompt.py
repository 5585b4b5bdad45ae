"""The prompt of ``tidegate ask``: an argument, files, standard input, or several of these."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

import typer

MAX_BYTES: Final = 16 * 1024 * 1024  # of one source; the service's own bound is MAX_BODY_BYTES
STDIN: Final = "-"


def read_prompt(argument: str | None, files: Iterable[Path]) -> str:
    """Return the prompt: the argument, then each file, with an empty line between them.

    ``-`` stands for standard input, which is also read where nothing else is given and it is not a terminal.
    """
    paths = tuple(files)
    if argument is None and not paths:
        if sys.stdin is None or sys.stdin.isatty():
            raise typer.BadParameter("give one, pipe one in, or name a file (--file)", param_hint="the prompt")
        argument = STDIN
    parts = [] if argument is None else [_stdin() if argument == STDIN else _unbroken(argument)]
    parts += [_file(path) for path in paths]
    text = "\n\n".join(part for part in parts if part.strip())
    if not text:
        raise typer.BadParameter("it is empty", param_hint="the prompt")
    return text


def _stdin() -> str:
    return "" if sys.stdin is None else _decoded(sys.stdin.buffer, "standard input")


def _file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return _decoded(file, str(path))
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror or error}", param_hint="--file") from None


def _decoded(file: BinaryIO, name: str) -> str:
    content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise typer.BadParameter(f"{name} has more than {MAX_BYTES} bytes", param_hint="the prompt")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{name} is not UTF-8 text: byte {error.start}", param_hint="the prompt") from None


def _unbroken(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("it is not UTF-8 text", param_hint="the prompt") from None
    return text
