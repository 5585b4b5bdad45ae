"""JSON of the channels' frames to the client. Frames other than acknowledgements are the same for all subscribers."""

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from protocol.channels import Member, Publication
from protocol.events import Position

Action = Literal["join", "update", "leave"]

_encode: Final = msgspec.json.Encoder().encode


def publication_json(channel: str, publication: Publication) -> bytes:
    """Return the JSON of a publication's ``update``."""
    return b'{"type":"update","channel":%b,"offset":%d,"event":%b,"data":%b}' % (
        _encode(channel),
        publication.offset,
        _encode(publication.event),
        bytes(publication.data),
    )


def presence_json(channel: str, action: Action, member: Member) -> bytes:
    """Return the JSON of a member that joined, changed or left."""
    return _encode({"type": "presence", "channel": channel, "data": {"action": action, "member": member}})


def presence_state_json(channel: str, members: Iterable[Member]) -> bytes:
    """Return the JSON of all members, which replaces the reader's list."""
    data = {"action": "state", "members": tuple(members)}
    return _encode({"type": "presence", "channel": channel, "data": data})


def channel_ack_json(
    frame_id: int | str,
    channel: str,
    position: Position | None = None,
    *,
    recovered: bool | None = None,
    subscribers: int | None = None,
) -> bytes:
    """Return the JSON of an acknowledgement.

    For ``subscribe`` it has the channel's position, and whether the position asked for was recovered; for ``publish``
    the publication's position and the number of subscribers; for other frames no position.
    """
    frame: dict[str, object] = {"type": "ack", "id": frame_id, "channel": channel}
    if position is not None:
        data: dict[str, object] = {"epoch": position.epoch, "offset": position.offset}
        if recovered is not None:
            data["recovered"] = recovered
        if subscribers is not None:
            data["subscribers"] = subscribers
        frame["data"] = data
    return _encode(frame)


def subscribed_json(channel: str, position: Position, *, recovered: bool, after: int) -> bytes:
    """Return the JSON of the acknowledgement of a subscription that the client has not asked for: it has no id.

    It has what that of ``subscribe`` has, and the offset after which the publications follow.
    """
    data = {"epoch": position.epoch, "offset": position.offset, "recovered": recovered, "after": after}
    return _encode({"type": "ack", "channel": channel, "data": data})


def members_json(frame_id: int | str, channel: str, members: Iterable[Member]) -> bytes:
    """Return the JSON of the answer to ``presence``: the members."""
    return _encode({"type": "ack", "id": frame_id, "channel": channel, "data": {"members": tuple(members)}})
