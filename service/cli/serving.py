"""``tidegate serve``."""

from typing import Annotated, Any

import typer

from service.cli.options import MISUSED, examples


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "serve",
        epilog=examples(
            "tidegate serve", "tidegate serve --port 8080", "API_KEYS=secret tidegate serve --host 0.0.0.0"
        ),
    )(serve)


def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on; HOST by default.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="The port; PORT by default.")] = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; a second one stops at once. Settings come from the environment and from .env."""
    from protocol.errors import ConfigurationError  # noqa: PLC0415
    from service.config.settings import load_settings  # noqa: PLC0415
    from service.logging import open_logging  # noqa: PLC0415

    given: dict[str, Any] = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    try:
        settings = load_settings(**given)
        if settings.exposed:
            from service.config.routes_file import open_routes  # noqa: PLC0415 - not needed where the settings have keys

            settings.check_exposure(keys=bool(open_routes(settings.routes_file).keys))
        from service.server.server import run  # noqa: PLC0415 - mistakes in the settings are reported before

        with open_logging(settings):
            code = run(settings)
    except ConfigurationError as error:
        typer.echo(f"tidegate: {error.detail}", err=True)
        code = MISUSED
    raise typer.Exit(code)
