"""``tidegate key``: the keys in the routes' file."""

import re
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from service.cli.options import examples, refuse

if TYPE_CHECKING:
    from service.auth.keys import KeySpec
    from service.cli.keys_file import KeysFile

BUDGET: Final = re.compile(r"(\d[\d_]*(?:\.\d+)?) ?(usd|tokens)/(day|month)")
RIGHTS: Final = ("subscribe", "publish", "presence")

keys = typer.Typer(
    help="Create, list and revoke keys of the service.",
    epilog=examples("tidegate key create web --save", "tidegate key list", "tidegate key revoke web"),
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
)


class ScopeName(StrEnum):
    """The scopes as words of the command line."""

    inference = "inference"
    channels = "channels"
    admin = "admin"


Name = Annotated[str, typer.Argument(help="The key's name: letters, digits, - and _.", metavar="NAME")]
RoutesPath = Annotated[
    Path | None,
    typer.Option("--file", dir_okay=False, help="The routes' file; ROUTES_FILE, or tidegate.toml, by default."),
]


def add_commands(app: typer.Typer) -> None:
    """Add the group of commands."""
    app.add_typer(keys, name="key")


@keys.command(
    "create",
    epilog=examples(
        "tidegate key create web --save",
        "tidegate key create web --tenant acme --model fast --model 'groq/*' --default fast --save",
        "tidegate key create web --budget 5usd/day --budget 2_000_000tokens/month --save",
        "tidegate key create screen --scope channels --channel 'room:*=subscribe,presence' --save",
        "tidegate key create web >> tidegate.toml",
    ),
)
def create_key(  # noqa: PLR0913 - the options of the command
    name: Name,
    *,
    tenant: Annotated[
        str, typer.Option(help="Whose requests its holder sees; its own by default.", show_default=False)
    ] = "",
    model: Annotated[
        list[str] | None, typer.Option(help="A pattern of models that it may ask for; all by default.")
    ] = None,
    default: Annotated[str, typer.Option(help="What the model `default` means for it.", show_default=False)] = "",
    scope: Annotated[
        list[ScopeName] | None, typer.Option(help="A part of the service that it opens; all but admin by default.")
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(help="A pattern of channels, or PATTERN=RIGHT,RIGHT; all rights in all channels by default."),
    ] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="What it may spend, as 5usd/day or 2_000_000tokens/month.")
    ] = None,
    plan: Annotated[str, typer.Option(help="The plan that limits it; none by default.", show_default=False)] = "",
    save: Annotated[bool, typer.Option("--save", help="Add the table to the file, instead of printing it.")] = False,
    file: RoutesPath = None,
) -> None:
    """Create a key. It is shown once, on standard error; the file gets its digest alone.

    The table goes to standard output, or with --save into the file. A name that the file has is refused.
    """
    from protocol.errors import ConfigurationError  # noqa: PLC0415 - only where it is needed
    from service.auth.keys import digest_of, new_key  # noqa: PLC0415
    from service.cli.key_table import table_text  # noqa: PLC0415
    from service.config.settings import load_pepper  # noqa: PLC0415

    described = {
        "tenant": tenant,
        "models": model or [],
        "default": default,
        "scopes": [word.value for word in scope or ()],
        "channels": [_grant(text) for text in channel or ()],
        "budgets": [_budget(text) for text in budget or ()],
        "plan": plan,
    }
    key = new_key()
    try:
        pepper = load_pepper()
        digest = digest_of(key, pepper.get_secret_value().encode() if pepper else b"")
        text = table_text(name, {"hash": digest.hex(), **described})
        held = _opened(file)
        if save:
            held.add(name, text)
        else:
            held.check_new(name)
    except ConfigurationError as error:
        refuse(error)
    typer.echo(f"The key, which is shown only now: {key}", err=True)
    if save:
        typer.echo(f"keys.{name} is in {held.path}; a running service accepts it within 2 s", err=True)
    else:
        typer.echo(held.gap() + text, nl=False)


