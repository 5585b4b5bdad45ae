"""The output of the CLI: live on a terminal, complete at the end in a pipe."""

import sys
from typing import Final, TextIO

import msgspec
from rich.console import Console
from rich.text import Text

from protocol.errors import TidegateError
from service.client.following import Finished, Update

TEMPORARY: Final = 75  # EX_TEMPFAIL: the same command may succeed later
PERMANENT: Final = 1
INTERRUPTED: Final = 130

_NO_CONTROLS: Final = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


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
    """

    def __init__(self, out: TextIO | None = None, notes: Console | None = None) -> None:
        self._out = out or sys.stdout
        self._notes = notes or Console(stderr=True, highlight=False, soft_wrap=True)
        self._live = self._out.isatty()
        self._parts: list[str] = []

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

    def finish(self, finished: Finished) -> None:
        """Show the end of the answer: its text, or its JSON."""
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
            self._out.write(f"{rest or text}\n")
        self._out.flush()

    def failed(self, error: TidegateError, request_id: str = "") -> int:
        """Show an error and its remedy; returns the exit code."""
        self._break()
        self._notes.print(Text.assemble(("error: ", "bold red"), f"{error.detail} ({error.code})"))
        for fault in error.errors:
            self._notes.print(Text(f"  {fault.path}: {fault.message}"))
        self._notes.print(Text.assemble(("what to do: ", "bold"), error.problem.remedy))
        if request_id:
            self._notes.print(Text(f"request: {request_id}", "dim"))
        return TEMPORARY if error.problem.temporary else PERMANENT

    def left(self, command: str) -> int:
        """Show that the request goes on, with the command to follow it (empty for none); returns the exit code."""
        self._break()
        if command:
            self._notes.print(Text(f"The request goes on. To see it again: {command}"))
        else:
            self._notes.print(Text("Left before the service had answered: the request may have been submitted."))
        return INTERRUPTED

    def note(self, text: str) -> None:
        """Show a note beside the answer."""
        self._notes.print(Text(f"[{text}]", "dim"))

    def _break(self) -> None:
        if self._live and self._parts:
            self._show("\n")

    def _show(self, text: str) -> None:
        if self._live and text:
            self._out.write(text.translate(_NO_CONTROLS))
            self._out.flush()
