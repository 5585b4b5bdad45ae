"""The output on a terminal and in a pipe."""

import io

import msgspec
import pytest
from rich.console import Console

from protocol.errors import FieldError, InvalidRequest, ProviderError, TryAgainLater
from protocol.events import Position
from protocol.llm import Usage
from service.cli.options import FAILED, TEMPORARY
from service.cli.terminal import Durations, TerminalView
from service.client.following import Finished, Update

HERE = Position("e", 1)


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def view(out: io.StringIO) -> tuple[TerminalView, io.StringIO]:
    """Return a view on ``out``, and its notes."""
    notes = io.StringIO()
    return TerminalView(out, Console(file=notes, soft_wrap=True, highlight=False)), notes


def update(text: str, *, replaces: bool = False) -> Update:
    """New text."""
    return Update(position=HERE, text=text, replaces=replaces)


def finished(result: bytes) -> Finished:
    """Return the end, with this result."""
    return Finished(position=HERE, result=msgspec.Raw(result), finish_reason="stop", usage=Usage())


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (b'{"text":"Hello","toolCalls":[]}', "Hello\n"),
        (b'{"text":"Hello","toolCalls":[],"parts":[{"type":"text","text":"Hello"}]}', "Hello\n"),
        (b'{"isFoodRelated":true}', '{"isFoodRelated":true}\n'),
        (b'{"text":"","toolCalls":[{"id":"1","name":"f"}]}', '{"text":"","toolCalls":[{"id":"1","name":"f"}]}\n'),
    ],
)
def test_a_pipe_gets_the_answer_once_it_is_whole(result: bytes, shown: str) -> None:
    """Nothing is written before the end; then the text, or the JSON."""
    out = io.StringIO()
    shows, notes = view(out)
    shows.update(update("Hel"))
    shows.update(update("lo"))
    assert out.getvalue() == ""
    shows.finish(finished(result))
    assert (out.getvalue(), notes.getvalue()) == (shown, "")


def test_a_pipe_never_sees_void_text() -> None:
    """Replaced text is not in the answer."""
    out = io.StringIO()
    shows, notes = view(out)
    shows.update(update("wrong"))
    shows.update(update("right", replaces=True))
    shows.finish(finished(b'{"text":"right","toolCalls":[]}'))
    assert (out.getvalue(), notes.getvalue()) == ("right\n", "")


def test_a_terminal_shows_it_as_it_comes() -> None:
    """Each piece is shown at once, and the end is a newline."""
    out = Tty()
    shows, _ = view(out)
    shows.update(update("Hel"))
    assert out.getvalue() == "Hel"
    shows.update(update("lo"))
    shows.finish(finished(b'{"text":"Hello","toolCalls":[]}'))
    assert out.getvalue() == "Hello\n"


def test_a_snapshot_of_what_is_shown_is_not_shown_again() -> None:
    """A replacing text that continues the old one is shown from there; otherwise a note says that it starts anew."""
    out = Tty()
    shows, notes = view(out)
    shows.update(update("Hel"))
    shows.update(update("Hello", replaces=True))
    assert (out.getvalue(), notes.getvalue()) == ("Hello", "")
    shows.update(update("Bye", replaces=True))
    assert out.getvalue() == "Hello\nBye"
    assert "anew" in notes.getvalue()


def test_an_answer_can_not_steer_the_terminal() -> None:
    """The model's control characters are dropped, except for newlines and tabs."""
    out = Tty()
    shows, _ = view(out)
    shows.update(update("a\x1b[2J\x07b\x9b1m\tc\n"))
    assert out.getvalue() == "a[2Jb1m\tc\n"


def test_a_failure_says_what_to_do() -> None:
    """The message, each wrong field, the remedy and the request are shown; the exit code says whether to retry."""
    shows, notes = view(io.StringIO())
    error = InvalidRequest("it is not valid", errors=[FieldError("$.model", "must not be empty")])
    assert shows.failed(error, "req_1") == FAILED
    for part in ("it is not valid (invalid_request)", "$.model: must not be empty", error.problem.remedy, "req_1"):
        assert part in notes.getvalue()
    assert shows.failed(ProviderError(code="provider_timeout")) == TEMPORARY


def test_leaving_says_what_became_of_the_request() -> None:
    """After Ctrl-C the text is shown, and the exit code is that of an interrupt."""
    shows, notes = view(io.StringIO())
    assert shows.left("tidegate watch req_1") == 130
    assert notes.getvalue() == "tidegate watch req_1\n"


def test_quiet_shows_errors_only() -> None:
    """Neither the id nor the times nor a note is shown; an error names the request."""
    notes = io.StringIO()
    shows = TerminalView(io.StringIO(), Console(file=notes, soft_wrap=True), quiet=True)
    shows.submitted("req_1")
    shows.note("trying again")
    shows.finish(finished(b'{"text":"Hello"}'), Durations.since(1.0, 1.5, 2.0))
    assert notes.getvalue() == ""
    shows.failed(ProviderError(), "req_1")
    assert "request: req_1" in notes.getvalue()


def test_times_are_counted_from_the_request() -> None:
    """The first piece and the end, in milliseconds; no first piece is none."""
    assert Durations.since(1.0, 1.25, 3.0) == Durations(250.0, 2000.0)
    assert Durations.since(1.0, None, 3.0).first_token_ms is None


def test_an_error_can_not_steer_the_terminal() -> None:
    """Control characters of others are dropped from messages, too."""
    shows, notes = view(io.StringIO())
    shows.failed(InvalidRequest("a\x1b[2Jb", errors=[FieldError("$.x", "c\x07d")]))
    assert "a[2Jb" in notes.getvalue()
    assert "cd" in notes.getvalue()


@pytest.mark.parametrize(
    ("code", "seconds", "said"),
    [
        ("rate_limited", 2.2, "Wait 3 s, then try again."),
        ("rate_limited", None, "Wait for `retryAfterMs`, then try again."),
        ("provider_overloaded", 0.1, "Wait 1 s, then try again, or use another model."),
        ("overloaded", 4.0, "Wait, then try again. It may succeed in 4 s."),
    ],
)
def test_the_seconds_to_wait_are_shown(code: str, seconds: float | None, said: str) -> None:
    """A person gets seconds where the service has named a time."""
    shows, notes = view(io.StringIO())
    assert shows.failed(TryAgainLater(code=code, retry_after=seconds)) == TEMPORARY
    assert f"what to do: {said}\n" in notes.getvalue()
