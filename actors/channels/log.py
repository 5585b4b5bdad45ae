"""A channel's publications."""

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from actors.channels.limits import HistoryLimits
from protocol import ids
from protocol.channels import History, Publication
from protocol.errors import InvalidRequest, UnrecoverablePosition
from protocol.events import Position
from protocol.hub import Mode
from protocol.websocket.channels import publication_json

ENTRY_BYTES: Final = 600  # of a publication and its frame, without their content

FrameEncoder = Callable[[bytes], bytes]


class StoredPublication(NamedTuple):
    """A publication with its frame.

    Attributes:
        publication: the publication.
        frame: its wire bytes, for any socket.
        expires: when it is dropped, as a time of the channels' clock.
    """

    publication: Publication
    frame: bytes
    expires: float

    @property
    def size(self) -> int:
        """Bytes held, estimated."""
        return len(self.frame) + len(memoryview(self.publication.data)) + ENTRY_BYTES


class ChannelLog:
    """Publications in order, with contiguous offsets from 1. Each is framed once for all readers.

    Args:
        channel: the channel's name.
        encode: turns a frame's JSON into wire bytes.
        bounds: of what is held.

    Attributes:
        epoch: identifies this numbering.
        offset: of the last publication; 0 while there is none.
        size: bytes held, estimated.
    """

    __slots__ = ("_bounds", "_channel", "_encode", "_entries", "epoch", "offset", "size")

    def __init__(self, channel: str, encode: FrameEncoder, bounds: HistoryLimits) -> None:
        self.epoch = ids.epoch()
        self.offset = 0
        self.size = 0
        self._channel = channel
        self._encode = encode
        self._bounds = bounds
        self._entries: list[StoredPublication] = []

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def first(self) -> int:
        """The lowest offset that is held; ``offset + 1`` where none is."""
        return self.offset - len(self._entries) + 1

    @property
    def position(self) -> Position:
        """The position of the last publication."""
        return Position(self.epoch, self.offset)

    def append(self, event: str, data: bytes, now: float, *, before_trim: Callable[[int], object]) -> None:
        """Append a publication. Before older ones are dropped for it, ``before_trim`` gets the last one's offset."""
        publication = Publication(offset=self.offset + 1, event=event, data=msgspec.Raw(data), at=time.time())
        frame = self._encode(publication_json(self._channel, publication))
        stored = StoredPublication(publication, frame, now + self._bounds.ttl)
        excess = self._excess(stored.size)
        if excess:
            before_trim(self.first + excess - 1)
            self._drop(excess)
        self.offset += 1
        self._entries.append(stored)
        self.size += stored.size

    def expire(self, now: float, *, before_trim: Callable[[int], object]) -> bool:
        """Drop expired publications; return whether there were any. ``before_trim`` is as for ``append``."""
        expired = 0
        while expired < len(self._entries) and self._entries[expired].expires <= now:
            expired += 1
        if expired:
            before_trim(self.first + expired - 1)
            self._drop(expired)
        return expired > 0

    def clear(self) -> None:
        """Drop all publications; the next one has the next offset."""
        self._entries.clear()
        self.size = 0

    def frames(self, after: int) -> bytes | None:
        """Return the joined frames of the publications after ``after``; None where not all are held."""
        missing = self._after(after)
        return None if missing is None else b"".join([stored.frame for stored in missing])

    def begin(self, after: Position | None, mode: Mode | None) -> tuple[int, bool]:
        """Return the cursor of a reader that has everything up to ``after``, and whether it misses nothing.

        Raises:
            InvalidRequest: ``mode`` is ``snapshot``.
            UnrecoverablePosition: ``mode`` is ``replay`` and the position is not held; or it lies beyond the end.
        """
        if mode == "snapshot":
            raise InvalidRequest("a channel has no snapshot: use `replay` or `live`")
        if after is None:
            return (self.first - 1, self.first == 1) if mode == "replay" else (self.offset, True)
        known = after.epoch == self.epoch
        if known and after.offset > self.offset:
            raise UnrecoverablePosition(f"offset {after.offset} is beyond the end, {self.offset}")
        if mode == "live":
            return self.offset, known
        if known and after.offset >= self.first - 1:
            return after.offset, True
        if mode == "replay":
            raise self._unrecoverable(after)
        return self.offset, False

    def history(self, after: Position | None, limit: int) -> History:
        """Return up to ``limit`` publications after a position, or from the first that is held.

        Raises:
            UnrecoverablePosition: not all publications after it are held, or it lies beyond the end.
        """
        cursor = self.first - 1 if after is None else after.offset
        missing = self._after(cursor)
        if after is not None and (missing is None or after.epoch != self.epoch):
            raise self._unrecoverable(after)
        publications = tuple(stored.publication for stored in (missing or ())[:limit])
        more = bool(publications) and publications[-1].offset < self.offset
        return History(epoch=self.epoch, offset=self.offset, publications=publications, more=more)

    def _after(self, after: int) -> Sequence[StoredPublication] | None:
        return self._entries[after - self.first + 1 :] if self.first - 1 <= after <= self.offset else None

    def _unrecoverable(self, after: Position) -> UnrecoverablePosition:
        if after.epoch != self.epoch:
            return UnrecoverablePosition(f"epoch {after.epoch[:40]!r} is not this channel's, which is {self.epoch!r}")
        return UnrecoverablePosition(f"offset {after.offset} is not within {self.first - 1}..{self.offset}")

    def _excess(self, more: int) -> int:
        """Return how many of the oldest publications have to be dropped for one of ``more`` bytes."""
        held, size, excess = len(self._entries), self.size + more, 0
        while excess < held and (held - excess >= self._bounds.entries or size > self._bounds.size):
            size -= self._entries[excess].size
            excess += 1
        return excess

    def _drop(self, count: int) -> None:
        if count:
            self.size -= sum(stored.size for stored in self._entries[:count])
            del self._entries[:count]
