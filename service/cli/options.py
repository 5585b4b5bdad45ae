"""Options, exit codes and examples that the commands share."""

from typing import TYPE_CHECKING, Annotated, Final, NoReturn
from urllib.parse import urlsplit

import typer

if TYPE_CHECKING:
    from protocol.errors import ConfigurationError

DEFAULT_URL: Final = "http://127.0.0.1:3000"
MAX_KEY: Final = 16_384  # characters; a signed token is long

FAILED: Final = 1  # the same command fails again
MISUSED: Final = 2  # a mistake on the command line, in the settings or in the routes' file
TEMPORARY: Final = 75  # EX_TEMPFAIL: the same command may succeed later
INTERRUPTED: Final = 130  # Ctrl-C
READER_LEFT: Final = 141  # the reader of a pipe has closed it, as SIGPIPE would report it


def examples(*lines: str) -> str:
    """Return the end of a command's help: its examples, one a line."""
    return "\n".join(("Examples:\n\n\b", *(f"  {line}" for line in lines)))


def refuse(error: "ConfigurationError") -> NoReturn:
    """End the command with each fault of the configuration on a line."""
    for fault in error.faults:
        typer.echo(f"tidegate: {fault.path}: {fault.message}" if fault.path else f"tidegate: {fault.message}", err=True)
    raise typer.Exit(MISUSED)


def _checked_url(value: str) -> str:
    """Return the address of a service without a slash at its end; a mistake in it is a usage error."""
    address = value.strip()
    if "://" not in address:
        raise typer.BadParameter(f"{value!r} has no http:// or https://; http://{address or '127.0.0.1:3000'} has it")
    address = address.rstrip("/")
    try:
        parts = urlsplit(address)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise typer.BadParameter(f"{value!r} is no address: {error}") from None
    if parts.scheme not in {"http", "https"}:
        raise typer.BadParameter(f"{value!r} begins with {parts.scheme}://, and a service with http:// or https://")
    if not named or not address.isprintable() or " " in address:
        raise typer.BadParameter(f"{value!r} is no address such as {DEFAULT_URL}")
    if parts.query or parts.fragment or parts.username is not None:
        raise typer.BadParameter(f"{value!r}: an address has no user, no ? and no #; a key goes into TIDEGATE_API_KEY")
    if parts.path.endswith("/v1"):
        raise typer.BadParameter(f"{value!r} is the address for SDKs; the service's own is {address[:-3]}")
    return address


def _checked_key(value: str) -> str:
    """Return a key without white space around it; one that no header can carry is a usage error."""
    key = value.strip()
    if len(key) > MAX_KEY or not all("!" <= character <= "~" for character in key):
        raise typer.BadParameter("a key has only letters, digits and signs of ASCII, and no spaces")
    return key


Url = Annotated[str, typer.Option(envvar="TIDEGATE_URL", help="Where the service is.", callback=_checked_url)]
Key = Annotated[
    str,
    typer.Option(
        envvar="TIDEGATE_API_KEY",
        help="A key or token of the service; others on this machine can see an option, but not the variable.",
        show_default=False,
        callback=_checked_key,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, also for an error.")]
