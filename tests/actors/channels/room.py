"""Channels with their loop and their clock in the test's hand, and sockets to follow them with."""

import json
from collections.abc import Callable
from typing import Any

import msgspec

from actors.channels.channels import Channels
from actors.channels.limits import ChannelLimits, HistoryLimits
from actors.delivery.fanout import Fanout
from protocol.channels import GetPresence, Join, Leave, Peer, Publish, Published, SubscribeChannel, UnsubscribeUser
from protocol.events import Position
from protocol.hub import Mode

TENANT = "t1"
ROOM = "room:7"


class Link:
    """A socket whose client takes what is written at once, or when it is told to."""

    def __init__(self, *, reading: bool = True) -> None:
        self.reading = reading
        self.held = b""
        self.writes: list[bytes] = []
        self.frames: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None
        self.closing = False

    def write(self, frames: bytes) -> None:
        assert self.closed is None
        self.writes.append(frames)
        self.held += frames
        if self.reading:
            self.take()

    @property
    def buffered(self) -> int:
        return len(self.held)

    def close(self, code: int, reason: str) -> None:
        self.closed = self.closed or (code, reason)
        self.closing = True

    def take(self) -> None:
        """Read everything."""
        lines, self.held = self.held.splitlines(), b""
        self.frames += [json.loads(line) for line in lines]

    @property
    def offsets(self) -> list[int]:
        """The offsets of the publications that have come."""
        return [frame["offset"] for frame in self.frames if frame["type"] == "update"]

    @property
    def comings(self) -> list[tuple[str, str]]:
        """What has been told of members."""
        return [
            (frame["data"]["action"], frame["data"]["member"]["client"])
            for frame in self.frames
            if frame["type"] == "presence" and "member" in frame["data"]
        ]


class House:
    """The channels, synchronously."""

    def __init__(self, *, high_water: int = 1000, limits: ChannelLimits | None = None) -> None:
        self.soon: list[Callable[[], None]] = []
        self.watches = 0
        self.now = 1000.0
        self.fanout = Fanout(
            newline,
            high_water=high_water,
            max_subscriptions=100,
            clock=lambda: self.now,
            soon=self.soon.append,
            watch=lambda: None,
        )
        self.channels = Channels(
            self.fanout, newline, limits=limits or ChannelLimits(), clock=lambda: self.now, watch=self.watch
        )

    def watch(self) -> None:
        self.watches += 1

    def tick(self) -> None:
        """Run what is due in this tick."""
        due, self.soon[:] = list(self.soon), []
        assert len(due) <= 1
        for call in due:
            call()

    def settle(self) -> None:
        """Run ticks until nothing is due."""
        while self.soon:
            self.tick()

    def subscribe(
        self,
        link: Link,
        after: Position | None = None,
        *,
        mode: Mode | None = None,
        presence: bool = False,
        ack_id: int | None = None,
        peer: Peer | None = None,
        channel: str = ROOM,
    ) -> None:
        """Let ``link`` follow the room."""
        message = SubscribeChannel(
            socket=link,
            tenant=TENANT,
            channel=channel,
            peer=peer or Peer(),
            after=after,
            mode=mode,
            presence=presence,
            ack_id=ack_id,
        )
        self.channels.subscribe(message)

    def publish(self, data: object = None, *, event: str = "said", key: str = "", channel: str = ROOM) -> Published:
        """Publish in the room."""
        return self.channels.publish(publication(data, event=event, key=key, channel=channel))

    def join(self, link: Link | None, client: str, *, user: str = "ada", info: object = None) -> None:
        """Join the room."""
        raw = msgspec.Raw(json.dumps(info).encode())
        self.channels.join(Join(socket=link, tenant=TENANT, channel=ROOM, peer=Peer(user, client), info=raw))

    def leave(self, link: Link | None, client: str, *, user: str = "ada") -> bool:
        """Leave the room."""
        return self.channels.leave(Leave(socket=link, tenant=TENANT, channel=ROOM, peer=Peer(user, client)))

    def hang_up(self, link: Link) -> None:
        """Let a connection end."""
        link.closing = True
        self.fanout.leave(link)
        self.channels.closed(link)

    @property
    def present(self) -> list[str]:
        """The clients in the room."""
        return [member.client for member in self.channels.members(GetPresence(tenant=TENANT, channel=ROOM))]

    def expel(self, user: str) -> int:
        """Take a user out of the room."""
        return self.channels.unsubscribe_user(UnsubscribeUser(tenant=TENANT, user=user, channel=ROOM))


def newline(payload: bytes) -> bytes:
    """Frame by a newline."""
    return payload + b"\n"


def publication(data: object = None, *, event: str = "said", key: str = "", channel: str = ROOM) -> Publish:
    """Return what to publish."""
    return Publish(tenant=TENANT, channel=channel, event=event, data=msgspec.Raw(json.dumps(data).encode()), key=key)


def holding(entries: int = 1000, size: int = 256 * 1024, ttl: float = 300.0) -> ChannelLimits:
    """Return limits for one channel's history."""
    return ChannelLimits(history=HistoryLimits(entries, size, ttl))
