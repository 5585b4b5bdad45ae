"""Listening to a channel over the socket: every message once and in order, and told where some are missing."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from protocol import ids
from protocol.events import Position
from service.client.backoff import Backoff
from service.client.endpoint import Endpoint, LostError
from service.client.frames import Acknowledged, Coming, Frame, Member, decode_coming, failure_of
from service.client.subscription import SUBSCRIBE, Subscription

_PRESENCE: Final = 2  # the id of the frame that asks who is there
_decode: Final = msgspec.json.Decoder().decode


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody has published.

    Attributes:
        event: what kind of news it is.
        data: the news: JSON.
        position: where it is in the channel: ``listen(…, after=position)`` goes on from here.
        at: when it came, in Unix seconds; None for one that was heard, as only the history says it.
    """

    event: str
    data: Any
    position: Position
    at: float | None = None

    @property
    def offset(self) -> int:
        """The place in the channel, counted from 1 within the position's epoch."""
        return self.position.offset


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """Who is in the channel.

    Attributes:
        action: ``join``, ``update`` or ``leave``, of one member; or ``state``, which says of all who is there now.
        member: whom it is about; None for a ``state``.
        members: with a ``state``: everybody, in the order in which they came.
    """

    action: str
    member: Member | None = None
    members: tuple[Member, ...] = ()


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Messages may have been missed that the channel no longer has: what follows begins after ``position``."""

    position: Position


Heard = Message | Presence | Gap


class Listening(Subscription[Heard]):
    """A channel, to iterate over; it has no end of its own.

    Args:
        endpoint: where the service is.
        channel: its name.
        after: the exclusive position to begin at; None for what is published from now on.
        presence: whether to be told who is there: a ``state`` first, and again after each lost connection; in between,
            whoever comes and goes.
        member: what the others see of us, who then are a member ourselves: JSON, up to 1 KiB; None for none.
        client: which of its user's clients this is; empty for a name made up for this listening.
        first: waits until the first connection.
        later: waits from then on.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        channel: str,
        *,
        after: Position | None,
        presence: bool,
        member: object,
        client: str,
        first: Backoff,
        later: Backoff,
    ) -> None:
        super().__init__(endpoint, after=after, first=first, later=later)
        self._channel = channel
        self._presence = presence
        self._member = member
        self._client = client or ids.ulid()

    def _frames(self) -> Sequence[dict[str, object]]:
        subscribe: dict[str, object] = {
            "type": "subscribe",
            "id": SUBSCRIBE,
            "channel": self._channel,
            "presence": self._presence,
            "client": self._client,
        }
        if self.position is not None:
            subscribe["after"] = self.position
        if self._member is not None:
            subscribe["member"] = self._member
        who = {"type": "presence", "id": _PRESENCE, "channel": self._channel}
        return (subscribe, who) if self._presence else (subscribe,)

    def _acknowledged(self, ack: Acknowledged) -> Gap | None:
        known = self.position
        if known is not None and ack.recovered and known.epoch == ack.epoch:
            return None
        torn, self._torn = self._torn or known is not None, False
        self.position = Position(ack.epoch, ack.offset)
        return Gap(position=self.position) if torn else None

    def _heard(self, frame: Frame) -> Heard | None:
        if frame.channel != self._channel:
            return None
        if frame.type == "error":
            raise failure_of(frame.error)
        if frame.type == "presence" or (frame.type == "ack" and frame.id == _PRESENCE):
            return _presence(decode_coming(frame.data))
        return self._message(frame) if frame.type == "update" else None

    def _message(self, frame: Frame) -> Message | None:
        position = self.position
        if position is None:
            raise LostError("a message came before the acknowledgement")
        if frame.offset <= position.offset:
            return None
        if frame.offset != position.offset + 1:
            raise LostError(f"after offset {position.offset} came {frame.offset}")
        data = _decode(frame.data)
        self.position = Position(position.epoch, frame.offset)
        return Message(event=frame.event, data=data, position=self.position)


def _presence(coming: Coming) -> Presence:
    return Presence(action=coming.action, member=coming.member, members=coming.members)
