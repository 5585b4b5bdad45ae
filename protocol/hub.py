"""Messages of the subscription hub: subscribe a socket to a request's log, unsubscribe it, disconnect."""

from typing import Literal, Protocol

import msgspec

from protocol.events import EventStream, Position
from protocol.identity import ChannelRight, Principal
from protocol.message import Message

Mode = Literal["replay", "snapshot", "live"]


class Socket(Protocol):
    """A client's connection, for the hub. No method waits."""

    def write(self, frames: bytes) -> None:
        """Write encoded frames in one write. A closed socket ignores them.

        Raises:
            RuntimeError: the connection is lost, and the loss is not reported yet (uvloop only).
        """

    @property
    def buffered(self) -> int:
        """Bytes written and not yet sent to the client."""

    def close(self, code: int, reason: str) -> None:
        """Send the close frame and drop the connection, without waiting for the client. Idempotent."""


class Subscribe(Message[None], frozen=True, kw_only=True):
    """Subscribe ``socket`` to ``stream``: acknowledge, replay, then live, without a gap or a duplicate.

    The acknowledgement (only with an ``ack_id``) is written before the replay. A second subscription of the socket to
    the same request replaces the first.

    Attributes:
        socket: the subscriber.
        stream: the request's log.
        after: the exclusive position to start after; None for the beginning.
        mode: ``replay`` for each entry, ``snapshot`` for one merged frame, then live, or ``live`` for new entries only;
            None for a replay that becomes a snapshot (``recovered: false``) where the position can't be recovered.
        ack_id: the client's frame id; None where the client sent none.
        tenant: whose socket it is.

    Raises (as replies):
        UnrecoverablePosition: ``mode`` is ``replay`` and the position is of another epoch; or it is beyond the end.
        Overloaded: ``connection_limit``: the socket has too many subscriptions; ``overloaded``: its tenant has.
    """

    socket: Socket
    stream: EventStream
    after: Position | None = None
    mode: Mode | None = None
    ack_id: int | str | None = None
    tenant: str = ""


class Unsubscribe(Message[bool], frozen=True, kw_only=True):
    """Unsubscribe a socket from a request. Replies whether it was subscribed."""

    socket: Socket
    request_id: str


class SocketClosed(Message[None], frozen=True):
    """Report that a socket is closed: the hub drops its subscriptions."""

    socket: Socket


class LimitSocket(Message[int], frozen=True, kw_only=True):
    """End what a socket follows by rights that its caller has no more. Replies with the number of subscriptions.

    Each ends with a terminal ``error``: ``forbidden`` of a request, ``channel_denied`` of a channel. The socket stays
    open. Channels that the rights of before did not cover are an administrator's doing, and stay.

    Attributes:
        socket: the socket.
        before: the caller, with the rights that it had.
        after: the same caller, with the rights that it has.
    """

    socket: Socket
    before: Principal
    after: Principal

    def ends(self, right: ChannelRight, channel: str) -> bool:
        """Whether the caller has lost ``right`` in ``channel``."""
        had = "channels" in self.before.scopes and self.before.may(right, channel)
        return had and not ("channels" in self.after.scopes and self.after.may(right, channel))


class DisconnectAll(Message[int], frozen=True, kw_only=True):
    """Send every socket a ``disconnect`` frame and close 1000. Replies with the number of sockets.

    Attributes:
        reason: of the frame.
        spread: seconds over which the clients are asked to reconnect.
    """

    reason: str = "shutdown"
    spread: float = 8.0


class DisconnectIdle(Message[frozenset[Socket]], frozen=True, kw_only=True):
    """Disconnect each socket that follows no request, and each other one as soon as its last request has ended.

    Replies with the sockets that still follow a request.

    Attributes:
        reason: of the frame.
        spread: seconds over which the clients are asked to reconnect.
    """

    reason: str = "shutdown"
    spread: float = 8.0


class HubStats(msgspec.Struct, frozen=True, kw_only=True):
    """The hub's size.

    Attributes:
        sockets: sockets with a subscription.
        subscriptions: subscriptions of all sockets.
        requests: requests with a subscriber.
        channels: channels that exist.
    """

    sockets: int
    subscriptions: int
    requests: int
    channels: int = 0


class GetHubStats(Message[HubStats], frozen=True):
    """Get the hub's size."""