@keys.command("list", epilog=examples("tidegate key list", "tidegate key list --json | jq -r '.[].name'"))
def list_keys(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
    file: RoutesPath = None,
) -> None:
    """List the keys in the routes' file: names and rights, no digests. Keys of API_KEYS have no names."""
    from service.cli.key_table import listed_key  # noqa: PLC0415 - only where it is needed
    from service.cli.output import table, write, write_json  # noqa: PLC0415

    held = _opened(file)
    specs = _read(held)
    if as_json:
        write_json([listed_key(name, spec) for name, spec in specs.items()])
    elif specs:
        head = ("NAME", "STATE", "TENANT", "SCOPES", "MODELS", "DEFAULT", "PLAN", "BUDGETS", "CHANNELS")
        write(table(head, [_row(name, spec) for name, spec in specs.items()]))
    else:
        typer.echo(f"{held.path} has no keys" if held.path.exists() else f"there is no {held.path}", err=True)


@keys.command("revoke", epilog=examples("tidegate key revoke web", "tidegate key revoke web --file /etc/tidegate.toml"))
def revoke_key(name: Name, *, file: RoutesPath = None) -> None:
    """Refuse a key from now on: writes `disabled = true` into its table, and nothing else.

    The table stays, so that the name is not given to another key. A running service reads the file within 2 seconds,
    refuses the key, and ends its streams and sockets; requests that run go on, unless its `on_revoke` is `cancel`.
    """
    from protocol.errors import ConfigurationError  # noqa: PLC0415 - only where it is needed

    held = _opened(file)
    try:
        changed = held.disable(name)
    except ConfigurationError as error:
        refuse(error)
    if changed:
        typer.echo(f"keys.{name} is disabled in {held.path}; a running service refuses it within 2 s")
    else:
        typer.echo(f"keys.{name} was disabled already in {held.path}")


def _opened(file: Path | None) -> "KeysFile":
    from protocol.errors import ConfigurationError  # noqa: PLC0415 - only where it is needed
    from service.cli.keys_file import KeysFile  # noqa: PLC0415
    from service.config.routes_file import DEFAULT_NAME  # noqa: PLC0415
    from service.config.settings import load_routes_path  # noqa: PLC0415

    try:
        return KeysFile(file or load_routes_path() or Path(DEFAULT_NAME))
    except ConfigurationError as error:
        refuse(error)


def _read(held: "KeysFile") -> "dict[str, KeySpec]":
    from protocol.errors import ConfigurationError  # noqa: PLC0415 - only where it is needed

    try:
        return held.keys()
    except ConfigurationError as error:
        refuse(error)


def _row(name: str, spec: "KeySpec") -> tuple[str, ...]:
    from service.cli.key_table import budget_text, grant_text  # noqa: PLC0415 - only where it is needed

    return (
        name,
        "disabled" if spec.disabled else "active",
        spec.tenant or "-",
        ",".join(spec.scopes),
        ",".join(spec.models),
        spec.default or "-",
        (spec.plan or "-") + (" narrowed" if spec.limits else ""),
        " ".join(map(budget_text, spec.budgets)) or "-",
        " ".join(map(grant_text, spec.channels)),
    )


def _budget(text: str) -> dict[str, Any]:
    found = BUDGET.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is none; 5usd/day and 2_000_000tokens/month are", param_hint="--budget")
    amount, unit, period = found.groups()
    if unit == "tokens" and "." in amount:
        raise typer.BadParameter(f"{text!r} has a part of a token", param_hint="--budget")
    number = Decimal(amount.replace("_", ""))
    return {"per": period, unit: int(number) if unit == "tokens" or number == int(number) else float(number)}


def _grant(text: str) -> dict[str, Any]:
    pattern, mark, words = text.rpartition("=")
    if not mark:
        return {"pattern": text}
    rights = [word.strip() for word in words.split(",")]
    wrong = [word for word in rights if word not in RIGHTS]
    if wrong or not pattern:
        raise typer.BadParameter(f"{text!r}: rights are {', '.join(RIGHTS)}", param_hint="--channel")
    return {"pattern": pattern, "rights": rights}
