"""The output of the CLI: live on a terminal, complete at the end in a pipe."""

import sys
from typing import Any, Final, Self, TextIO

import msgspec
from rich.console import Console
from rich.text import Text

from protocol.errors import TidegateError
from protocol.llm import Usage
from service.cli.options import INTERRUPTED
from service.cli.output import NotesConsole, plain, report, write, write_json, write_json_error
from service.client.following import Finished, Update

MILLISECONDS: Final = 1000


class Durations(msgspec.Struct, frozen=True, rename="camel"):
    """How long an answer took, from sending the request; in milliseconds.

    Attributes:
        first_token_ms: until the first piece of the answer; None where it had none.
        total_ms: until its end.
    """

    first_token_ms: float | None
    total_ms: float

    @classmethod
    def since(cls, started: float, first: float | None, ended: float) -> Self:
        """Return the durations between three times of one clock, in seconds."""
        milliseconds = None if first is None else round((first - started) * MILLISECONDS, 1)
        return cls(milliseconds, round((ended - started) * MILLISECONDS, 1))


class _Answer(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """The result of a request without a schema."""

    text: str
    tool_calls: list[msgspec.Raw] = []
    parts: list[msgspec.Raw] = []


class TerminalView:
    """Shows an answer: a terminal shows it as it arrives, a pipe gets it once it is complete.

    Args:
        out: takes the answer; standard output by default.
        notes: takes everything else; standard error by default.
        quiet: whether to show errors only, beside the answer.
        as_json: whether to show the request's state as JSON, at its end, instead of the answer.
    """

    def __init__(
        self, out: TextIO | None = None, notes: Console | None = None, *, quiet: bool = False, as_json: bool = False
    ) -> None:
        self.as_json = as_json
        self._out = out or sys.stdout
        self._notes = notes or NotesConsole()
        self._quiet = quiet
        self._live = self._out.isatty() and not as_json
        self._parts: list[str] = []
        self._named = False

    def submitted(self, request_id: str) -> None:
        """Show the id of a request."""
        self._named = not self._quiet
        self._print(Text(f"request: {plain(request_id)}", "dim"))

    def update(self, update: Update) -> None:
        """Show new text. Text that replaces earlier text, which stays on the terminal, begins on a new line."""
        if not update.replaces:
            self._parts.append(update.text)
            self._show(update.text)
            return
        shown, self._parts = "".join(self._parts), [update.text]
        if update.text.startswith(shown):
            self._show(update.text.removeprefix(shown))
            return
        if self._live:
            self._show("\n")
            self.note("the answer starts anew")
        self._show(update.text)

    def finish(
        self, finished: Finished, durations: Durations | None = None, state: dict[str, Any] | None = None
    ) -> None:
        """Show the end of the answer: its text, or its JSON; then how long it took."""
        if self.as_json:
            known = {"coreResult": finished.result, "finishReason": finished.finish_reason, "usage": finished.usage}
            write_json(known | (state or {}) | ({} if durations is None else {"times": durations}), self._out)
        else:
            self._finish_text(finished)
        if durations is not None:
            self._print(Text(_summary(durations, finished.usage), "dim"))

    def failed(self, error: TidegateError, request_id: str = "") -> int:
        """Show an error and its remedy; returns the exit code."""
        self._break()
        if self.as_json:
            write_json_error(error, request_id, self._out)
        return report(error, self._notes, "" if self._named else request_id)

    def left(self, text: str) -> int:
        """Show what became of the request after Ctrl-C; returns the exit code."""
        self._break()
        self._notes.print(Text(text))
        return INTERRUPTED

    def note(self, text: str) -> None:
        """Show a note beside the answer."""
        self._print(Text(f"[{plain(text)}]", "dim"))

    def _finish_text(self, finished: Finished) -> None:
        text, result = "".join(self._parts), bytes(finished.result).decode()
        try:
            answer = msgspec.json.decode(finished.result, type=_Answer)
        except msgspec.ValidationError:
            rest = result
        else:
            text = text or answer.text
            rest = result if answer.tool_calls else ""
        if self._live:
            self._show("\n" if text else "")
            self._show(f"{rest}\n" if rest and rest != text else "")
        else:
            write(f"{rest or text}\n", self._out)

    def _print(self, text: Text) -> None:
        if not self._quiet:
            self._notes.print(text)

    def _break(self) -> None:
        if self._live and self._parts:
            self._show("\n")

    def _show(self, text: str) -> None:
        if self._live and text:
            write(plain(text), self._out)


def _summary(durations: Durations, usage: Usage) -> str:
    first = durations.first_token_ms
    begun = "" if first is None else f"first token after {first / MILLISECONDS:.2f} s, "
    tokens = f"{usage.input_tokens} tokens in, {usage.output_tokens} out"
    return f"[{begun}end after {durations.total_ms / MILLISECONDS:.2f} s; {tokens}]"
