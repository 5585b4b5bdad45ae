"""``tidegate status``, ``models`` and ``usage``: what a service tells about itself."""

import typer

from service.cli.options import DEFAULT_URL, AsJson, Key, Url, examples


def add_commands(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        "status",
        epilog=examples("tidegate status", "tidegate status --url https://llm.example.com", "tidegate status --json"),
    )(status)
    app.command("models", epilog=examples("tidegate models", "tidegate models --json | jq -r '.data[].id'"))(models)
    app.command("usage", epilog=examples("tidegate usage", "TIDEGATE_API_KEY=$WEB_KEY tidegate usage --json"))(usage)


def status(*, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = "") -> None:
    """Show whether the service is ready, the health of its parts, and whether it accepts the key.

    The exit code is 0 where the service is ready, 75 where it is not, and 1 where it does not accept the key.
    """
    from service.cli.calls import show_status  # noqa: PLC0415 - only where it is needed

    raise typer.Exit(show_status(url, key, as_json=as_json))


def models(*, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = "") -> None:
    """List the models that the key may use."""
    from service.cli.calls import show_models  # noqa: PLC0415 - only where it is needed

    raise typer.Exit(show_models(url, key, as_json=as_json))


def usage(*, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = "") -> None:
    """Show what the key's account has spent today and this month, and may spend."""
    from service.cli.calls import show_usage  # noqa: PLC0415 - only where it is needed

    raise typer.Exit(show_usage(url, key, as_json=as_json))
