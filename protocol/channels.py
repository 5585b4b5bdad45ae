"""The conversation about channels: subscribe, publish, look back, and see who else is there.

A channel is a name within a tenant. It begins to exist with the first word about it, and is forgotten when nobody
subscribes, nobody is a member and its history has expired; whoever comes back then meets another epoch.
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
MAX_INFO_BYTES: Final = 1024  # of what a member says of itself, as JSON
MAX_PAGE: Final = 1000  # publications of a history at once
MAX_WAIT: Final = 60.0  # seconds for acknowledgements
MAX_DEPTH: Final = 64  # levels of free JSON, far from any reader's limit of recursion

NULL: Final = msgspec.Raw(b"null")


class Peer(msgspec.Struct, frozen=True):
    """Somebody in a channel: a user at one of their clients, which may have several sockets at once.

    Attributes:
        user: who it is, within the tenant; empty for nobody in particular.
        client: which of the user's clients, by a name of its own choosing that stays when it reconnects.
    """

    user: str = ""
    client: str = ""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A peer that is present, and what it says of itself: any JSON."""

    user: str
    client: str
    info: msgspec.Raw


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """What was published, at its offset.

    Attributes:
        offset: contiguous from 1 within the channel's epoch.
        event: what kind of news it is.
        data: any JSON.
        at: when it came, in Unix seconds.
    """

    offset: int
    event: str
    data: msgspec.Raw
    at: float


class PresentSocket(Socket, Protocol):
    """A socket that says whether it is on its way out: one that is no longer renews what it holds."""

    @property
    def closing(self) -> bool:
        """Whether its end has begun."""


# --------------------------------------------------------------------------------------------------- who is connected


class SocketOpened(Message[None], frozen=True, kw_only=True):
    """A socket is this user's from now on, until ``SocketClosed``; its user is online."""

    socket: Socket
    tenant: str
    user: str


class DisconnectUser(Message[int], frozen=True, kw_only=True):
    """Close every socket of a user with 4503, and say how many there were. The client does not come back by itself."""

    tenant: str
    user: str


class UserStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a user is there.

    Attributes:
        user: who.
        status: ``online`` with a socket or a membership, and for a moment after the last of them.
        sockets: how many are open.
        since: when the status began, in Unix seconds; None where nothing is known.
    """

    user: str
    status: Literal["online", "offline"]
    sockets: int
    since: float | None = None


class GetStatus(Message[UserStatus], frozen=True, kw_only=True):
    """Ask whether a user is there."""

    tenant: str
    user: str


# ---------------------------------------------------------------------------------------------------- who follows what


class SubscribeChannel(Message[None], frozen=True, kw_only=True):
    """Let ``socket`` follow a channel: acknowledge, replay, then live; no gap and no duplicate.

    The acknowledgement (only with an ``ack_id``) is written before the replay. A second subscription of the socket to
    the same channel replaces the first.

    Attributes:
        socket: whose it is.
        tenant: whose channel it is.
        channel: its name.
        peer: who follows it: publishers that ask who has something are told this.
        after: the exclusive position to go on from; None to hear only what comes.
        mode: ``replay`` each publication after the position, or all that is held where there is none; ``live``, only
            what comes; None for a replay that turns live (``recovered: false``) where the position can't be recovered.
        presence: whether to tell the socket who joins and leaves.
        ack_id: the client's frame id; None for a client that sent none.

    Raises (as replies):
        InvalidRequest: the name is none, or ``mode`` is ``snapshot``, which channels don't have.
        UnrecoverablePosition: ``mode`` is ``replay`` and the position is not held; or it lies beyond the end.
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
    """Stop following a channel; says whether it was followed. A membership goes on."""

    socket: Socket
    tenant: str
    channel: str


class UnsubscribeUser(Message[int], frozen=True, kw_only=True):
    """Take a user's sockets out of a channel, as followers and members; says how many sockets that were.

    Each gets a terminal ``error`` with the code ``unsubscribed`` and stays open.
    """

    tenant: str
    user: str
    channel: str


