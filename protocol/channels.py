"""Messages of channels: subscribe, publish, history and presence.

A channel is a name within a tenant. The first message about it creates it. It is deleted when it has no subscriber and
no member, and its history has expired; a channel that is created again has another epoch.
"""

from collections.abc import Iterable
from typing import Any, Final, Literal, Protocol

import msgspec

from protocol.errors import FieldError, InvalidRequest
from protocol.events import Position
from protocol.hub import Mode, Socket
from protocol.message import Message

MAX_NAME: Final = 128  # characters of a channel's, a user's or a client's name
MAX_EVENT: Final = 64  # characters
MAX_KEY: Final = 255  # characters
MAX_DATA_BYTES: Final = 32 * 1024  # of a publication's JSON
MAX_INFO_BYTES: Final = 1024  # of a member's info, as JSON
MAX_PAGE: Final = 1000  # publications of one page of history
MAX_WAIT: Final = 60.0  # seconds to wait for acknowledgements
MAX_DEPTH: Final = 64  # levels of nesting in JSON, far below any parser's recursion limit

NULL: Final = msgspec.Raw(b"null")


class Peer(msgspec.Struct, frozen=True):
    """A participant of a channel: one client of a user. A client may have several sockets.

    Attributes:
        user: the user within the tenant; empty for an anonymous user.
        client: the client's own name for itself, which it keeps when it reconnects.
    """

    user: str = ""
    client: str = ""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A member of a channel. ``info`` is any JSON."""

    user: str
    client: str
    info: msgspec.Raw


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """A publication in a channel's history.

    Attributes:
        offset: contiguous from 1 within the channel's epoch.
        event: the publication's type.
        data: any JSON.
        at: when it was published, in Unix seconds.
    """

    offset: int
    event: str
    data: msgspec.Raw
    at: float


class PresentSocket(Socket, Protocol):
    """A socket for presence: one that is closing does not renew its leases."""

    @property
    def closing(self) -> bool:
        """Whether the socket is closing."""


# ---------------------------------------------------------------------------------------------- sockets and users


class SocketOpened(Message[None], frozen=True, kw_only=True):
    """Report that a user has opened a socket. The user is online until ``SocketClosed``."""

    socket: Socket
    tenant: str
    user: str


class DisconnectUser(Message[int], frozen=True, kw_only=True):
    """Close every socket of a user with 4503: its clients do not reconnect. Replies with the number of sockets."""

    tenant: str
    user: str


class UserStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A user's status.

    Attributes:
        user: the user.
        status: ``online`` with a socket or a membership, and for a short time after the last of them.
        sockets: the number of open sockets.
        since: when the status began, in Unix seconds; None where it is unknown.
    """

    user: str
    status: Literal["online", "offline"]
    sockets: int
    since: float | None = None


class GetStatus(Message[UserStatus], frozen=True, kw_only=True):
    """Get a user's status."""

    tenant: str
    user: str


# --------------------------------------------------------------------------------------------------- subscriptions


class SubscribeChannel(Message[None], frozen=True, kw_only=True):
    """Subscribe ``socket`` to a channel: acknowledge, replay, then live, without a gap or a duplicate.

    The acknowledgement (only with an ``ack_id``) is written before the replay. A second subscription of the socket to
    the same channel replaces the first.

    Attributes:
        socket: the subscriber.
        tenant: the channel's tenant.
        channel: its name.
        peer: the subscriber's name; publishers get it with its acknowledgement.
        after: the exclusive position to start after; None for new publications only.
        mode: ``replay`` for each publication after the position, or for the whole history without one; ``live`` for new
            publications only; None for a replay that becomes live (``recovered: false``) where the position can't be
            recovered.
        presence: whether the socket gets the changes of presence.
        ack_id: the client's frame id; None where the client sent none.

    Raises (as replies):
        InvalidRequest: the name is not valid, or ``mode`` is ``snapshot``, which channels don't have.
        UnrecoverablePosition: ``mode`` is ``replay`` and the position is not in the history, or is beyond its end.
        Overloaded: ``connection_limit``: the socket has too many subscriptions; or there are too many channels.
    """

    socket: Socket
    tenant: str
    channel: str
    peer: Peer = Peer()
    after: Position | None = None
    mode: Mode | None = None
    presence: bool = False
    ack_id: int | str | None = None


class UnsubscribeChannel(Message[bool], frozen=True, kw_only=True):
    """Unsubscribe a socket from a channel; its membership stays. Replies whether it was subscribed."""

    socket: Socket
    tenant: str
    channel: str


class UnsubscribeUser(Message[int], frozen=True, kw_only=True):
    """Remove a user's sockets from a channel's subscribers and members. Replies with the number of sockets.

    Each socket gets a terminal ``error`` with the code ``unsubscribed`` and stays open.
    """

    tenant: str
    user: str
    channel: str


# ------------------------------------------------------------------------------------------------------- publishing


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """The result of ``Publish``.

    Attributes:
        position: the publication's position in the channel.
        replayed: whether the key had been used before: nothing was published, and this is the first one's position.
        acknowledged: the peers that acknowledged in time; empty where ``wait`` is 0.
    """

    position: Position
    replayed: bool = False
    acknowledged: tuple[Peer, ...] = ()


