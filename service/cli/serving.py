"""``tidegate serve`` and ``check``."""

from typing import Annotated, Any

import typer

from service.cli.options import examples, refuse


def add_commands(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        "serve",
        epilog=examples(
            "tidegate serve", "tidegate serve --port 8080", "API_KEYS=choose-a-long-key tidegate serve --host 0.0.0.0"
        ),
    )(serve)
    app.command("check", epilog=examples("tidegate check", "ROUTES_FILE=new.toml tidegate check"))(check)


def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on; HOST by default.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="The port; PORT by default.")] = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; a second one stops at once. Settings come from the environment and from .env."""
    from protocol.errors import ConfigurationError  # noqa: PLC0415
    from service.config.check import check_configuration  # noqa: PLC0415
    from service.logging import open_logging  # noqa: PLC0415

    given: dict[str, Any] = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    try:
        checked = check_configuration(**given)
        settings = checked.require()
        from service.server.server import run  # noqa: PLC0415 - mistakes in the settings are reported before

        with open_logging(settings):
            checked.log()
            code = run(settings)
    except ConfigurationError as error:
        refuse(error)
    raise typer.Exit(code)


def check() -> None:
    """Check the settings and the routes' file without a network call: prints every fault, or what would be served."""
    from service.cli.check import print_check  # noqa: PLC0415 - only where it is needed

    raise typer.Exit(print_check())
