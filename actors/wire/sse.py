"""Server-sent events: splits the bytes of a stream into events."""

from typing import ClassVar, Final, Protocol

from protocol.errors import ProviderError

MAX_EVENT_BYTES: Final = 1024 * 1024


class Splitter(Protocol):
    """Splits the bytes of a stream into events.

    Attributes:
        content_type: the content type of the streams that it splits.
    """

    content_type: ClassVar[str]

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of every event that ``chunk`` completes, in order.

        Raises:
            ProviderError: ``response_too_large``: an event is larger than its bound; ``provider_bad_response``: the
                bytes are not a stream of that type.
        """


class EventSplitter:
    """Splits a stream of server-sent events.

    Lines may end in LF, CRLF or CR, and the network may cut anywhere, inside a character too. Comments and fields other
    than ``data`` are dropped. An event without its blank line is not returned.

    Args:
        limit: the most bytes of one event.
    """

    __slots__ = ("_data", "_limit", "_line", "_size")
    content_type: ClassVar[str] = "text/event-stream"

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._line: list[bytes] = []  # the pieces of a line that has not ended
        self._data: list[bytes] = []  # the data lines of an event that has not ended
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of every event that ``chunk`` completes, in order.

        Raises:
            ProviderError: ``response_too_large``: an event is larger than its bound.
        """
        if not self._data and not self._line and _is_plain(chunk):
            return chunk[6:-2].split(b"\n\ndata: ")
        lines = self._lines(chunk)
        rest = lines.pop()
        events: list[bytes] = []
        data = self._data
        for line in lines:
            if not line:
                if data:
                    events.append(data[0] if len(data) == 1 else b"\n".join(data))
                    data.clear()
            elif line.startswith(b"data:"):
                data.append(line[6:] if line.startswith(b"data: ") else line[5:])
        if lines:
            self._size = sum(map(len, data))
        if rest:
            self._line.append(rest)
            self._size += len(rest)
        if self._size > self._limit:
            raise ProviderError(code="response_too_large")
        return events

    def _lines(self, chunk: bytes) -> list[bytes]:
        """Return the lines that ``chunk`` completes, and last the beginning of the next line, perhaps empty."""
        pieces = self._line
        if pieces and pieces[-1].endswith(b"\r"):
            chunk = pieces.pop() + chunk
        if b"\r" in chunk:
            chunk = _with_lf(chunk)
        lines = chunk.split(b"\n")
        if pieces and len(lines) > 1:
            lines[0] = b"".join(pieces) + lines[0]
            pieces.clear()
        return lines


def _is_plain(chunk: bytes) -> bool:
    """Whether ``chunk`` is whole events of one ``data`` line each, and nothing else: the usual case."""
    events = 1 + chunk.count(b"\n\ndata: ")
    plain = chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") and chunk.count(b"\n") == 2 * events
    return plain and b"\r" not in chunk


def _with_lf(chunk: bytes) -> bytes:
    """Replace CRLF and CR by LF. A CR at the very end stays, because an LF may follow it."""
    tail = b"\r" if chunk.endswith(b"\r") else b""
    body = chunk[:-1] if tail else chunk
    return body.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + tail
