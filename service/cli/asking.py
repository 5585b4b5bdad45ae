"""``tidegate ask``, ``watch`` and ``cancel``: one request."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from service.cli.options import DEFAULT_URL, AsJson, Key, Url, examples
from service.cli.prompt import read_prompt

if TYPE_CHECKING:
    from service.cli.session import CliSession

MAX_TIMEOUT: Final = 3600.0  # seconds, the service's own bound

RequestId = Annotated[str, typer.Argument(help="The request, as `ask` named it.", metavar="REQUEST_ID")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No notes on standard error, only errors.")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        "ask",
        epilog=examples(
            'tidegate ask "Name three fruits."',
            'tidegate ask --system "Answer in French." --max-tokens 100 "Name three fruits."',
            "git diff | tidegate ask",
            'tidegate ask "Summarize this." --file notes.txt --file more.txt',
            'tidegate ask "pizza near me" --schema schema.json | jq .isFoodRelated',
            "tidegate ask hi --json | jq .usage",
        ),
    )(ask)
    app.command("watch", epilog=examples("tidegate watch req_01K9Z0V9Q6C5W3T2M1N0PABCDE"))(watch)
    app.command("cancel", epilog=examples("tidegate cancel req_01K9Z0V9Q6C5W3T2M1N0PABCDE"))(cancel)


def ask(  # noqa: PLR0913 - the options of the command
    prompt: Annotated[
        str | None,
        typer.Argument(help="What to ask; - for standard input, which is also read where it is piped in alone."),
    ] = None,
    *,
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "--file", "-f", metavar="FILE", exists=True, dir_okay=False, help="A text file that follows the prompt."
        ),
    ] = None,
    system: Annotated[str, typer.Option(help="Instructions for the model.", show_default=False)] = "",
    model: Annotated[str, typer.Option(help="A model that `tidegate models` lists.")] = "default",
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The most tokens of the answer.")] = None,
    schema: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A file with a JSON Schema that the answer matches."),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, max=MAX_TIMEOUT, help="Seconds for the whole request; 120 by default.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Let Ctrl-C leave the request running.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    url: Url = DEFAULT_URL,
    key: Key = "",
) -> None:
    """Ask a model and show the answer as it comes. Ctrl-C cancels the request.

    The answer goes to standard output, to a pipe once it is complete. The request's id and the times go to standard
    error: until the first piece of the answer and until its end, counted from sending the request.
    """
    text = read_prompt(prompt, file or ())
    shape = _read_schema(schema) if schema else None

    from protocol.llm import ChatMessage  # noqa: PLC0415 - only where it is needed
    from protocol.requests import RequestOptions, SubmitBody  # noqa: PLC0415

    options = RequestOptions(max_tokens=max_tokens)
    if timeout is not None:
        options = RequestOptions(max_tokens=max_tokens, timeout_ms=round(timeout * 1000))
    messages = [ChatMessage(role="user", content=text)]
    if system.strip():
        messages.insert(0, ChatMessage(role="system", content=system))
    body = SubmitBody(messages=tuple(messages), model=model, schema=shape, options=options)
    session = _session(url, key, as_json=as_json, quiet=quiet)
    raise typer.Exit(session.ask(body, keep=keep, timeout=timeout))


def watch(
    request_id: RequestId,
    *,
    as_json: AsJson = False,
    quiet: Quiet = False,
    url: Url = DEFAULT_URL,
    key: Key = "",
) -> None:
    """Show a request's answer from its beginning, and go on until its end. Ctrl-C leaves it running."""
    raise typer.Exit(_session(url, key, as_json=as_json, quiet=quiet).watch(request_id))


def cancel(request_id: RequestId, *, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = "") -> None:
    """Cancel a request for all its readers. One that has ended stays as it is."""
    from service.cli.calls import cancel_request  # noqa: PLC0415 - only where it is needed

    raise typer.Exit(cancel_request(url, key, request_id, as_json=as_json))


def _session(url: str, key: str, *, as_json: bool, quiet: bool) -> "CliSession":
    from service.cli.session import CliSession  # noqa: PLC0415 - only where it is needed
    from service.cli.terminal import TerminalView  # noqa: PLC0415

    return CliSession(url, key, TerminalView(quiet=quiet, as_json=as_json))


def _read_schema(path: Path) -> dict[str, Any]:
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise typer.BadParameter(f"{path} can't be read as JSON: {error}", param_hint="--schema") from None
    if not isinstance(schema, dict):
        raise typer.BadParameter(f"{path} holds no JSON object, as a JSON Schema is one", param_hint="--schema")
    return schema
