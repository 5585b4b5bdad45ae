"""The command line: ``tidegate serve``."""

import sys
from typing import Annotated, Any

import typer

from protocol.errors import ConfigurationError
from service.logging import open_logging
from service.settings import load_settings

app = typer.Typer(
    name="tidegate", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)


@app.callback()
def tidegate() -> None:
    """The LLM gateway whose requests outlive their connections."""


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on; HOST by default.")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on; PORT by default.")] = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; a second one stops at once."""
    given: dict[str, Any] = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = load_settings(**given)
    settings.check_exposure()
    from service.server import run  # noqa: PLC0415 - a mistake in the settings is told before the server is imported

    with open_logging(settings):
        code = run(settings)
    raise typer.Exit(code)


def main() -> None:
    """Run the command line; a setting that is wrong ends it with status 2 and one sentence."""
    try:
        app()
    except ConfigurationError as error:
        sys.stderr.write(f"tidegate: {error.detail}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
