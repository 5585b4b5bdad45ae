"""Packed events: how a log holds its old entries, and how the cache holds a finished log.

Consecutive events of one class are held field by field. The texts of a field are joined, and a field with the same
value in all of them is held once. So a token's event takes one byte and its text instead of a few hundred bytes. Packed
events unpack to equal events, in the same order.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, groupby, repeat
from operator import attrgetter
from sys import getsizeof
from typing import Final

import msgspec

from protocol.events import Delta, Event, ReasoningDelta, RefusalDelta, ToolCallDelta, VendorBlock

PAGE_EVENTS: Final = 512  # at most: a reader unpacks a page at a time
PAGE_BYTES: Final = 64 * 1024  # packed, at most; one larger event is a page of its own
ONCE_CHARS: Final = 64  # a longer text is not held once for many events: a page of them would unpack to too much
SEPARATOR: Final = "\0"
MIN_RUN: Final = 4  # events of one class in a row: fewer take more room by fields than as they are

TEXT_FIELDS: Final[dict[type[Event], str]] = {
    Delta: "text",
    ReasoningDelta: "text",
    RefusalDelta: "text",
    ToolCallDelta: "arguments",
}
"""The classes whose pieces add up to one longer piece, and the field that grows: where their other texts are empty, and
their other fields are equal. Other classes are packed, too, but never merged."""

_EVENT_BYTES: Final = 160  # an event that is not packed, without its texts
_RUN_BYTES: Final = 320  # a run's own objects


class Texts(msgspec.Struct, frozen=True):
    """One field of consecutive events, joined.

    Attributes:
        joined: all values, one after the other; with ``SEPARATOR`` between them where there are no lengths.
        lengths: the number of characters of each value, where a value has the separator in it.
    """

    joined: str
    lengths: Sequence[int] = ()

    def values(self) -> list[str]:
        """Return the values."""
        if not self.lengths:
            return self.joined.split(SEPARATOR)
        ends = list(accumulate(self.lengths))
        return list(map(self.joined.__getitem__, map(slice, [0, *ends], ends)))

    def text(self) -> str:
        """Return the values as one text."""
        return self.joined if self.lengths else self.joined.replace(SEPARATOR, "")


Field = Texts | tuple[object, ...]  # a tuple has each event's value, or the one value of all


class EventRun(msgspec.Struct, frozen=True):
    """Consecutive events of one class.

    Attributes:
        kind: the class.
        count: the number of events; at least ``MIN_RUN``.
        fields: the fields in the order of the class.
    """

    kind: type[Event]
    count: int
    fields: tuple[Field, ...]

    def events(self) -> Iterable[Event]:
        """Return the events."""
        make: Callable[..., Event] = self.kind
        columns: list[Iterable[object]] = []
        for field in self.fields:
            if isinstance(field, Texts):
                columns.append(field.values())
            else:
                columns.append(field if len(field) == self.count else repeat(field[0], self.count))
        return map(make, *columns)

    def merged(self) -> Iterable[Event]:
        """Return as few events as have the same content: one, where they are pieces of one text and nothing else."""
        make: Callable[..., Event] = self.kind
        grows = TEXT_FIELDS.get(self.kind)
        values: dict[str, object] = {}
        for name, field in zip(self.kind.__struct_fields__, self.fields, strict=True):
            if name == grows:
                values[name] = field.text() if isinstance(field, Texts) else str(field[0]) * self.count
            elif isinstance(field, Texts) or len(field) > 1 or (isinstance(field[0], str | bool) and field[0]):
                return self.events()  # a signature ends a part, and a redacted piece is one
            else:
                values[name] = field[0]
        return (make(**values),) if grows else self.events()

    @property
    def size(self) -> int:
        """Bytes held, estimated."""
        size = _RUN_BYTES
        for field in self.fields:
            size += getsizeof(field.joined) + getsizeof(field.lengths) if isinstance(field, Texts) else 64 * len(field)
        return size


class PackedEvents(msgspec.Struct, frozen=True):
    """A page of packed events.

    Attributes:
        parts: runs, and the events between them.
        count: the number of events.
        size: bytes held, estimated.
    """

    parts: tuple[EventRun | Event, ...]
    count: int
    size: int

    def events(self) -> list[Event]:
        """Return the events."""
        events: list[Event] = []
        for part in self.parts:
            if isinstance(part, EventRun):
                events += part.events()
            else:
                events.append(part)
        return events

    def merged(self) -> Iterator[Event]:
        """Yield as few events as have the same content."""
        for part in self.parts:
            if isinstance(part, EventRun):
                yield from part.merged()
            else:
                yield part


def unpacked(events: Sequence[Event], text_bytes: int) -> PackedEvents:
    """Return a page that holds ``events`` as they are: for a few, packing takes more time than it is worth."""
    return PackedEvents(tuple(events), len(events), text_bytes + _EVENT_BYTES * len(events))


def pack(events: Sequence[Event]) -> list[PackedEvents]:
    """Return ``events`` as pages within ``PAGE_EVENTS`` and ``PAGE_BYTES``."""
    pages: list[PackedEvents] = []
    for start in range(0, len(events), PAGE_EVENTS):
        _pack_into(pages, events[start : start + PAGE_EVENTS])
    return pages


def _pack_into(pages: list[PackedEvents], events: Sequence[Event]) -> None:
    page = _page(events)
    if page.size <= PAGE_BYTES or page.count == 1:
        pages.append(page)
    else:
        middle = page.count // 2
        _pack_into(pages, events[:middle])
        _pack_into(pages, events[middle:])


def _page(events: Sequence[Event]) -> PackedEvents:
    parts: list[EventRun | Event] = []
    size = 0
    for _, group in groupby(events, type):
        run = list(group)
        if len(run) < MIN_RUN or isinstance(run[0], VendorBlock):  # raw JSON has no texts to join
            parts += run
            size += sum([event.size() + _EVENT_BYTES for event in run])
        else:
            kind = type(run[0])
            packed = EventRun(kind, len(run), tuple([_field(run, name) for name in kind.__struct_fields__]))
            parts.append(packed)
            size += packed.size
    return PackedEvents(tuple(parts), len(events), size)


def _field(events: Sequence[Event], name: str) -> Field:
    values = list(map(attrgetter(name), events))
    first = values[0]
    if first == values[-1] and values.count(first) == len(values) and not _long(first):
        return (first,)
    try:
        joined = SEPARATOR.join(values)
    except TypeError:
        return tuple(values)
    if joined.count(SEPARATOR) == len(values) - 1:
        return Texts(joined)
    return Texts("".join(values), array("I", map(len, values)))


def _long(value: object) -> bool:
    return isinstance(value, str) and len(value) > ONCE_CHARS
