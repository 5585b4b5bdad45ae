"""The JSON of what a socket is told of channels; each frame but the answers is the same for all who get it."""

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from protocol.channels import Member, Publication
from protocol.events import Position

Action = Literal["join", "update", "leave"]

_encode: Final = msgspec.json.Encoder().encode


def publication_json(channel: str, publication: Publication) -> bytes:
    """Return the JSON of the ``update`` that brings a publication."""
    return b'{"type":"update","channel":%b,"offset":%d,"event":%b,"data":%b}' % (
        _encode(channel),
        publication.offset,
        _encode(publication.event),
        bytes(publication.data),
    )


def presence_json(channel: str, action: Action, member: Member) -> bytes:
    """Return the JSON that tells who joined, changed or left."""
    return _encode({"type": "presence", "channel": channel, "data": {"action": action, "member": member}})


def presence_state_json(channel: str, members: Iterable[Member]) -> bytes:
    """Return the JSON that says who is there now, which replaces all that its reader knew of it."""
    data = {"action": "state", "members": tuple(members)}
    return _encode({"type": "presence", "channel": channel, "data": data})


def channel_ack_json(
    frame_id: int | str,
    channel: str,
    position: Position | None = None,
    *,
    recovered: bool | None = None,
) -> bytes:
    """Return the JSON of an acknowledgement.

    That to ``subscribe`` has the channel's position and whether the one asked for was recovered, that to ``publish``
    has the publication's position. Without a position it says only that the frame was obeyed.
    """
    frame: dict[str, object] = {"type": "ack", "id": frame_id, "channel": channel}
    if position is not None:
        data: dict[str, object] = {"epoch": position.epoch, "offset": position.offset}
        if recovered is not None:
            data["recovered"] = recovered
        frame["data"] = data
    return _encode(frame)


def members_json(frame_id: int | str, channel: str, members: Iterable[Member]) -> bytes:
    """Return the JSON of the answer to ``presence``: who is there."""
    return _encode({"type": "ack", "id": frame_id, "channel": channel, "data": {"members": tuple(members)}})
