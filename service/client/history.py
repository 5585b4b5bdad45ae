"""A channel's history, page by page."""

from typing import Any

import msgspec

from protocol.events import Position
from service.client.listening import Message


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a channel's history.

    Attributes:
        messages: in order.
        position: the channel's current position; None for an unknown channel.
        next: the ``after`` of the next page; None for the last page.
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
    """A page as the service sends it: offsets, and one position with the epoch of all of them."""

    publications: tuple[_Publication, ...]
    position: Position | None = None
    next: str | None = None

    def page(self) -> Page:
        """Return the page with a position for each message."""
        epoch = "" if self.position is None else self.position.epoch
        messages = tuple(
            Message(event=entry.event, data=entry.data, position=Position(epoch, entry.offset), at=entry.at)
            for entry in self.publications
        )
        return Page(messages=messages, position=self.position, next=Position.parse(self.next) if self.next else None)
