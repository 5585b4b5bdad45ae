"""Listening to a channel over a socket: every message once and in order, with a ``Gap`` where some are missing."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from protocol import ids
from protocol.events import Position
from service.client.backoff import Backoff
from service.client.endpoint import ConnectionLost, Endpoint
from service.client.frames import AckData, Frame, Member, PresenceData, decode_presence, failure_of
from service.client.subscription import SUBSCRIBE, Subscription

_PRESENCE: Final = 2  # the id of the frame that asks for the members
_decode: Final = msgspec.json.Decoder().decode


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A published message.

    Attributes:
        event: the kind of event.
        data: its JSON.
        position: its position in the channel: ``listen(…, after=position)`` continues from here.
        at: when it was published, in Unix seconds; only in the history, else None.
    """

    event: str
    data: Any
    position: Position
    at: float | None = None

    @property
    def offset(self) -> int:
        """The offset in the channel, counted from 1 within the position's epoch."""
        return self.position.offset


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the channel's members, or all of them.

    Attributes:
        action: ``join``, ``update`` or ``leave`` of one member; or ``state``, with all current members.
        member: the member; None for a ``state``.
        members: with a ``state``: all members, in the order of their joins.
    """

    action: str
    member: Member | None = None
    members: tuple[Member, ...] = ()


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Messages may be missing that the channel does not keep any more; the next one is after ``position``."""

    position: Position


ChannelEvent = Message | Presence | Gap


class Listening(Subscription[ChannelEvent]):
    """An iterator over a channel, without an end.

    Args:
        endpoint: the service.
        channel: the channel's name.
        after: the exclusive position to begin at; None for what is published from now on.
        presence: whether to yield presence: a ``state`` first and after each reconnect, then each join and leave.
        member: this client's own info as a member, up to 1 KiB of JSON; None to join not at all.
        client: names this client among its user's; empty for a generated name.
        first: the backoff until the first connection.
        later: the backoff from then on.
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
        members = {"type": "presence", "id": _PRESENCE, "channel": self._channel}
        return (subscribe, members) if self._presence else (subscribe,)

    def _on_ack(self, ack: AckData) -> Gap | None:
        known = self.position
        if known is not None and ack.recovered and known.epoch == ack.epoch:
            return None
        gap, self._gap = self._gap or known is not None, False
        self.position = Position(ack.epoch, ack.offset)
        return Gap(position=self.position) if gap else None

    def _on_frame(self, frame: Frame) -> ChannelEvent | None:
        if frame.channel != self._channel:
            return None
        if frame.type == "error":
            raise failure_of(frame.error)
        if frame.type == "presence" or (frame.type == "ack" and frame.id == _PRESENCE):
            return _presence(decode_presence(frame.data))
        return self._message(frame) if frame.type == "update" else None

    def _message(self, frame: Frame) -> Message | None:
        position = self.position
        if position is None:
            raise ConnectionLost("a message came before the acknowledgement")
        if frame.offset <= position.offset:
            return None
        if frame.offset != position.offset + 1:
            raise ConnectionLost(f"after offset {position.offset} came {frame.offset}")
        data = _decode(frame.data)
        self.position = Position(position.epoch, frame.offset)
        return Message(event=frame.event, data=data, position=self.position)


def _presence(data: PresenceData) -> Presence:
    return Presence(action=data.action, member=data.member, members=data.members)
