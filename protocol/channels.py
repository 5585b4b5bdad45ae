"""Messages of channels: subscribe, publish, history, presence and lists. Those about users are in ``protocol.users``.

A channel is a name within a tenant. The first message about it creates it. It is deleted when it has no subscriber and
no member, and its history has expired; a channel that is created again has another epoch.
"""

from typing import Final, Protocol

import msgspec

from protocol.checks import check_json, check_name, refused
from protocol.errors import FieldError, InvalidRequest
from protocol.events import Position
from protocol.hub import Mode, Socket
from protocol.message import Message

MAX_EVENT: Final = 64  # characters
MAX_KEY: Final = 255  # characters
MAX_DATA_BYTES: Final = 32 * 1024  # of a publication's JSON
MAX_INFO_BYTES: Final = 1024  # of a member's info, as JSON
MAX_PAGE: Final = 1000  # publications, channels or subscribers of one page
MAX_WAIT: Final = 60.0  # seconds to wait for acknowledgements

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


# ------------------------------------------------------------------------------------------------------- publishing


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """The result of ``Publish``.

    Attributes:
        position: the publication's position in the channel.
        subscribers: the sockets that followed the channel at that time; each of them gets the publication.
        replayed: whether the key had been used before: nothing was published, and the rest is the first one's.
        acknowledged: the peers that acknowledged in time; empty where ``wait`` is 0.
    """

    position: Position
    subscribers: int = 0
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


# ------------------------------------------------------------------------------------------------------------ lists


class ChannelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A channel that exists.

    Attributes:
        name: its name.
        followers: the sockets that follow it.
        members: its members.
        publications: the publications of its history.
        position: of its last publication; with the offset 0 where there was none.
    """

    name: str
    followers: int
    members: int
    publications: int
    position: Position


class ChannelList(msgspec.Struct, frozen=True):
    """Channels by name. ``more`` says whether others follow after the last of them."""

    items: tuple[ChannelInfo, ...]
    more: bool = False


class ListChannels(Message[ChannelList], frozen=True, kw_only=True):
    """Get the tenant's channels: those after the name ``after``, up to ``limit`` of them."""

    tenant: str
    after: str = ""
    limit: int = 100


class Subscriber(msgspec.Struct, frozen=True, kw_only=True):
    """A client that follows a channel.

    Attributes:
        user: its user; empty for an anonymous one.
        client: its name; empty where it has none: an administrator has subscribed its socket.
        sockets: how many of its sockets follow the channel.
        member: whether it is a member of the channel, too.
    """

    user: str
    client: str
    sockets: int
    member: bool


class SubscriberList(msgspec.Struct, frozen=True):
    """Subscribers by user and client. ``more`` says whether others follow after the last of them."""

    items: tuple[Subscriber, ...]
    more: bool = False


class GetSubscribers(Message[SubscriberList], frozen=True, kw_only=True):
    """Get all that follow a channel, members or not: those after ``after``, up to ``limit`` of them."""

    tenant: str
    channel: str
    after: Peer | None = None
    limit: int = 100


ChannelMessage = (
    SubscribeChannel
    | UnsubscribeChannel
    | Publish
    | AckChannel
    | GetHistory
    | Join
    | Leave
    | GetPresence
    | ListChannels
    | GetSubscribers
)

# ------------------------------------------------------------------------------------------------------- validation


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
        raise refused("$.wait", f"must be within 0..{MAX_WAIT:g} s, got {message.wait:g}")
    size = len(memoryview(message.data))
    if size > MAX_DATA_BYTES:
        detail = f"`data` is {size} bytes of JSON, and {MAX_DATA_BYTES} is the most"
        raise InvalidRequest(detail, code="publication_too_large", errors=(FieldError("$.data", detail),))
    check_json(message.data, "$.data", MAX_DATA_BYTES)


def check_member(message: Join) -> None:
    """Check a member that joins.

    Raises:
        InvalidRequest: a name is not valid, or the info is too large.
    """
    check_name(message.channel, "$.channel")
    check_name(message.peer.client, "$.client")
    if message.peer.user:
        check_name(message.peer.user, "$.user")
    check_json(message.info, "$.info", MAX_INFO_BYTES)
