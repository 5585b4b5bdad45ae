"""The ``tidegate`` command. Each subcommand imports what it needs: ``tidegate version`` loads no server and no SDK."""

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from service.cli.session import CliSession

DEFAULT_URL: Final = "http://127.0.0.1:3000"
MISCONFIGURED: Final = 2  # the exit code of a mistake on the command line

app = typer.Typer(
    name="tidegate",
    help="The LLM gateway whose requests outlive their connections.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

keys = typer.Typer(help="Keys of the service.", add_completion=False, no_args_is_help=True, rich_markup_mode=None)
app.add_typer(keys, name="key")

Url = Annotated[str, typer.Option(envvar="TIDEGATE_URL", help="Where the service is.")]
Key = Annotated[str, typer.Option(envvar="TIDEGATE_API_KEY", help="An API key of the service.", show_default=False)]


@app.command()
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
        for fault in error.faults:
            typer.echo(
                f"tidegate: {fault.path}: {fault.message}" if fault.path else f"tidegate: {fault.message}", err=True
            )
        code = MISCONFIGURED
    raise typer.Exit(code)


@app.command()
def check() -> None:
    """Check the settings and the routes' file without a network call: prints every fault, or what would be served."""
    from service.cli.check import print_check  # noqa: PLC0415 - only where it is needed

    raise typer.Exit(print_check())


@app.command()
def ask(
    prompt: Annotated[str, typer.Argument(help="What to ask; - reads it from standard input.")],
    *,
    model: Annotated[str, typer.Option(help="A model that GET /v1/models lists.")] = "default",
    schema: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A file with a JSON Schema that the answer matches."),
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = "",
) -> None:
    """Ask a model and show the answer as it comes. Ctrl-C leaves the request running."""
    from protocol.llm import ChatMessage  # noqa: PLC0415 - only where it is needed
    from protocol.requests import SubmitBody  # noqa: PLC0415

    text = sys.stdin.read() if prompt == "-" else prompt
    body = SubmitBody(
        messages=(ChatMessage(role="user", content=text),), model=model, schema=_read_schema(schema) if schema else None
    )
    raise typer.Exit(_session(url, key).ask(body))


@app.command()
def watch(
    request_id: Annotated[str, typer.Argument(help="The request, as `ask` named it.", metavar="REQUEST_ID")],
    url: Url = DEFAULT_URL,
    key: Key = "",
) -> None:
    """Show a request's answer from its beginning, and go on until its end. Ctrl-C leaves it running."""
    raise typer.Exit(_session(url, key).watch(request_id))


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What to call it: letters, digits, - and _.", metavar="NAME")],
    *,
    tenant: Annotated[str, typer.Option(help="Whose requests its holder sees; its own by default.")] = "",
    model: Annotated[
        list[str] | None, typer.Option(help="A pattern of models that it may ask for; all by default.")
    ] = None,
) -> None:
    """Make a key: it goes to standard error, this once, and its table for the routes' file to standard output."""
    from protocol.errors import ConfigurationError  # noqa: PLC0415 - only where it is needed
    from service.auth.keys import digest_of, new_key  # noqa: PLC0415
    from service.config.routes_file import parse_keys  # noqa: PLC0415
    from service.config.settings import load_pepper  # noqa: PLC0415

    key = new_key()
    try:
        pepper = load_pepper()
        table: dict[str, Any] = {"hash": digest_of(key, pepper.get_secret_value().encode() if pepper else b"").hex()}
        table |= {"tenant": tenant} if tenant else {}
        table |= {"models": model} if model else {}
        parse_keys({"keys": {name: table}})
    except ConfigurationError as error:
        typer.echo(f"tidegate: {error.detail}", err=True)
        raise typer.Exit(MISCONFIGURED) from None
    typer.echo(f"The key, which is shown only now: {key}", err=True)
    typer.echo(f"[keys.{name}]")
    for field, value in table.items():
        typer.echo(f"{field} = {json.dumps(value)}")


@app.command()
def version() -> None:
    """Show the version."""
    try:
        typer.echo(metadata.version("tidegate"))
    except metadata.PackageNotFoundError:
        typer.echo("unknown (not installed)")


def main() -> None:
    """Run the command."""
    app(prog_name="tidegate")


def _session(url: str, key: str) -> "CliSession":
    from service.cli.session import CliSession  # noqa: PLC0415
    from service.cli.terminal import TerminalView  # noqa: PLC0415

    return CliSession(url, key, TerminalView())


def _read_schema(path: Path) -> dict[str, Any]:
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise typer.BadParameter(f"{path} can't be read as JSON: {error}", param_hint="--schema") from None
    if not isinstance(schema, dict):
        raise typer.BadParameter(f"{path} holds no JSON object, as a JSON Schema is one", param_hint="--schema")
    return schema


if __name__ == "__main__":
    main()
