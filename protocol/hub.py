"""The conversation with the hub: who follows what, over which socket."""

from typing import Literal, Protocol

import msgspec

from protocol.events import EventStream, Position
from protocol.message import Message

Mode = Literal["replay", "snapshot", "live"]


class Socket(Protocol):
    """A client's connection as the hub sees it. Nothing here waits."""

    def write(self, frames: bytes) -> None:
        """Send ready-made wire frames: one write, however many frames. A closed socket ignores it.

        Raises:
            RuntimeError: the connection is lost, and that has not been told yet: so uvloop says it.
        """

    @property
    def buffered(self) -> int:
        """Bytes written but not yet taken by the client."""

    def close(self, code: int, reason: str) -> None:
        """Send the close frame and let go; never waits for the client. Calling it again does nothing."""


class Subscribe(Message[None], frozen=True, kw_only=True):
    """Let ``socket`` follow ``stream``: acknowledge, replay, then live; no gap and no duplicate.

    The acknowledgement (only with an ``ack_id``) is written before the replay. A second subscription of the socket to
    the same request replaces the first.

    Attributes:
        socket: whose it is.
        stream: what it follows.
        after: the exclusive position to go on from; None for the beginning.
        mode: ``replay`` each entry, one merged ``snapshot`` and then live, or only ``live``; None for a replay that
            turns into a snapshot (``recovered: false``) where the position can't be recovered.
        ack_id: the client's frame id; None for a client that sent none.

    Raises (as replies):
        UnrecoverablePosition: ``mode`` is ``replay`` and the position is of another epoch; or it lies beyond the end.
        Overloaded: ``connection_limit``: the socket has too many subscriptions.
    """

    socket: Socket
    stream: EventStream
    after: Position | None = None
    mode: Mode | None = None
    ack_id: int | str | None = None


class Unsubscribe(Message[bool], frozen=True, kw_only=True):
    """Stop following a request; says whether it was followed."""

    socket: Socket
    request_id: str


class SocketClosed(Message[None], frozen=True):
    """The socket is gone: drop all its subscriptions."""

    socket: Socket


class Goodbye(Message[int], frozen=True, kw_only=True):
    """Tell every socket that the server goes: a ``disconnect`` frame, then close 1000. Replies with their number."""

    reason: str = "shutdown"
    spread: float = 8.0


class HubStats(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub holds now.

    Attributes:
        sockets: those that follow something.
        subscriptions: all that they follow.
        requests: those that are followed.
        channels: those that are known.
    """

    sockets: int
    subscriptions: int
    requests: int
    channels: int = 0


class GetHubStats(Message[HubStats], frozen=True):
    """The hub's size."""
