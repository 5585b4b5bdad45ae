"""What all commands print: results to standard output, notes and errors to standard error."""

import os
import sys
from collections.abc import Iterable, Sequence
from math import ceil
from typing import Final, NoReturn, TextIO

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from protocol.errors import TidegateError
from service.cli.options import FAILED, READER_LEFT, TEMPORARY

WAIT: Final = "for `retryAfterMs`"  # in remedies for callers of the API
_NO_CONTROLS: Final = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
_REMEDIES: Final = {
    "budget_exceeded": "See `tidegate usage`. Ask for fewer tokens (--max-tokens), or wait for the window's end.",
    "configuration_error": "Check the address (--url, TIDEGATE_URL); if it is right, the operator has to act.",
    "deadline_exceeded": "Allow more time (--timeout).",
    "model_not_allowed": "`tidegate models` lists the models of your key.",
    "model_not_found": "`tidegate models` lists the models.",
    "not_found": "Check the address (--url, TIDEGATE_URL): it ends after the host and the port.",
    "response_too_large": "Ask for fewer tokens (--max-tokens).",
    "unauthenticated": "Give a key of the service in TIDEGATE_API_KEY, or with --key; `tidegate key create` makes one.",
}
"""Remedies in the words of the command line, where those of the table of errors are for callers of the API."""


class NotesConsole(Console):
    """Standard error: colours only on a terminal, and none with NO_COLOR. A closed pipe ends the command."""

    def __init__(self, file: TextIO | None = None) -> None:
        plain = bool(os.environ.get("NO_COLOR"))
        super().__init__(
            file=file,
            stderr=file is None,
            color_system=None if plain else "auto",
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=True,
        )

    def on_broken_pipe(self) -> NoReturn:
        """End the command."""
        _abandon(sys.stderr)
        raise typer.Exit(READER_LEFT)


def plain(text: str) -> str:
    """Return text of others without control characters, so that it can't steer the terminal."""
    return text.translate(_NO_CONTROLS)


def write(text: str, out: TextIO | None = None) -> None:
    """Write to standard output at once; a closed pipe or a full disk ends the command."""
    stream = out or sys.stdout
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        _abandon(stream)
        raise typer.Exit(READER_LEFT) from None
    except OSError as error:
        _abandon(stream)
        typer.echo(f"tidegate: the output can't be written: {error.strerror or error}", err=True)
        raise typer.Exit(FAILED) from None


def write_json(value: object, out: TextIO | None = None) -> None:
    """Write one JSON value as one line."""
    write(msgspec.json.encode(value).decode() + "\n", out)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows of text in aligned columns, below their head."""
    cells = [tuple(head), *(tuple(plain(cell).replace("\n", " ") for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)
    return "".join(f"{line}\n" for line in lines)


def report(error: TidegateError, notes: Console, request_id: str = "") -> int:
    """Print an error and its remedy; returns the exit code."""
    notes.print(Text.assemble(("error: ", "bold red"), f"{plain(error.detail)} ({plain(error.code)})"))
    for fault in error.errors:
        notes.print(Text(plain(f"  {fault.path}: {fault.message}")))
    notes.print(Text.assemble(("what to do: ", "bold"), _remedy(error)))
    if request_id:
        notes.print(Text(f"request: {request_id}", "dim"))
    return TEMPORARY if error.problem.temporary else FAILED


def write_json_error(error: TidegateError, request_id: str = "", out: TextIO | None = None) -> None:
    """Write an error as one JSON object."""
    described = {
        "code": error.code,
        "message": error.detail,
        "remedy": _remedy(error),
        "temporary": error.problem.temporary,
        "errors": error.errors,
    }
    write_json({"requestId": request_id or None, "error": described}, out)


def _remedy(error: TidegateError) -> str:
    remedy = _REMEDIES.get(error.code, error.problem.remedy)
    if error.retry_after is None:
        return remedy
    wait = f"{max(1, ceil(error.retry_after))} s"
    return remedy.replace(WAIT, wait) if WAIT in remedy else f"{remedy} It may succeed in {wait}."


def _abandon(stream: TextIO) -> None:
    """Let what is still buffered go nowhere, so that Python does not fail on it at its end."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except OSError:  # a stream without a descriptor has no pipe either
        return
