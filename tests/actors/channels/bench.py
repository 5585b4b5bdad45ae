"""Channels on a loop and a clock that the test controls, and fake sockets to follow them."""

import json
from collections.abc import Callable
from typing import Any

import msgspec

from actors.channels.channels import Channels
from actors.channels.limits import ChannelLimits, HistoryLimits
from actors.delivery.fanout import Fanout
from protocol.channels import GetPresence, Join, Leave, Peer, Publish, Published, SubscribeChannel
from protocol.events import Position
from protocol.hub import Mode
from protocol.users import UnsubscribeUser

TENANT = "t1"
CHANNEL = "room:7"


class FakeSocket:
    """A socket whose client reads everything at once, or when it is told to."""

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
        """The offsets of the publications so far."""
        return [frame["offset"] for frame in self.frames if frame["type"] == "update"]

    @property
    def presence_events(self) -> list[tuple[str, str]]:
        """The presence events so far: action and client."""
        return [
            (frame["data"]["action"], frame["data"]["member"]["client"])
            for frame in self.frames
            if frame["type"] == "presence" and "member" in frame["data"]
        ]


class ChannelsBench:
    """The channels, synchronously."""

    def __init__(self, *, high_water: int = 1000, limits: ChannelLimits | None = None) -> None:
        self.soon: list[Callable[[], None]] = []
        self.sweeps_started = 0
        self.now = 1000.0
        self.fanout = Fanout(
            newline,
            high_water=high_water,
            max_subscriptions=100,
            clock=lambda: self.now,
            call_soon=self.soon.append,
            on_lag=lambda: None,
        )
        self.channels = Channels(
            self.fanout,
            newline,
            limits=limits or ChannelLimits(),
            clock=lambda: self.now,
            start_sweeping=self.start_sweeping,
        )

    def start_sweeping(self) -> None:
        self.sweeps_started += 1

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
        socket: FakeSocket,
        after: Position | None = None,
        *,
        mode: Mode | None = None,
        presence: bool = False,
        ack_id: int | None = None,
        peer: Peer | None = None,
        channel: str = CHANNEL,
    ) -> None:
        """Subscribe ``socket`` to the channel."""
        message = SubscribeChannel(
            socket=socket,
            tenant=TENANT,
            channel=channel,
            peer=peer or Peer(),
            after=after,
            mode=mode,
            presence=presence,
            ack_id=ack_id,
        )
        self.channels.subscribe(message)

    def publish(self, data: object = None, *, event: str = "said", key: str = "", channel: str = CHANNEL) -> Published:
        """Publish in the channel."""
        return self.channels.publish(publication(data, event=event, key=key, channel=channel))

    def join(self, socket: FakeSocket | None, client: str, *, user: str = "ada", info: object = None) -> None:
        """Join the channel."""
        raw = msgspec.Raw(json.dumps(info).encode())
        self.channels.join(Join(socket=socket, tenant=TENANT, channel=CHANNEL, peer=Peer(user, client), info=raw))

    def leave(self, socket: FakeSocket | None, client: str, *, user: str = "ada") -> bool:
        """Leave the channel."""
        return self.channels.leave(Leave(socket=socket, tenant=TENANT, channel=CHANNEL, peer=Peer(user, client)))

    def disconnect(self, socket: FakeSocket) -> None:
        """Close a connection."""
        socket.closing = True
        self.fanout.remove(socket)
        self.channels.closed(socket)

    @property
    def present(self) -> list[str]:
        """The clients in the channel."""
        return [member.client for member in self.channels.members(GetPresence(tenant=TENANT, channel=CHANNEL))]

    def unsubscribe_user(self, user: str) -> int:
        """Unsubscribe a user."""
        return self.channels.unsubscribe_user(UnsubscribeUser(tenant=TENANT, user=user, channel=CHANNEL))


def newline(payload: bytes) -> bytes:
    """Frame by a newline."""
    return payload + b"\n"


def publication(data: object = None, *, event: str = "said", key: str = "", channel: str = CHANNEL) -> Publish:
    """Return a publication."""
    return Publish(tenant=TENANT, channel=channel, event=event, data=msgspec.Raw(json.dumps(data).encode()), key=key)


def limits_of(entries: int = 1000, size: int = 256 * 1024, ttl: float = 300.0) -> ChannelLimits:
    """Return limits with these bounds of a history."""
    return ChannelLimits(history=HistoryLimits(entries, size, ttl))
