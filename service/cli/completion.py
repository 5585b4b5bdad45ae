"""``tidegate completion``: the script with which a shell completes the command. It writes to no file."""

from typing import Annotated, Final, Literal

import typer
from typer import completion as shells

from service.cli.options import examples

VARIABLE: Final = "_TIDEGATE_COMPLETE"  # set by the script while it asks for completions


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "completion",
        epilog=examples(
            'eval "$(tidegate completion bash)"     # for this shell; in ~/.bashrc for all',
            'eval "$(tidegate completion zsh)"      # the same in ~/.zshrc, after compinit',
            "tidegate completion fish > ~/.config/fish/completions/tidegate.fish",
        ),
    )(completion)


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell.", show_default=False)],
) -> None:
    """Print the script that completes commands and options in a shell."""
    script: str = shells.get_completion_script(  # type: ignore[attr-defined]  # typer exports it without saying so
        prog_name="tidegate", complete_var=VARIABLE, shell=shell
    )
    typer.echo(script)


def prepare() -> None:
    """Let typer answer the requests of these scripts, which it does by itself only where it installs them."""
    shells.get_completion_inspect_parameters()
