"""Server-sent events: splits the bytes of a stream into events."""

from typing import ClassVar, Final, Protocol

from actors.wire.json_body import UNCHECKED, check_values, whole_values, without_rest
from protocol.errors import ProviderError
from protocol.reading.loose import named

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024  # of an event, of a whole answer, and of what comes between two events
MAX_BLANKS: Final = 64  # bytes at the end of a body that are looked at for the end of a whole answer
MAX_TRIES: Final = 4  # times the bytes of an event that are looked at for the end of a whole answer
MAX_IDLE_LINES: Final = 65_536  # lines without an event: blank ones, comments, and fields other than data
MAX_NAME: Final = 256  # bytes of an event's name; the rest is cut
NAMED: Final = ("content_block_", "error", "message_", "ping")  # names that say what the data is, or how they begin
BOM: Final = b"\xef\xbb\xbf"


class Splitter(Protocol):
    """Splits the bytes of a stream into events.

    Attributes:
        content_type: the content type of the streams that it splits.
        whole: whether the bytes turned out to be one whole answer in JSON.
    """

    content_type: ClassVar[str]
    whole: bool

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of every event that ``chunk`` completes, in order.

        Raises:
            ProviderError: ``response_too_large``: an event is larger than its bound; ``provider_bad_response``: the
                bytes are not a stream of that type.
        """

    def complete(self) -> list[bytes]:
        """Return the data of a whole answer that needs no more bytes, although the stream has not ended."""

    def end(self) -> list[bytes]:
        """Return the data of the events that the stream's end completes.

        Raises:
            ProviderError: ``provider_stream_broken``: the stream ends within an event of which nothing can be read.
        """


class EventSplitter:
    """Splits a stream of server-sent events; a body that begins as JSON is one event.

    Lines may end in LF, CRLF or CR, and the network may cut anywhere, inside a character too. A byte order mark at the
    start is dropped, and so are comments, events without data, and fields other than ``data`` and ``event``. The name
    of an event comes with its data where it is ``error``, and where it is one of Anthropic's that the data does not
    repeat. The last event needs no blank line. JSON objects on a line each are an event each.

    Args:
        limit: the most bytes of one event, of a whole body, and of what comes between two events.
    """

    __slots__ = (
        "_begun",
        "_between",
        "_data",
        "_data_size",
        "_idle_bytes",
        "_idle_lines",
        "_limit",
        "_line",
        "_name",
        "_size",
        "_start",
        "_tries",
        "whole",
    )
    content_type: ClassVar[str] = "text/event-stream"

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._begun = False
        self._between = False  # nothing is pending, and nothing has come since the last event
        self._start = b""  # while it may be the beginning of a byte order mark
        self._line = bytearray()  # a line that has not ended, or a whole body
        self._data: list[bytes] = []  # the data lines of an event that has not ended
        self._name = ""
        self._data_size = 0
        self._size = 0  # of what has come of an event, or of a whole body
        self._idle_lines = self._idle_bytes = 0  # since the last event
        self._tries = limit * MAX_TRIES  # bytes that are still looked at for the end of a whole body
        self.whole = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of every event that ``chunk`` completes, in order.

        Raises:
            ProviderError: ``response_too_large``: an event is larger than its bound, or too much comes without one.
        """
        if self._between and (plain := _plain_events(chunk)):
            return plain
        if not self._begun or self.whole:
            chunk = self._begin(chunk)
            if not chunk:
                return []
            if self._between and (plain := _plain_events(chunk)):
                return plain
        lines = self._lines(chunk)
        rest = lines.pop()
        events: list[bytes] = []
        if lines:
            self._read(lines, events)
        if rest:
            self._line += rest
            self._size += len(rest)
        self._count(len(chunk), len(lines), events)
        self._between = not (self._data or self._line or self._name or self._idle_bytes)
        return events

    def complete(self) -> list[bytes]:
        """Return the values of a whole body, where they are complete JSON. What comes after them is read as well."""
        if not self.whole or not self._line[-MAX_BLANKS:].rstrip().endswith((b"}", b"]")):
            return []
        self._tries -= self._size
        values = whole_values(bytes(self._line)) if self._tries >= 0 else []
        if values:
            self._line.clear()
        return values

    def end(self) -> list[bytes]:
        """Return the data of the events that the stream's end completes.

        Raises:
            ProviderError: as ``feed``.
        """
        if not self.whole:
            return self.feed(b"\n\n") if self._begun else []
        body = bytes(self._line).strip()
        self._line.clear()
        return (whole_values(body) or without_rest(body)) if body else []

    def _begin(self, chunk: bytes) -> bytes:
        """Find out what the body is; return what there is to split, without what may come before the first line."""
        if not self._begun and not self._start and chunk.startswith(b"data: "):
            self._begun = self._between = True
            return chunk
        if not self._begun:
            given = self._start + chunk
            self._start = b""
            if len(given) < len(BOM) and BOM.startswith(given):
                self._start = given
                return b""
            chunk = given.removeprefix(BOM).lstrip()
            blank = given[: len(given) - len(chunk)]
            self._count(len(blank), blank.count(b"\n"), [])
            if not chunk:
                return b""
            self._begun = True
            self.whole = chunk.startswith((b"{", b"["))
        if not self.whole:
            return chunk
        self._line += chunk
        self._size += len(chunk)
        if self._size > self._limit:
            raise ProviderError(code="response_too_large")
        return b""

    def _read(self, lines: list[bytes], events: list[bytes]) -> None:
        """Read whole lines, and append the data of the events that they complete."""
        data, size = self._data, self._data_size
        for line in lines:
            if not line:
                if data:
                    self._add(events)
                    size = 0
                self._name = ""
            elif line.startswith(b"data:"):
                data.append(line[6:] if line.startswith(b"data: ") else line[5:])
                size += len(line)
            elif line.startswith(b"event:"):
                self._name = line[6:].strip()[:MAX_NAME].decode("utf-8", "replace")
        self._size = self._data_size = size

    def _add(self, events: list[bytes]) -> None:
        data = self._data
        event = data[0] if len(data) == 1 else b"\n".join(data)
        data.clear()
        if len(event) > UNCHECKED:
            check_values(event)
        name = self._name
        if name.startswith(NAMED) and (name == "error" or b'"%b"' % name.encode() not in event):
            events.append(named(event, name))
        elif event:
            events.append(event)

    def _count(self, size: int, lines: int, events: list[bytes]) -> None:
        """Count what has come without an event, and check the bounds."""
        if events:
            self._idle_lines = self._idle_bytes = 0
        else:
            self._idle_lines += lines
            self._idle_bytes += size
        idle = self._idle_lines > MAX_IDLE_LINES or self._idle_bytes > self._limit
        if self._size > self._limit or idle:
            raise ProviderError(code="response_too_large")

    def _lines(self, chunk: bytes) -> list[bytes]:
        """Return the lines that ``chunk`` completes, and last the beginning of the next line, perhaps empty."""
        begun = self._line
        if begun.endswith(b"\r"):
            del begun[-1:]
            chunk = b"\r" + chunk
        if b"\r" in chunk:
            chunk = _with_lf(chunk)
        lines = chunk.split(b"\n")
        if begun and len(lines) > 1:
            begun += lines[0]
            lines[0] = bytes(begun)
            begun.clear()
        return lines


def _plain_events(chunk: bytes) -> list[bytes]:
    """Return the events of ``chunk`` where it is whole events of one ``data`` line each: the usual case."""
    if not (chunk.startswith(b"data: ") and chunk.endswith(b"\n\n")) or b"\r" in chunk:
        return []
    end = len(chunk) - 2
    if chunk.find(b"\n") == end:
        return [chunk[6:end]]
    events = chunk[6:end].split(b"\n\ndata: ")
    return events if b"\n" not in b"".join(events) else []


def _with_lf(chunk: bytes) -> bytes:
    """Replace CRLF and CR by LF. A CR at the very end stays, because an LF may follow it."""
    tail = b"\r" if chunk.endswith(b"\r") else b""
    body = chunk[:-1] if tail else chunk
    return body.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + tail