class Publish(Message[Published], frozen=True, kw_only=True):
    """Append a publication to a channel's history, and deliver it.

    Attributes:
        tenant: the channel's tenant.
        channel: its name.
        event: its type: 1 to 64 printable characters.
        data: any JSON, up to ``MAX_DATA_BYTES``.
        key: idempotency key: publishing again with the same key, event and data within some minutes does nothing.
        wait: seconds to wait for acknowledgements of the current subscribers; 0 for none. The ask's timeout has to be
            longer.

    Raises (as replies):
        InvalidRequest: ``invalid_request``, or ``publication_too_large``.
        IdempotencyKeyReused: the key was used for other content.
        Overloaded: too many channels, or too many publications wait for acknowledgements.
    """

    tenant: str
    channel: str
    event: str
    data: msgspec.Raw = NULL
    key: str = ""
    wait: float = 0.0

    traced = True


class AckChannel(Message[None], frozen=True, kw_only=True):
    """Acknowledge for a socket every publication of a channel up to ``offset``."""

    socket: Socket
    tenant: str
    channel: str
    offset: int


class History(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a channel's history.

    Attributes:
        epoch: the epoch of the offsets.
        offset: the offset of the channel's last publication; 0 where there is none.
        publications: in order.
        more: whether later publications follow.
    """

    epoch: str
    offset: int
    publications: tuple[Publication, ...]
    more: bool = False


class GetHistory(Message[History], frozen=True, kw_only=True):
    """Get the publications after a position, or from the start of the history.

    Raises (as replies):
        UnrecoverablePosition: the position is not in the history any more, or is beyond its end.
    """

    tenant: str
    channel: str
    after: Position | None = None
    limit: int = 100


# --------------------------------------------------------------------------------------------------------- presence


class Join(Message[None], frozen=True, kw_only=True):
    """Become a member of a channel, or change the member's info. The other members are notified.

    A membership has leases: one for each socket, renewed while the socket is open; without a socket, one that this
    message renews. The member leaves with its last lease. A socket that joins as another peer gives up the first one.

    Attributes:
        socket: the socket of the lease; None for a lease without a socket.
        tenant: the channel's tenant.
        channel: its name.
        peer: the member.
        info: shown to the other members: any JSON, up to ``MAX_INFO_BYTES``.

    Raises (as replies):
        InvalidRequest: a name is not valid, or the info is too large.
        Overloaded: too many members or channels.
    """

    socket: PresentSocket | None
    tenant: str
    channel: str
    peer: Peer
    info: msgspec.Raw = NULL


class Leave(Message[bool], frozen=True, kw_only=True):
    """Give up the lease of ``socket``, or the lease without a socket. Replies whether there was one."""

    socket: PresentSocket | None
    tenant: str
    channel: str
    peer: Peer


class GetPresence(Message[tuple[Member, ...]], frozen=True, kw_only=True):
    """Get the members of a channel, in the order in which they joined."""

    tenant: str
    channel: str


ChannelMessage = (
    SocketOpened
    | DisconnectUser
    | GetStatus
    | SubscribeChannel
    | UnsubscribeChannel
    | UnsubscribeUser
    | Publish
    | AckChannel
    | GetHistory
    | Join
    | Leave
    | GetPresence
)

# ------------------------------------------------------------------------------------------------------- validation


def check_name(name: str, path: str, most: int = MAX_NAME) -> None:
    """Check a name.

    Raises:
        InvalidRequest: the name is not 1 to ``most`` printable characters.
    """
    if not 0 < len(name) <= most or not name.isprintable():
        raise _refused(path, f"must be 1 to {most} printable characters")


def check_publication(message: Publish) -> None:
    """Check a publication.

    Raises:
        InvalidRequest: a name or the key is not valid, or ``publication_too_large``.
    """
    check_name(message.channel, "$.channel")
    check_name(message.event, "$.event", MAX_EVENT)
    if message.key:
        check_name(message.key, "$.key", MAX_KEY)
    if not 0 <= message.wait <= MAX_WAIT:
        raise _refused("$.wait", f"must be within 0..{MAX_WAIT:g} s, got {message.wait:g}")
    size = len(memoryview(message.data))
    if size > MAX_DATA_BYTES:
        detail = f"`data` is {size} bytes of JSON, and {MAX_DATA_BYTES} is the most"
        raise InvalidRequest(detail, code="publication_too_large", errors=(FieldError("$.data", detail),))
    _check_json(message.data, "$.data")


def check_member(message: Join) -> None:
    """Check a member that joins.

    Raises:
        InvalidRequest: a name is not valid, or the info is too large.
    """
    check_name(message.channel, "$.channel")
    check_name(message.peer.client, "$.client")
    if message.peer.user:
        check_name(message.peer.user, "$.user")
    if len(memoryview(message.info)) > MAX_INFO_BYTES:
        raise _refused("$.info", f"must be at most {MAX_INFO_BYTES} bytes of JSON")
    _check_json(message.info, "$.info")


def _check_json(raw: msgspec.Raw, path: str) -> None:
    """Check that ``raw`` is JSON in UTF-8, nested at most ``MAX_DEPTH`` levels."""
    try:
        level, depth = [msgspec.json.decode(raw)], 0
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _refused(path, "must be JSON in UTF-8") from None
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _refused(path, f"must not be nested deeper than {MAX_DEPTH} levels")
        level = [child for item in level if isinstance(item, dict | list) for child in _children(item)]


def _children(item: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return item.values() if isinstance(item, dict) else item


def _refused(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"`{path}` {reason}", errors=(FieldError(path, reason),))
