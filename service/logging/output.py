"""Outputs: where log lines go."""

from collections.abc import Sequence
from typing import Protocol, TextIO

from service.logging.line import LogLine, TerminalRenderer


class LogOutput(Protocol):
    """A destination of log lines: the port for further ones, given to ``open_logging``.

    Only the writer's thread calls it, so it may block: meanwhile lines wait, up to the writer's capacity, and further
    ones are dropped and counted. It may raise; then its lines are lost and counted, and the next ones are tried again.

    Attributes:
        name: in the lines about its failures.
    """

    name: str

    def write(self, lines: Sequence[LogLine]) -> None:
        """Write some lines, in order. ``LogLine`` has the redacted fields, and the line as JSON."""

    def close(self) -> None:
        """Release everything; called once, after the last line."""


class StreamOutput:
    """Writes to a stream, as JSON or for a person.

    Args:
        stream: stays open.
        terminal: renders for a person; None for JSON.
    """

    name = "stream"

    def __init__(self, stream: TextIO, terminal: TerminalRenderer | None = None) -> None:
        self._stream = stream
        self._terminal = terminal

    def write(self, lines: Sequence[LogLine]) -> None:
        """Write the lines at once, and flush.

        Raises:
            OSError: the stream does not take them.
            ValueError: the stream is closed.
        """
        if self._terminal is None:
            text = b"".join([line.json for line in lines]).decode()
        else:
            text = "".join([self._terminal(line) for line in lines])
        self._stream.write(text)
        self._stream.flush()

    def close(self) -> None:
        """Do nothing: the stream belongs to the caller."""
