"""One append-only log, many readers.

An :class:`EventLog` has a single writer, its run. Readers hold an offset, never a copy. The log holds all of its
entries: the newest ones as objects with their wire frames, up to a budget of bytes, and the older ones packed. A packed
entry is built anew when it is read. So the log's memory is bounded by the budget and by the answer's own size, which
the gateway bounds, and not by its readers.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

from actors.log.packed import PackedEntries
from protocol import ids
from protocol.errors import InternalError, UnrecoverablePosition
from protocol.events import AttemptFailed, Entry, Event, Snapshot
from protocol.packed import PackedEvents, pack, unpacked
from protocol.parts import PartsBuilder, Piece

RING_BYTES: Final = 256 * 1024  # of unpacked entries, per log
ENTRY_BYTES: Final = 240  # an unpacked entry, its event and its first wire frame, without the text
PIECE_BYTES: Final = 16  # a packed entry, without the text
FEW: Final = (
    64  # entries: those of a log that has no more are not packed at its end, which would cost more than it saves
)
TRIM_TO: Final = 0.75  # of the budget: entries beyond it are packed down to this share, so that packing is rare

Wake = Callable[[], None]


class EventLog:
    """The events of one answer, in order, with contiguous offsets from 1.

    ::

        open --append of a terminal event--> ended

    Args:
        epoch: identifies this numbering; a new one by default.
        max_bytes: the budget of unpacked entries. The newest entry is never packed, however large.
        pages: the first entries, packed already.

    Attributes:
        offset: of the last entry; 0 while there is none.
        ended: whether the last entry is terminal.
        changed: Unix time of the last change, in seconds; 0 before the first.
    """

    __slots__ = (
        "_bytes",
        "_cached",
        "_entries",
        "_epoch",
        "_listeners",
        "_max_bytes",
        "_merged",
        "_packed",
        "changed",
        "ended",
        "offset",
    )

    def __init__(self, *, epoch: str = "", max_bytes: int = RING_BYTES, pages: Sequence[PackedEvents] = ()) -> None:
        if max_bytes < 1:
            message = f"max_bytes must be positive, got {max_bytes}"
            raise ValueError(message)
        self._epoch = epoch
        self._packed = PackedEntries(pages) if pages else None
        self.offset = self._packed.offset if self._packed else 0
        self.ended = False
        self.changed = 0.0
        self._max_bytes = max_bytes
        self._entries: list[Entry] = []  # after the packed ones
        self._bytes = 0  # of these
        self._cached: tuple[PackedEvents, ...] = ()  # all of these but a terminal one, as the cache has them
        self._merged: _Merged | None = None
        self._listeners: dict[Wake, None] = {}

    @property
    def epoch(self) -> str:
        """The identifier of this numbering; it is generated at the first access."""
        if not self._epoch:
            self._epoch = ids.epoch()
        return self._epoch

    @property
    def terminal(self) -> Entry | None:
        """The last entry, where the log has ended."""
        return self._entries[-1] if self.ended else None

    @property
    def size(self) -> int:
        """Bytes held, estimated; by an ended log, once its readers have left."""
        held = self._bytes if self._packed is None else self._bytes + self._packed.size
        if not self.ended:
            return held + (0 if self._merged is None else self._merged.size)
        count = len(self._entries)
        return held - (ENTRY_BYTES - PIECE_BYTES) * count if count > FEW else held

    def append(self, event: Event, *more: Event) -> None:
        """Append events and wake the readers once; see :meth:`extend`."""
        if more or self.ended:
            self.extend((event, *more))
            return
        self.offset += 1
        self._entries.append(Entry(self.offset, event))
        self._bytes += event.size() + ENTRY_BYTES
        self.ended = event.terminal
        self._notify()

    def extend(self, events: Iterable[Event]) -> None:
        """Append a batch, all or nothing, and wake the readers once.

        Raises:
            InternalError: an event would follow a terminal one.
        """
        offset, ended, size = self.offset, self.ended, 0
        entries: list[Entry] = []
        for event in events:
            if ended:
                message = f"the log has ended, {type(event).__name__} came after it"
                raise InternalError(message)
            offset += 1
            entries.append(Entry(offset, event))
            size += event.size()
            ended = event.terminal
        self._entries += entries
        self._bytes += size + ENTRY_BYTES * len(entries)
        self.offset, self.ended = offset, ended
        self._notify()

    def since(self, after: int) -> Sequence[Entry]:
        """Return entries above ``after``, from the next one on: all of them, or one page where many are packed.

        Raises:
            UnrecoverablePosition: ``after`` is negative, or beyond the end.
        """
        start = after - self.offset + len(self._entries)
        if start < 0 <= after and self._packed is not None:
            page = self._packed.since(after, keep=bool(self._listeners))
            return page + self._entries if page[-1].offset == self._packed.offset else page
        if start < 0 or after > self.offset:
            message = f"offset {after} is not within 0..{self.offset}"
            raise UnrecoverablePosition(message)
        return self._entries[start:]

    def snapshot(self, until: int | None = None) -> Snapshot:
        """Return all content up to the offset ``until``, merged; by default all content so far.

        An open log keeps what it has merged, and returns the same object until the next change.
        """
        if until is not None and until < self.offset:
            return self._advance(_Merged(), until).snapshot()
        merged = self._advance(self._merged or _Merged(), self.offset - self.ended)
        self._merged = merged if self._listeners or not self.ended else None
        return merged.snapshot()

    def listen(self, wake: Wake) -> None:
        """Call ``wake`` after every batch."""
        self._listeners[wake] = None

    def unlisten(self, wake: Wake) -> None:
        """Stop calling ``wake``; an unknown one is ignored. An ended log without listeners drops its wire frames."""
        self._listeners.pop(wake, None)
        if self.ended and not self._listeners:
            self._release()

    def events(self) -> Iterator[Event]:
        """Yield all events."""
        packed = () if self._packed is None else tuple(self._packed.pages)
        tail = [entry.event for entry in self._entries]
        return chain(chain.from_iterable(page.events() for page in packed), tail)

    def pages(self) -> tuple[PackedEvents, ...]:
        """Return all events but a terminal one, packed. The entries stay as they are: readers share their frames."""
        events = [entry.event for entry in (self._entries[:-1] if self.ended else self._entries)]
        if self._packed is None and len(events) <= FEW:
            return (unpacked(events, self._bytes - ENTRY_BYTES * len(self._entries)),)
        self._cached = tuple(pack(events))
        return self._cached if self._packed is None else (*self._packed.pages, *self._cached)

    def _advance(self, merged: "_Merged", until: int) -> "_Merged":
        """Merge the entries after the last merge and up to ``until``."""
        if self._packed is not None and merged.offset < self._packed.offset:
            for offset, event in self._packed.merged(merged.offset, until):
                merged.take(offset, event)
        start = merged.offset - self.offset + len(self._entries)
        for entry in self._entries[start : until - self.offset + len(self._entries)]:
            merged.take(entry.offset, entry.event)
        return merged

    def _notify(self) -> None:
        """Pack the oldest entries where the budget is exceeded, and wake the readers."""
        if self._bytes > self._max_bytes:
            self._pack_oldest()
        self.changed = time.time()
        if self._listeners:
            for wake in tuple(self._listeners):
                wake()
        elif self.ended:
            self._release()

    def _pack(self) -> PackedEntries:
        if self._packed is None:
            self._packed = PackedEntries()
        return self._packed

    def _pack_oldest(self) -> None:
        entries, keep, count = self._entries, int(self._max_bytes * TRIM_TO), 0
        while self._bytes > keep and count < len(entries) - 1:
            self._bytes -= entries[count].event.size() + ENTRY_BYTES
            count += 1
        if count:
            self._pack().append([entry.event for entry in entries[:count]])
            del entries[:count]

    def _release(self) -> None:
        """Drop what only readers need, and pack all entries but the last one unless they are few."""
        entries = self._entries
        if len(entries) > FEW:
            self._pack_ended()
        else:
            for entry in entries:
                entry.frames = None
        if self._packed is not None:
            self._packed.forget()
        self._cached, self._merged = (), None

    def _pack_ended(self) -> None:
        *others, last = self._entries
        if sum([page.count for page in self._cached]) == len(others):
            self._pack().extend(self._cached)
        else:
            self._pack().append([entry.event for entry in others])
        last.frames = None
        self._entries, self._bytes, self._cached = [last], last.event.size() + ENTRY_BYTES, ()


class _Merged:
    """All content so far. Texts are joined only for a snapshot, so merging an entry costs one list append."""

    __slots__ = ("_parts", "_snapshot", "offset", "size")

    def __init__(self) -> None:
        self.offset = 0
        self.size = 0
        self._parts = PartsBuilder()
        self._snapshot: Snapshot | None = None

    def take(self, offset: int, event: Event) -> None:
        """Merge the next event, after which everything up to ``offset`` is merged."""
        self._snapshot = None
        self.offset = offset
        if isinstance(event, Piece):
            self._parts.add(event)
            self.size += event.size()
        elif isinstance(event, AttemptFailed) and event.restart:
            self._parts, self.size = PartsBuilder(), 0

    def snapshot(self) -> Snapshot:
        if self._snapshot is None:
            self._snapshot = Snapshot(offset=self.offset, parts=self._parts.parts)
        return self._snapshot
