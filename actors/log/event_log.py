"""One append-only log, many readers.

An :class:`EventLog` has a single writer, its run. Readers hold an offset, never a copy. The log keeps a byte-bounded
ring of entries. It merges all content into a snapshot as soon as the ring drops an entry, or a reader asks for one: a
reader whose entries are dropped gets the snapshot and then the tail. Memory is bounded by the ring and by the answer's
own size, which the gateway bounds.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from protocol import ids
from protocol.answer import ReasoningBuilder
from protocol.errors import InternalError, UnrecoverablePosition
from protocol.events import AttemptFailed, Delta, Entry, Event, ReasoningDelta, Snapshot, ToolCallDelta
from protocol.llm import ToolCall

RING_BYTES: Final = 256 * 1024  # of entries held one by one, per log
ENTRY_BYTES: Final = 240  # an entry, its event and its first wire frame, without the text
TRIM_TO: Final = 0.75  # of the bound: a full ring is trimmed to it, so that trimming is rare

Wake = Callable[[], None]


class EventLog:
    """The events of one answer, in order, with contiguous offsets from 1.

    ::

        open --append of a terminal event--> ended

    Args:
        epoch: identifies this numbering; a new one by default.
        max_bytes: the ring's bound. The newest entry is always held, however large.

    Attributes:
        offset: of the last entry; 0 while there is none.
        ended: whether the last entry is terminal.
        changed: Unix time of the last change, in seconds; 0 before the first.
    """

    __slots__ = ("_bytes", "_entries", "_epoch", "_listeners", "_max_bytes", "_merged", "changed", "ended", "offset")

    def __init__(self, *, epoch: str = "", max_bytes: int = RING_BYTES) -> None:
        if max_bytes < 1:
            message = f"max_bytes must be positive, got {max_bytes}"
            raise ValueError(message)
        self._epoch = epoch
        self.offset = 0
        self.ended = False
        self.changed = 0.0
        self._max_bytes = max_bytes
        self._entries: list[Entry] = []
        self._bytes = 0
        self._merged: _Merged | None = None
        self._listeners: dict[Wake, None] = {}

    @property
    def epoch(self) -> str:
        """The identifier of this numbering; it is generated at the first access."""
        if not self._epoch:
            self._epoch = ids.epoch()
        return self._epoch

    @property
    def first(self) -> int:
        """The lowest offset that the ring holds; ``offset + 1`` where it is empty."""
        return self.offset - len(self._entries) + 1

    @property
    def terminal(self) -> Entry | None:
        """The last entry, where the log has ended."""
        return self._entries[-1] if self.ended else None

    @property
    def size(self) -> int:
        """Bytes held, estimated: the ring and the merged content, which is counted before it is merged, too."""
        if self._merged is not None:
            return self._bytes + self._merge().size
        content = self._bytes - ENTRY_BYTES * len(self._entries)
        return self._bytes + content - (self._entries[-1].event.size() if self.ended else 0)

    def append(self, *events: Event) -> None:
        """Append ``events`` and wake the readers once; see :meth:`extend`."""
        if len(events) != 1 or self.ended:
            self.extend(events)
            return
        (event,) = events
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
        """Return the entries above ``after``. Raises ``UnrecoverablePosition`` where the ring does not hold all."""
        start = after - self.offset + len(self._entries)
        if start < 0 or after > self.offset:
            message = f"offset {after} is not within {self.first - 1}..{self.offset}"
            raise UnrecoverablePosition(message)
        return self._entries[start:]

    def snapshot(self) -> Snapshot:
        """Return all content so far, merged; the same object until the next change."""
        return self._merge().snapshot()

    def listen(self, wake: Wake) -> None:
        """Call ``wake`` after every batch."""
        self._listeners[wake] = None

    def unlisten(self, wake: Wake) -> None:
        """Stop calling ``wake``; an unknown one is ignored. An ended log without listeners drops its wire frames."""
        self._listeners.pop(wake, None)
        if self.ended and not self._listeners:
            for entry in self._entries:
                entry.frames = None

    def events(self) -> tuple[Event, ...] | None:
        """Return all events, or None where the ring has dropped some."""
        return tuple([entry.event for entry in self._entries]) if self.first == 1 else None

    def _merge(self) -> "_Merged":
        """Merge the entries since the last merge. The ring drops only entries that are merged."""
        if self._merged is None:
            self._merged = _Merged()
        merged = self._merged
        for entry in self.since(merged.offset):
            if not entry.terminal:
                merged.take(entry)
        return merged

    def _notify(self) -> None:
        """Bound the ring, and wake the readers."""
        if self._bytes > self._max_bytes:
            self._trim()
        self.changed = time.time()
        if self._listeners:
            for wake in tuple(self._listeners):
                wake()

    def _trim(self) -> None:
        self._merge()
        entries, keep, dropped = self._entries, int(self._max_bytes * TRIM_TO), 0
        while self._bytes > keep and dropped < len(entries) - 1:
            self._bytes -= entries[dropped].event.size() + ENTRY_BYTES
            dropped += 1
        del entries[:dropped]


class _Merged:
    """All content so far. Texts are joined only for a snapshot, so merging an entry costs one list append."""

    __slots__ = ("_parts", "_snapshot", "_thoughts", "_tools", "offset", "size")

    def __init__(self) -> None:
        self.offset = 0
        self.size = 0
        self._parts: list[str] = []
        self._tools: dict[int, list[str]] = {}  # index: [id, name, *arguments]
        self._thoughts: ReasoningBuilder | None = None
        self._snapshot: Snapshot | None = None

    def take(self, entry: Entry) -> None:
        """Merge the next entry."""
        event = entry.event
        self._snapshot = None
        self.offset = entry.offset
        if isinstance(event, AttemptFailed):
            if event.restart:
                self._parts, self._tools, self._thoughts, self.size = [], {}, None, 0
            return
        if isinstance(event, Delta):
            self._parts.append(event.text)
        elif isinstance(event, ToolCallDelta):
            tool = self._tools.setdefault(event.index, [event.id, event.name])
            tool.append(event.arguments)
        elif isinstance(event, ReasoningDelta):
            if self._thoughts is None:
                self._thoughts = ReasoningBuilder()
            self._thoughts.add(event)
        else:
            return
        self.size += event.size()

    def snapshot(self) -> Snapshot:
        if self._snapshot is None:
            text = "".join(self._parts)
            self._parts = [text]
            tools = tuple(
                ToolCall(id=parts[0], name=parts[1], arguments="".join(parts[2:]))
                for _, parts in sorted(self._tools.items())
            )
            thoughts = () if self._thoughts is None else self._thoughts.parts
            self._snapshot = Snapshot(offset=self.offset, text=text, tool_calls=tools, thoughts=thoughts)
        return self._snapshot
