"""Messages about connected users: their status, their sockets, and what they follow in channels.

A user is a name within a tenant. Everything here is for an administrator or for the program itself, and concerns the
user's sockets of now: one that is opened later begins without any of it.
"""

from typing import Final, Literal

import msgspec

from protocol.checks import check_json, check_name, refused
from protocol.events import Position
from protocol.hub import Mode, Socket
from protocol.message import Message

MAX_METADATA_BYTES: Final = 1024  # of the metadata of a presence that was set, as JSON
DEFAULT_PRESENCE: Final = 300.0  # seconds for which a presence holds that was set
MAX_PRESENCE: Final = 86_400.0  # seconds

Online = Literal["online", "offline"]


def _null() -> msgspec.Raw:
    return msgspec.Raw(b"null")


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
        status: what ``SetPresence`` says while that holds; else ``online`` with a socket or a membership, and for a
            short time after the last of them.
        sockets: the number of open sockets.
        since: when the status began, in Unix seconds; None where it is unknown.
        metadata: the JSON that was set with the status; null for none.
        until: the end of what was set, in Unix seconds; None where nothing was.
    """

    user: str
    status: Online
    sockets: int
    since: float | None = None
    metadata: msgspec.Raw = msgspec.field(default_factory=_null)
    until: float | None = None


class GetStatus(Message[UserStatus], frozen=True, kw_only=True):
    """Get a user's status."""

    tenant: str
    user: str


class SetPresence(Message[UserStatus], frozen=True, kw_only=True):
    """Set a user's status, for ``ttl`` seconds; it counts instead of the user's sockets. Replies with the status.

    Channels are not concerned: a user who is set offline still gets what the user's sockets follow.

    Attributes:
        tenant: the user's tenant.
        user: the user.
        status: what the status is from now on.
        metadata: any JSON, up to ``MAX_METADATA_BYTES``; shown in the status.
        ttl: seconds, up to ``MAX_PRESENCE``; 0 ends what was set before.

    Raises (as replies):
        InvalidRequest: the name, the metadata or the ``ttl`` is not valid.
        Overloaded: the status of too many users is set.
    """

    tenant: str
    user: str
    status: Online
    metadata: msgspec.Raw = msgspec.field(default_factory=_null)
    ttl: float = DEFAULT_PRESENCE


class UserSubscribed(msgspec.Struct, frozen=True, kw_only=True):
    """The result of ``SubscribeUser``.

    Attributes:
        sockets: the user's sockets that follow the channel now.
        refused: the user's sockets that have too many subscriptions for one more.
    """

    sockets: int
    refused: int = 0


class SubscribeUser(Message[UserSubscribed], frozen=True, kw_only=True):
    """Subscribe a user's sockets to a channel. A socket that follows it already goes on as it does.

    Each new follower gets an ``ack`` without an id, as after its own ``subscribe``, then the replay, then what is
    published.

    Attributes:
        tenant: the user's tenant.
        user: the user.
        channel: the channel's name.
        after: as in ``SubscribeChannel``; so are ``mode`` and ``presence``.

    Raises (as replies):
        InvalidRequest: a name is not valid, or ``mode`` is ``snapshot``.
        UnrecoverablePosition: as for ``SubscribeChannel``.
        Overloaded: there are too many channels.
        ShuttingDown: the hub is closing its sockets.
    """

    tenant: str
    user: str
    channel: str
    after: Position | None = None
    mode: Mode | None = None
    presence: bool = False


class UnsubscribeUser(Message[int], frozen=True, kw_only=True):
    """Remove a user's sockets from a channel's subscribers and members. Replies with the number of sockets.

    Each socket gets a terminal ``error`` with the code ``unsubscribed`` and stays open.
    """

    tenant: str
    user: str
    channel: str


class UserChannel(msgspec.Struct, frozen=True, kw_only=True):
    """A channel that a user follows.

    Attributes:
        name: the channel.
        sockets: how many of the user's sockets follow it.
        member: whether one of the user's clients is a member, too.
    """

    name: str
    sockets: int
    member: bool


class UserChannels(msgspec.Struct, frozen=True):
    """Channels that a user follows, by name. ``more`` says whether others follow after the last of them."""

    items: tuple[UserChannel, ...]
    more: bool = False


class GetUserChannels(Message[UserChannels], frozen=True, kw_only=True):
    """Get the channels that a user follows: those after the name ``after``, up to ``limit`` of them."""

    tenant: str
    user: str
    after: str = ""
    limit: int = 100


UserMessage = (
    SocketOpened | DisconnectUser | GetStatus | SetPresence | SubscribeUser | UnsubscribeUser | GetUserChannels
)


def check_presence(message: SetPresence) -> None:
    """Check a status that is set.

    Raises:
        InvalidRequest: the name, the metadata or the ``ttl`` is not valid.
    """
    check_name(message.user, "user")
    check_json(message.metadata, "$.metadata", MAX_METADATA_BYTES)
    if not 0 <= message.ttl <= MAX_PRESENCE:
        raise refused("$.ttlMs", f"must be within 0..{MAX_PRESENCE * 1000:.0f}")
