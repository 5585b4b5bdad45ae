"""Channels for a program with the hub in its own process."""

from typing import Final

import msgspec

from actors.runtime import Ref
from protocol.channels import (
    ChannelList,
    ChannelMessage,
    GetHistory,
    GetPresence,
    GetSubscribers,
    History,
    ListChannels,
    Member,
    Peer,
    Publish,
    Published,
    SubscriberList,
)
from protocol.events import Position
from protocol.hub import Mode
from protocol.users import (
    DEFAULT_PRESENCE,
    GetStatus,
    GetUserChannels,
    Online,
    SetPresence,
    SubscribeUser,
    UnsubscribeUser,
    UserChannels,
    UserMessage,
    UserStatus,
    UserSubscribed,
)

REPLY_TIMEOUT: Final = 5.0  # seconds for the hub's reply, in addition to a publisher's own timeout


class EmbeddedChannels:
    """The channels and the users of one tenant. Each method raises a ``TidegateError`` as its message says.

    Args:
        hub: a ``SubscriptionHub``.
        tenant: the tenant.
    """

    def __init__(self, hub: Ref[ChannelMessage | UserMessage], *, tenant: str = "") -> None:
        self._hub = hub
        self._tenant = tenant

    # -------------------------------------------------------------------------------------------------------- channels

    async def publish(
        self,
        channel: str,
        event: str,
        data: object = None,
        *,
        key: str = "",
        ack: bool = False,
        timeout: float = 5.0,  # noqa: ASYNC109 - at its end there is a reply, not a failure
    ) -> Published:
        """Publish any value that msgspec encodes as JSON; the reply says where, and to how many subscribers.

        With ``ack`` it waits until every present follower of the channel has acknowledged or left, or for ``timeout``
        seconds, and returns the peers that have acknowledged.

        Raises:
            TidegateError: as ``protocol.channels.Publish`` says.
        """
        message = Publish(
            tenant=self._tenant,
            channel=channel,
            event=event,
            data=msgspec.Raw(msgspec.json.encode(data)),
            key=key,
            wait=timeout if ack else 0.0,
        )
        return await self._hub.ask(message, timeout=message.wait + REPLY_TIMEOUT)

    async def history(self, channel: str, *, after: Position | None = None, limit: int = 100) -> History:
        """Return a page of publications; see ``protocol.channels.GetHistory``."""
        message = GetHistory(tenant=self._tenant, channel=channel, after=after, limit=limit)
        return await self._hub.ask(message, timeout=REPLY_TIMEOUT)

    async def members(self, channel: str) -> tuple[Member, ...]:
        """Return the members of a channel."""
        return await self._hub.ask(GetPresence(tenant=self._tenant, channel=channel), timeout=REPLY_TIMEOUT)

    async def channels(self, *, after: str = "", limit: int = 100) -> ChannelList:
        """Return a page of the channels that exist: those after the name ``after``."""
        message = ListChannels(tenant=self._tenant, after=after, limit=limit)
        return await self._hub.ask(message, timeout=REPLY_TIMEOUT)

    async def subscribers(self, channel: str, *, after: Peer | None = None, limit: int = 100) -> SubscriberList:
        """Return a page of all that follow a channel, members or not."""
        message = GetSubscribers(tenant=self._tenant, channel=channel, after=after, limit=limit)
        return await self._hub.ask(message, timeout=REPLY_TIMEOUT)

    # ----------------------------------------------------------------------------------------------------------- users

    async def subscribe(
        self, user: str, channel: str, *, after: Position | None = None, mode: Mode | None = None
    ) -> UserSubscribed:
        """Subscribe a user's sockets to a channel; see ``protocol.users.SubscribeUser``."""
        message = SubscribeUser(tenant=self._tenant, user=user, channel=channel, after=after, mode=mode)
        return await self._hub.ask(message, timeout=REPLY_TIMEOUT)

    async def unsubscribe(self, user: str, channel: str) -> int:
        """Remove a user from a channel, and return the number of sockets that followed it."""
        message = UnsubscribeUser(tenant=self._tenant, user=user, channel=channel)
        return await self._hub.ask(message, timeout=REPLY_TIMEOUT)

    async def channels_of(self, user: str, *, after: str = "", limit: int = 100) -> UserChannels:
        """Return a page of the channels that a user follows: those after the name ``after``."""
        message = GetUserChannels(tenant=self._tenant, user=user, after=after, limit=limit)
        return await self._hub.ask(message, timeout=REPLY_TIMEOUT)

    async def status(self, user: str) -> UserStatus:
        """Return whether a user is online."""
        return await self._hub.ask(GetStatus(tenant=self._tenant, user=user), timeout=REPLY_TIMEOUT)

    async def set_presence(
        self, user: str, status: Online, metadata: object = None, *, ttl: float = DEFAULT_PRESENCE
    ) -> UserStatus:
        """Set whether a user is online, for ``ttl`` seconds; see ``protocol.users.SetPresence``."""
        message = SetPresence(
            tenant=self._tenant,
            user=user,
            status=status,
            metadata=msgspec.Raw(msgspec.json.encode(metadata)),
            ttl=ttl,
        )
        return await self._hub.ask(message, timeout=REPLY_TIMEOUT)
