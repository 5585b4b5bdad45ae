"""Channels for a program with the hub in its own process."""

from typing import Final

import msgspec

from actors.runtime import Ref
from protocol.channels import ChannelMessage, GetHistory, GetPresence, History, Member, Publish, Published
from protocol.events import Position

REPLY_TIMEOUT: Final = 5.0  # seconds for the hub's reply, in addition to a publisher's own timeout


class EmbeddedChannels:
    """The channels of one tenant.

    Args:
        hub: a ``SubscriptionHub``.
        tenant: the tenant.
    """

    def __init__(self, hub: Ref[ChannelMessage], *, tenant: str = "") -> None:
        self._hub = hub
        self._tenant = tenant

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
        """Publish any value that msgspec encodes as JSON.

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
