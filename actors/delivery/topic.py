"""What is followed: where each of its readers is, and the bytes that come next for it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Final, NamedTuple

from actors.log.frames import snapshot_frame, update_frames
from protocol.events import Entry, EventStream
from protocol.hub import Socket
from protocol.websocket.out import DIALECT, tail

FrameEncoder = Callable[[bytes], bytes]

PAGE_BYTES: Final = 64 * 1024  # of entries' JSON in one write, but for one that is larger, a snapshot and a value
SNAPSHOT: Final = -1  # the cursor of a reader whose next frame is a snapshot: it lies before every log
LOST: Final = -2  # the cursor of a reader that can't go on: what it has missed is gone, and nothing stands for it


class Page(NamedTuple):
    """What a reader gets next.

    Attributes:
        frames: ready for its socket.
        cursor: where it is then.
        final: whether the reader leaves with it: the terminal entry is among the frames, or it is lost.
    """

    frames: bytes
    cursor: int
    final: bool


class Topic(ABC):
    """Something that sockets follow. Readers that stand at one place share the bytes that they get.

    Args:
        name: what it is called among all that one socket follows: another topic of that name replaces it.

    Attributes:
        name: as given.
        readers: each socket's cursor, the place up to which it has everything.
        behind: the sockets that were left alone for a while, and get what they have missed in as few bytes as can be.
    """

    __slots__ = ("behind", "name", "readers")

    def __init__(self, name: Hashable) -> None:
        self.name = name
        self.readers: dict[Socket, int] = {}
        self.behind: set[Socket] = set()

    @property
    @abstractmethod
    def end(self) -> int:
        """The cursor of a reader that has everything."""

    @abstractmethod
    def page(self, cursor: int, *, merged: bool, shared: dict[tuple[int, bool], Page]) -> Page:
        """Return what follows ``cursor``, built once for all who ask with the same ``shared``; there is something."""

    @abstractmethod
    def close(self) -> None:
        """The last reader has left."""


class RequestTopic(Topic):
    """A followed request.

    Args:
        stream: what is followed; the topic listens to it until ``close``.
        encode: turns a frame's JSON into what goes over the wire.
        changed: is called with this topic after every change of the stream.
        closed: is called with it when it has been closed.
    """

    __slots__ = ("_closed", "_encode", "_wake", "stream")

    def __init__(
        self,
        stream: EventStream,
        encode: FrameEncoder,
        *,
        changed: Callable[[Topic], None],
        closed: "Callable[[RequestTopic], None]",
    ) -> None:
        super().__init__(stream.request_id)
        self.stream = stream
        self._encode = encode
        self._closed = closed
        self._wake = partial(changed, self)
        stream.listen(self._wake)

    @property
    def end(self) -> int:
        """The stream's last offset."""
        return self.stream.offset

    def close(self) -> None:
        """Stop listening."""
        self.stream.unlisten(self._wake)
        self._closed(self)

    def page(self, cursor: int, *, merged: bool, shared: dict[tuple[int, bool], Page]) -> Page:
        """Return the entries after ``cursor``, or a snapshot where they are not held one by one any more."""
        if cursor < self.stream.first - 1:
            cursor = SNAPSHOT
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