# --------------------------------------------------------------------------------------------------------- publishing


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a publication.

    Attributes:
        position: where it is in the channel.
        replayed: whether its key had been used: nothing was published now, and this is the first one's place.
        acknowledged: who said in time that they have it; empty unless that was asked for.
    """

    position: Position
    replayed: bool = False
    acknowledged: tuple[Peer, ...] = ()


class Publish(Message[Published], frozen=True, kw_only=True):
    """Append to a channel's history and deliver.

    Attributes:
        tenant: whose channel it is.
        channel: its name.
        event: what kind of news it is: 1 to 64 printable characters.
        data: any JSON, up to ``MAX_DATA_BYTES``.
        key: names this publication: another one with the same key, event and data within some minutes is this one.
        wait: seconds in which to wait for those who follow the channel now to acknowledge it; 0 for not at all. The
            ask has to allow for it.

    Raises (as replies):
        InvalidRequest: ``invalid_request``, or ``publication_too_large``.
        IdempotencyKeyReused: with other content.
        Overloaded: too many channels, or too many publications that wait.
    """

    tenant: str
    channel: str
    event: str
    data: msgspec.Raw = NULL
    key: str = ""
    wait: float = 0.0

    traced = True


class AckChannel(Message[None], frozen=True, kw_only=True):
    """A socket has everything of a channel up to ``offset``."""

    socket: Socket
    tenant: str
    channel: str
    offset: int


class History(msgspec.Struct, frozen=True, kw_only=True):
    """A page of what was published.

    Attributes:
        epoch: of every offset here.
        offset: of the channel's last publication; 0 where there was none.
        publications: in order.
        more: whether there are some after these.
    """

    epoch: str
    offset: int
    publications: tuple[Publication, ...]
    more: bool = False


class GetHistory(Message[History], frozen=True, kw_only=True):
    """Look back: what was published after a position, or all that is held.

    Raises (as replies):
        UnrecoverablePosition: the position is not held any more, or lies beyond the end.
    """

    tenant: str
    channel: str
    after: Position | None = None
    limit: int = 100


# ----------------------------------------------------------------------------------------------------------- presence


class Join(Message[None], frozen=True, kw_only=True):
    """Become a member, or say something else of oneself; the others are told.

    A membership is held by leases: one a socket, renewed as long as the socket is open; or, without a socket, one that
    repeating this message renews. The member leaves with the last lease. A socket that joins as another peer is the
    first one no more.

    Attributes:
        socket: which holds the membership; None for a member that renews it by itself.
        tenant: whose channel it is.
        channel: its name.
        peer: who joins.
        info: what the others see of the member: any JSON, up to ``MAX_INFO_BYTES``.

    Raises (as replies):
        InvalidRequest: a name is none, or the info is too large.
        Overloaded: too many members or channels.
    """

    socket: PresentSocket | None
    tenant: str
    channel: str
    peer: Peer
    info: msgspec.Raw = NULL


class Leave(Message[bool], frozen=True, kw_only=True):
    """Give up the lease that ``socket`` (or the one without a socket) holds; says whether there was one."""

    socket: PresentSocket | None
    tenant: str
    channel: str
    peer: Peer


class GetPresence(Message[tuple[Member, ...]], frozen=True, kw_only=True):
    """Ask who is there, in the order in which they came."""

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

# -------------------------------------------------------------------------------------------------------------- values


def check_name(name: str, path: str, most: int = MAX_NAME) -> None:
    """Refuse what is no name.

    Raises:
        InvalidRequest: it is not 1 to ``most`` printable characters.
    """
    if not 0 < len(name) <= most or not name.isprintable():
        raise _refused(path, f"must be 1 to {most} printable characters")


def check_publication(message: Publish) -> None:
    """Refuse a publication that can't be.

    Raises:
        InvalidRequest: a name or the key is none, or ``publication_too_large``.
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


def check_joining(message: Join) -> None:
    """Refuse a member that can't be.

    Raises:
        InvalidRequest: a name is none, or the info is too large.
    """
    check_name(message.channel, "$.channel")
    check_name(message.peer.client, "$.client")
    if message.peer.user:
        check_name(message.peer.user, "$.user")
    if len(memoryview(message.info)) > MAX_INFO_BYTES:
        raise _refused("$.info", f"must be at most {MAX_INFO_BYTES} bytes of JSON")
    _check_json(message.info, "$.info")


def _check_json(raw: msgspec.Raw, path: str) -> None:
    """Refuse what could not be read by everybody who gets it."""
    try:
        level, depth = [msgspec.json.decode(raw)], 0
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _refused(path, "must be JSON in UTF-8") from None
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _refused(path, f"must not be nested deeper than {MAX_DEPTH} levels")
        level = [below for item in level if isinstance(item, dict | list) for below in _inside(item)]


def _inside(item: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return item.values() if isinstance(item, dict) else item


def _refused(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"`{path}` {reason}", errors=(FieldError(path, reason),))
