"""A channel's two topics: its publications, and its presence events."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from actors.channels.log import ChannelLog, FrameEncoder
from actors.delivery.topic import LOST, SNAPSHOT, Page, Topic
from protocol.channels import Member
from protocol.websocket.channels import Action, presence_json, presence_state_json

PRESENCE_EVENTS: Final = 256  # held for readers that lag; a reader that misses more gets the list of members

Shared = dict[tuple[int, bool], Page]


class PublicationTopic(Topic):
    """The publications of a channel. They can't be merged: a reader that misses dropped ones is lost.

    Args:
        name: see ``Topic``.
        log: the publications.
    """

    __slots__ = ("_delivered", "_log")

    def __init__(self, name: tuple[str, ...], log: ChannelLog) -> None:
        super().__init__(name)
        self._log = log
        self._delivered = log.offset

    @property
    def end(self) -> int:
        """The last publication's offset."""
        return self._log.offset

    def reader_added(self, cursor: int) -> None:
        """Note that a reader begins at ``cursor``."""
        self._delivered = min(self._delivered, cursor)

    def undelivered(self, offset: int) -> bool:
        """Whether there may be a reader to which the publication at ``offset`` has not been delivered yet."""
        return bool(self.readers) and offset > self._delivered

    def mark_delivered(self) -> None:
        """Note that everything has been delivered; a reader that misses some of it is slow."""
        self._delivered = self._log.offset

    def page(self, cursor: int, *, merged: bool, shared: Shared) -> Page:  # noqa: ARG002 - publications are not merged
        """Return all publications after ``cursor``; the bounds of the history bound the page."""
        page = shared.get((cursor, False))
        if page is None:
            frames = self._log.frames(cursor)
            self.mark_delivered()
            page = Page(b"", LOST, final=True) if frames is None else Page(frames, self._log.offset, final=False)
            shared[cursor, False] = page
        return page

    def close(self) -> None:
        """Note that there is nobody to deliver to."""
        self.mark_delivered()


class PresenceTopic(Topic):
    """Members that join, change and leave. A reader that misses too many events gets the list of members instead.

    Args:
        name: see ``Topic``.
        channel: the channel's name.
        encode: turns a frame's JSON into wire bytes.
        members: returns the members now.
    """

    __slots__ = ("_channel", "_encode", "_end", "_members", "_recent")

    def __init__(
        self, name: tuple[str, ...], channel: str, encode: FrameEncoder, members: Callable[[], Iterable[Member]]
    ) -> None:
        super().__init__(name)
        self._channel = channel
        self._encode = encode
        self._members = members
        self._end = 0
        self._recent: deque[bytes] = deque(maxlen=PRESENCE_EVENTS)

    @property
    def end(self) -> int:
        """The number of events so far."""
        return self._end

    def append(self, action: Action, member: Member) -> bool:
        """Append an event if there are readers; return whether there are."""
        if self.readers:
            self._recent.append(self._encode(presence_json(self._channel, action, member)))
            self._end += 1
        return bool(self.readers)

    def page(self, cursor: int, *, merged: bool, shared: Shared) -> Page:  # noqa: ARG002 - presence events are not merged
        """Return the events after ``cursor``, or the list of members."""
        missed = self._end - cursor
        if missed > len(self._recent):
            cursor = SNAPSHOT
        page = shared.get((cursor, False))
        if page is None:
            if cursor == SNAPSHOT:
                frames = self._encode(presence_state_json(self._channel, self._members()))
            else:
                frames = b"".join(list(self._recent)[-missed:])
            page = shared[cursor, False] = Page(frames, self._end, final=False)
        return page

    def close(self) -> None:
        """Drop the events."""
        self._recent.clear()
