"""What an administrator does: look at channels and users, and subscribe, disconnect or set users from the server."""

from collections.abc import AsyncIterator, Awaitable
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from protocol.channels import ChannelInfo, Subscriber
from protocol.errors import ConfigurationError
from protocol.events import Position
from protocol.hub import Mode
from protocol.users import Online, UserChannel, UserSubscribed

T = TypeVar("T")


class UserStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A user's status.

    Attributes:
        user: the user.
        status: ``online`` or ``offline``.
        sockets: the number of open sockets.
        since: when the status began, in Unix seconds; None where it is unknown.
        metadata: what was set with the status.
        until: the end of what was set, in Unix seconds; None where nothing was.
    """

    user: str
    status: Online
    sockets: int
    since: float | None = None
    metadata: Any = None
    until: float | None = None


class _Sockets(msgspec.Struct, frozen=True):
    sockets: int


class _Items(msgspec.Struct, frozen=True):
    items: tuple[msgspec.Raw, ...]
    next: str | None = None


class Call(Protocol):
    """Makes one HTTP call, and returns the body of its answer."""

    def __call__(self, method: str, path: str, /, *, json: object = msgspec.UNSET) -> Awaitable[bytes]:
        """Call, with a JSON body where there is one."""


class Admin:
    """The calls of an administrator; the client's key needs the scope ``admin``.

    Each method raises the service's error as a ``TidegateError``, or ``Unreachable``.

    Args:
        call: makes the calls.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    def channels(self) -> AsyncIterator[ChannelInfo]:
        """Yield the channels that exist, by name; a page is read when it is needed."""
        return self._items("/api/channels", ChannelInfo)

    def subscribers(self, channel: str) -> AsyncIterator[Subscriber]:
        """Yield all clients that follow a channel, members or not."""
        return self._items(f"/api/channels/{quote(channel, safe='')}/subscribers", Subscriber)

    def channels_of(self, user: str) -> AsyncIterator[UserChannel]:
        """Yield the channels that a user follows, by name."""
        return self._items(f"{_user(user)}/channels", UserChannel)

    async def subscribe(
        self,
        user: str,
        channel: str,
        *,
        after: Position | None = None,
        mode: Mode | None = None,
        presence: bool = False,
    ) -> UserSubscribed:
        """Subscribe a user's sockets to a channel; those that follow it already go on."""
        body = {"channel": channel, "after": after, "mode": mode, "presence": presence}
        return _decoded(await self._call("POST", f"{_user(user)}/subscribe", json=body), UserSubscribed)

    async def unsubscribe(self, user: str, channel: str) -> int:
        """Remove a user from a channel; return the number of sockets that followed it."""
        answer = await self._call("POST", f"{_user(user)}/unsubscribe", json={"channel": channel})
        return _decoded(answer, _Sockets).sockets

    async def disconnect(self, user: str) -> int:
        """Close a user's sockets for good; return their number."""
        return _decoded(await self._call("POST", f"{_user(user)}/disconnect"), _Sockets).sockets

    async def status(self, user: str) -> UserStatus:
        """Return whether a user is online."""
        return _decoded(await self._call("GET", f"{_user(user)}/status"), UserStatus)

    async def set_presence(
        self, user: str, status: Online, metadata: object = None, *, ttl: float | None = None
    ) -> UserStatus:
        """Set whether a user is online, for ``ttl`` seconds: five minutes by default, 0 to end what was set."""
        body = {"status": status, "metadata": metadata} | ({} if ttl is None else {"ttlMs": round(ttl * 1000)})
        return _decoded(await self._call("PUT", f"{_user(user)}/presence", json=body), UserStatus)

    async def _items(self, path: str, kind: type[T]) -> AsyncIterator[T]:
        address: str | None = path
        while address is not None:
            page = _decoded(await self._call("GET", address), _Items)
            for item in page.items:
                yield _decoded(bytes(item), kind)
            address = None if page.next is None else f"{path}?{urlencode({'after': page.next})}"


def _user(user: str) -> str:
    return f"/api/users/{quote(user, safe='')}"


def _decoded(answer: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ConfigurationError("the service answers, but not as this service does") from None
