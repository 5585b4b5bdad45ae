"""Looking back in a channel: its history, page by page."""

from typing import Any

import msgspec

from protocol.events import Position
from service.client.listening import Message


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a channel's history.

    Attributes:
        messages: in order.
        position: where the channel is now; None where nothing is known of it.
        next: where the next page begins; None where there is none.
    """

    messages: tuple[Message, ...]
    position: Position | None = None
    next: Position | None = None


class _Publication(msgspec.Struct, frozen=True):
    offset: int
    event: str
    data: Any
    at: float


class History(msgspec.Struct, frozen=True):
    """A page as the service sends it: offsets, and one position whose epoch is that of all of them."""

    publications: tuple[_Publication, ...]
    position: Position | None = None
    next: str | None = None

    def page(self) -> Page:
        """Return it with a position for each message."""
        epoch = "" if self.position is None else self.position.epoch
        messages = tuple(
            Message(event=entry.event, data=entry.data, position=Position(epoch, entry.offset), at=entry.at)
            for entry in self.publications
        )
        return Page(messages=messages, position=self.position, next=Position.parse(self.next) if self.next else None)
