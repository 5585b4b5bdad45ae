"""Channels for a program that has the hub in its own process."""

from typing import Final

import msgspec

from actors.runtime import Ref
from protocol.channels import ChannelMessage, GetHistory, GetPresence, History, Member, Publish, Published
from protocol.events import Position

PATIENCE: Final = 5.0  # seconds that the hub has to answer, beside what a publisher waits for


class EmbeddedChannels:
    """The channels of one tenant.

    Args:
        hub: who delivers: a ``SubscriptionHub``.
        tenant: whose channels they are.
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
        """Publish what msgspec can write as JSON.

        With ``ack`` it returns once everybody who follows the channel now has acknowledged or left, or after
        ``timeout`` seconds; either way it says who has acknowledged by then.

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
        return await self._hub.ask(message, timeout=message.wait + PATIENCE)

    async def history(self, channel: str, *, after: Position | None = None, limit: int = 100) -> History:
        """Look back; see ``protocol.channels.GetHistory``."""
        message = GetHistory(tenant=self._tenant, channel=channel, after=after, limit=limit)
        return await self._hub.ask(message, timeout=PATIENCE)

    async def members(self, channel: str) -> tuple[Member, ...]:
        """Return who is there."""
        return await self._hub.ask(GetPresence(tenant=self._tenant, channel=channel), timeout=PATIENCE)
