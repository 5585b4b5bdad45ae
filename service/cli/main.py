"""The ``tidegate`` command. Each subcommand imports what it needs: ``--version`` loads no server and no SDK."""

import io
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from service.cli import asking, completion, inspecting, keys, serving
from service.cli.options import examples

app = typer.Typer(
    name="tidegate",
    help="The LLM gateway whose requests outlive their connections.",
    epilog=examples(
        "tidegate serve",
        'tidegate ask "Name three fruits."',
        "tidegate status",
        "tidegate key create web --save",
    ),
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer passes the option's value
    if wanted:
        typer.echo(f"tidegate {_version()}")
        raise typer.Exit


@app.callback(help=app.info.help)
def root(
    *,
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """The LLM gateway whose requests outlive their connections."""


serving.add_commands(app)
asking.add_commands(app)
inspecting.add_commands(app)
keys.add_commands(app)
completion.add_commands(app)


@app.command(epilog=examples("tidegate version"))
def version() -> None:
    """Show the version alone."""
    typer.echo(_version())


def main() -> None:
    """Run the command."""
    if sys.stdout is None:  # closed by the caller
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open until the end of the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an answer may have what the terminal's encoding lacks
    if completion.VARIABLE in os.environ:
        completion.prepare()
    app(prog_name="tidegate")


def _version() -> str:
    try:
        return metadata.version("tidegate")
    except metadata.PackageNotFoundError:
        return "unknown (not installed)"


if __name__ == "__main__":
    main()
