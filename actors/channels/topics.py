"""A channel as the hub delivers it: its publications, and who comes and goes."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from actors.channels.log import ChannelLog, FrameEncoder
from actors.delivery.topic import LOST, SNAPSHOT, Page, Topic
from protocol.channels import Member
from protocol.websocket.channels import Action, presence_json, presence_state_json

PRESENCE_EVENTS: Final = 256  # kept for readers that lag; those that miss more are told who is there

Shared = dict[tuple[int, bool], Page]


class PublicationTopic(Topic):
    """The publications. They can't be merged, so a reader for which some are gone is lost."""

    __slots__ = ("_log", "_settled")

    def __init__(self, name: tuple[str, ...], log: ChannelLog) -> None:
        super().__init__(name)
        self._log = log
        self._settled = log.offset

    @property
    def end(self) -> int:
        """The last offset."""
        return self._log.offset

    def starts(self, cursor: int) -> None:
        """A reader is about to begin at ``cursor``."""
        self._settled = min(self._settled, cursor)

    def owes(self, offset: int) -> bool:
        """Whether some reader has not had its turn to get the publication at ``offset``."""
        return bool(self.readers) and offset > self._settled

    def settle(self) -> None:
        """Every reader has had its turn: one that has something to come is slow."""
        self._settled = self._log.offset

    def page(self, cursor: int, *, merged: bool, shared: Shared) -> Page:  # noqa: ARG002 - there is no merging
        """Return everything after ``cursor``: what is held is bounded."""
        page = shared.get((cursor, False))
        if page is None:
            frames = self._log.frames(cursor)
            self.settle()
            page = Page(b"", LOST, final=True) if frames is None else Page(frames, self._log.offset, final=False)
            shared[cursor, False] = page
        return page

    def close(self) -> None:
        """Nobody is owed anything."""
        self.settle()


class PresenceTopic(Topic):
    """Who comes and goes. A reader that has missed too much is told who is there instead.

    Args:
        name: see ``Topic``.
        channel: whose members they are.
        encode: turns a frame's JSON into what goes over the wire.
        members: gives who is there now.
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
        """How many events there have been."""
        return self._end

    def tell(self, action: Action, member: Member) -> bool:
        """Add an event, and say whether anybody reads it."""
        if self.readers:
            self._recent.append(self._encode(presence_json(self._channel, action, member)))
            self._end += 1
        return bool(self.readers)

    def page(self, cursor: int, *, merged: bool, shared: Shared) -> Page:  # noqa: ARG002 - the events are few
        """Return what has happened since ``cursor``, or who is there."""
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
        """Forget what nobody reads."""
        self._recent.clear()
