"""Topics: what sockets subscribe to, a cursor for each reader, and the bytes that follow each cursor."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Final, NamedTuple

from actors.log.frames import snapshot_frame, update_frames
from actors.requests.stream import status_of
from protocol.events import Entry, EventStream
from protocol.hub import Socket
from protocol.websocket.out import DIALECT, tail

FrameEncoder = Callable[[bytes], bytes]

PAGE_BYTES: Final = 64 * 1024  # of entries' JSON in one write; one larger entry, a snapshot and a value may exceed it
SNAPSHOT: Final = -1  # the cursor of a reader whose next frame is a snapshot
LOST: Final = -2  # the cursor of a reader that can't go on: entries it has missed are dropped


class Page(NamedTuple):
    """The next frames of a reader.

    Attributes:
        frames: wire bytes, for one write.
        cursor: the reader's cursor after them.
        final: whether the subscription ends with them: they hold the terminal entry, or the reader is lost.
    """

    frames: bytes
    cursor: int
    final: bool


class Topic(ABC):
    """Something that sockets subscribe to. Readers with the same cursor share the same bytes.

    Args:
        name: unique among one socket's subscriptions: another topic of that name replaces this one.

    Attributes:
        name: as given.
        readers: each socket's cursor: it has everything up to there.
        behind: sockets that have lagged, and get what they have missed merged.
    """

    __slots__ = ("behind", "name", "readers")

    def __init__(self, name: Hashable) -> None:
        self.name = name
        self.readers: dict[Socket, int] = {}
        self.behind: set[Socket] = set()

    @property
    @abstractmethod
    def end(self) -> int:
        """The cursor of a reader that has everything so far."""

    @abstractmethod
    def page(self, cursor: int, *, merged: bool, shared: dict[tuple[int, bool], Page]) -> Page:
        """Return what follows ``cursor``, which is not ``end``. ``shared`` caches the pages of one delivery."""

    @abstractmethod
    def close(self) -> None:
        """Release everything; called when the last reader has gone."""

    def ending(self) -> dict[str, object]:
        """Return what the log says of the end of subscriptions."""
        return {"type": "lost"}


class RequestTopic(Topic):
    """A request's stream as a topic.

    Args:
        stream: the stream to deliver; the topic listens to it until ``close``.
        encode: turns a frame's JSON into wire bytes.
        on_change: called with this topic after every change of the stream.
        on_close: called with this topic after ``close``.
    """

    __slots__ = ("_encode", "_on_close", "_wake", "stream")

    def __init__(
        self,
        stream: EventStream,
        encode: FrameEncoder,
        *,
        on_change: Callable[[Topic], None],
        on_close: "Callable[[RequestTopic], None]",
    ) -> None:
        super().__init__(stream.request_id)
        self.stream = stream
        self._encode = encode
        self._on_close = on_close
        self._wake = partial(on_change, self)
        stream.listen(self._wake)

    @property
    def end(self) -> int:
        """The stream's last offset."""
        return self.stream.offset

    def close(self) -> None:
        """Stop listening."""
        self.stream.unlisten(self._wake)
        del self._wake  # it holds this topic
        self._on_close(self)

    def ending(self) -> dict[str, object]:
        """Return the request, and how it has ended."""
        return {"request_id": self.stream.request_id, "type": status_of(self.stream)}

    def page(self, cursor: int, *, merged: bool, shared: dict[tuple[int, bool], Page]) -> Page:
        """Return the entries after ``cursor``, as many as a page holds."""
        key = (cursor, merged)
        page = shared.get(key)
        if page is None:
            page = shared[key] = self._snapshot() if cursor == SNAPSHOT else self._entries(cursor, merged=merged)
        return page

    def _entries(self, cursor: int, *, merged: bool) -> Page:
        entries = _first_page(self.stream.since(cursor))
        frames = [self._encode(payload) for payload in update_frames(self.stream, entries, merged=merged)]
        last = entries[-1]
        return Page(frames[0] if len(frames) == 1 else b"".join(frames), last.offset, last.terminal)

    def _snapshot(self) -> Page:
        snapshot = self.stream.snapshot()
        return Page(self._encode(snapshot_frame(self.stream, snapshot)), snapshot.offset, final=False)


def _first_page(entries: Sequence[Entry]) -> Sequence[Entry]:
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry.frame(DIALECT, tail))
        if size > PAGE_BYTES and count:
            return entries[:count]
    return entries
