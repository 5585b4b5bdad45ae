"""Server-sent events, split on bytes."""

from typing import ClassVar, Final, Protocol

from protocol.errors import ProviderError

MAX_EVENT_BYTES: Final = 1024 * 1024


class Splitter(Protocol):
    """Turns what the network gives into the data of whole events.

    Attributes:
        content_type: of the streams that it takes apart.
    """

    content_type: ClassVar[str]

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of every event that ``chunk`` completes, in order.

        Raises:
            ProviderError: ``response_too_large``: an event outgrew its bound; ``provider_bad_response``: this is no
                such stream.
        """


class EventSplitter:
    """Turns what the network gives into the data of whole events.

    Lines may end in LF, CRLF or CR, and the network may cut anywhere, inside a character too. Comments and fields other
    than ``data`` are dropped; an event that the end of the stream cuts off is never given.

    Args:
        limit: the most bytes of one event.
    """

    __slots__ = ("_data", "_held", "_limit", "_size")
    content_type: ClassVar[str] = "text/event-stream"

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._held: list[bytes] = []  # the pieces of a line that has not ended
        self._data: list[bytes] = []  # the data lines of an event that has not ended
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of every event that ``chunk`` completes, in order.

        Raises:
            ProviderError: ``response_too_large``: an event outgrew its bound.
        """
        if not self._data and not self._held and _is_plain(chunk):
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
            self._held.append(rest)
            self._size += len(rest)
        if self._size > self._limit:
            raise ProviderError(code="response_too_large")
        return events

    def _lines(self, chunk: bytes) -> list[bytes]:
        """Return the lines that ``chunk`` completes, and last the beginning of a line, perhaps empty."""
        held = self._held
        if held and held[-1].endswith(b"\r"):
            chunk = held.pop() + chunk
        if b"\r" in chunk:
            chunk = _unix(chunk)
        lines = chunk.split(b"\n")
        if held and len(lines) > 1:
            lines[0] = b"".join(held) + lines[0]
            held.clear()
        return lines


def _is_plain(chunk: bytes) -> bool:
    """Whether these are whole events of one ``data`` line each, and nothing else: most of what the network gives."""
    events = 1 + chunk.count(b"\n\ndata: ")
    plain = chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") and chunk.count(b"\n") == 2 * events
    return plain and b"\r" not in chunk


def _unix(chunk: bytes) -> bytes:
    """End every line in LF; a CR at the very end stays, for what follows may be its LF."""
    tail = b"\r" if chunk.endswith(b"\r") else b""
    body = chunk[:-1] if tail else chunk
    return body.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + tail
