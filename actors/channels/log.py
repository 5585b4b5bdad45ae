"""What was published in a channel, as long as it is held."""

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

ENTRY_BYTES: Final = 600  # a publication and its frame, without what they hold

FrameEncoder = Callable[[bytes], bytes]


class Kept(NamedTuple):
    """A publication that is held.

    Attributes:
        publication: what it says.
        frame: ready for any socket.
        expires: when it is held no more, as a time of the channels' clock.
    """

    publication: Publication
    frame: bytes
    expires: float

    @property
    def size(self) -> int:
        """What it takes, in bytes."""
        return len(self.frame) + len(memoryview(self.publication.data)) + ENTRY_BYTES


class ChannelLog:
    """Publications in order, under contiguous offsets from 1. Each is framed once, for all its readers.

    Args:
        channel: whose they are.
        encode: turns a frame's JSON into what goes over the wire.
        bounds: what is held.

    Attributes:
        epoch: names this numbering.
        offset: of the last publication; 0 while there is none.
        size: bytes held, estimated.
    """

    __slots__ = ("_bounds", "_channel", "_encode", "_kept", "epoch", "offset", "size")

    def __init__(self, channel: str, encode: FrameEncoder, bounds: HistoryLimits) -> None:
        self.epoch = ids.epoch()
        self.offset = 0
        self.size = 0
        self._channel = channel
        self._encode = encode
        self._bounds = bounds
        self._kept: list[Kept] = []

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def first(self) -> int:
        """The lowest offset that is held; ``offset + 1`` where none is."""
        return self.offset - len(self._kept) + 1

    @property
    def position(self) -> Position:
        """Where the log is now."""
        return Position(self.epoch, self.offset)

    def append(self, event: str, data: bytes, now: float, *, before_trim: Callable[[int], object]) -> None:
        """Append a publication. Where older ones go for it, ``before_trim`` is called first, with the last of them."""
        publication = Publication(offset=self.offset + 1, event=event, data=msgspec.Raw(data), at=time.time())
        frame = self._encode(publication_json(self._channel, publication))
        kept = Kept(publication, frame, now + self._bounds.ttl)
        excess = self._excess(kept.size)
        if excess:
            before_trim(self.first + excess - 1)
            self._drop(excess)
        self.offset += 1
        self._kept.append(kept)
        self.size += kept.size

    def expire(self, now: float, *, before_trim: Callable[[int], object]) -> bool:
        """Drop what has outlived its time, and say whether there was any; ``before_trim`` is as for ``append``."""
        gone = 0
        while gone < len(self._kept) and self._kept[gone].expires <= now:
            gone += 1
        if gone:
            before_trim(self.first + gone - 1)
            self._drop(gone)
        return gone > 0

    def clear(self) -> None:
        """Drop everything; offsets go on."""
        self._kept.clear()
        self.size = 0

    def frames(self, after: int) -> bytes | None:
        """Return the frames of what follows ``after``, joined; None where not all of it is held."""
        missing = self._from(after)
        return None if missing is None else b"".join([kept.frame for kept in missing])

    def begin(self, after: Position | None, mode: Mode | None) -> tuple[int, bool]:
        """Return the cursor at which a reader begins that has everything up to ``after``, and whether that is all.

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
            raise self._gone(after)
        return self.offset, False

    def history(self, after: Position | None, limit: int) -> History:
        """Return up to ``limit`` publications after a position, or from the first that is held.

        Raises:
            UnrecoverablePosition: not all that follows it is held, or it lies beyond the end.
        """
        cursor = self.first - 1 if after is None else after.offset
        missing = self._from(cursor)
        if after is not None and (missing is None or after.epoch != self.epoch):
            raise self._gone(after)
        publications = tuple(kept.publication for kept in (missing or ())[:limit])
        more = bool(publications) and publications[-1].offset < self.offset
        return History(epoch=self.epoch, offset=self.offset, publications=publications, more=more)

    def _from(self, after: int) -> Sequence[Kept] | None:
        return self._kept[after - self.first + 1 :] if self.first - 1 <= after <= self.offset else None

    def _gone(self, after: Position) -> UnrecoverablePosition:
        if after.epoch != self.epoch:
            return UnrecoverablePosition(f"epoch {after.epoch[:40]!r} is not this channel's, which is {self.epoch!r}")
        return UnrecoverablePosition(f"offset {after.offset} is not within {self.first - 1}..{self.offset}")

    def _excess(self, more: int) -> int:
        """Return how many of the oldest have to go for one of ``more`` bytes."""
        held, size, excess = len(self._kept), self.size + more, 0
        while excess < held and (held - excess >= self._bounds.entries or size > self._bounds.size):
            size -= self._kept[excess].size
            excess += 1
        return excess

    def _drop(self, count: int) -> None:
        if count:
            self.size -= sum(kept.size for kept in self._kept[:count])
            del self._kept[:count]
