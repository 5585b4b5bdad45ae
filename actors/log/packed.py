"""The packed entries of a log: pages of events, found by offset."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

from protocol.events import Entry, Event
from protocol.packed import PAGE_BYTES, PAGE_EVENTS, PackedEvents, pack


class PackedEntries:
    """A log's first entries, from offset 1 on, as pages. Entries are built anew when they are read, a page at a time.

    Args:
        pages: the first ones.

    Attributes:
        pages: in order.
        offset: of the last entry; 0 while there is none.
        size: bytes held, estimated.
    """

    __slots__ = ("_ends", "_unpacked", "offset", "pages", "size")

    def __init__(self, pages: Iterable[PackedEvents] = ()) -> None:
        self.pages: list[PackedEvents] = []
        self.offset = 0
        self.size = 0
        self._ends: list[int] = []  # the offset of each page's last entry
        self._unpacked: list[Entry] = []  # the page that was read last
        self.extend(pages)

    def append(self, events: Sequence[Event]) -> None:
        """Pack ``events``, of which there is one at least, and append them.

        Small pages are joined with one of at most the same size before them, so that a log which is packed in small
        steps has full pages, too, and an event is packed again only a few times.
        """
        pages = pack(events)
        while self.pages and _joinable(self.pages[-1], pages[0]):
            last = self.pages.pop()
            self._ends.pop()
            self.offset -= last.count
            self.size -= last.size
            pages[:1] = pack([*last.events(), *pages[0].events()])
        self.extend(pages)

    def extend(self, pages: Iterable[PackedEvents]) -> None:
        """Append pages as they are."""
        for page in pages:
            self.pages.append(page)
            self.offset += page.count
            self.size += page.size
            self._ends.append(self.offset)

    def since(self, after: int, *, keep: bool) -> list[Entry]:
        """Return the entries above ``after`` of one page: of the page that holds the first one.

        Args:
            after: an offset below ``offset``, and not negative.
            keep: whether to keep the unpacked page, which readers at about the same place share, until ``forget``.
        """
        kept = self._unpacked
        if not kept or not kept[0].offset <= after + 1 <= kept[-1].offset:
            place = bisect_right(self._ends, after)
            page, last = self.pages[place], self._ends[place]
            kept = list(map(Entry, range(last - page.count + 1, last + 1), page.events()))
            if keep:
                self._unpacked = kept
        return kept[after + 1 - kept[0].offset :]

    def forget(self) -> None:
        """Drop the unpacked page."""
        self._unpacked = []

    def merged(self, after: int, until: int) -> Iterator[tuple[int, Event]]:
        """Yield the events above ``after`` and up to ``until`` with their offsets, merged within a page where possible.

        The offset of a merged event is that of the last entry in its page.
        """
        for place in range(bisect_right(self._ends, after), bisect_left(self._ends, until) + 1):
            if place == len(self.pages):
                return
            page, last = self.pages[place], self._ends[place]
            first = last - page.count + 1
            if after < first and last <= until:
                for event in page.merged():
                    yield last, event
            else:
                events = page.events()[max(after + 1 - first, 0) : until + 1 - first]
                yield from enumerate(events, max(after + 1, first))


def _joinable(last: PackedEvents, page: PackedEvents) -> bool:
    small = last.count + page.count <= PAGE_EVENTS and last.size + page.size <= PAGE_BYTES
    return small and last.count <= page.count
