"""The commands of a socket that concern channels."""

import secrets
from typing import Final, TypeGuard

from actors.rate_limits import RateLimits
from actors.runtime import Ref
from protocol.channels import (
    AckChannel,
    GetPresence,
    Join,
    Leave,
    Peer,
    Publish,
    SubscribeChannel,
    UnsubscribeChannel,
)
from protocol.checks import check_name
from protocol.identity import ChannelRight, Principal
from protocol.websocket.channels import channel_ack_json, members_json
from protocol.websocket.commands import (
    AckFrame,
    ClientFrame,
    PresenceFrame,
    PublishFrame,
    SubscribeFrame,
    UnsubscribeFrame,
)
from service.auth.permissions import check_channel
from service.frames import text_frame
from service.middleware.limits import PUBLISH
from service.websocket.admission import Admission
from service.websocket.transport import SocketTransport

ChannelFrame = SubscribeFrame | UnsubscribeFrame | PublishFrame | PresenceFrame | AckFrame

ChannelMessage = SubscribeChannel | UnsubscribeChannel | Publish | AckChannel | GetPresence | Join | Leave

ROUTE: Final = "/ws"
TIMEOUT: Final = 5.0  # seconds
CLIENT_BYTES: Final = 9


def is_channel_frame(frame: ClientFrame) -> TypeGuard[ChannelFrame]:
    """Whether a frame concerns a channel rather than a request."""
    return isinstance(frame, PublishFrame | PresenceFrame) or bool(getattr(frame, "channel", ""))


class ChannelCommands:
    """Executes one socket's commands on channels.

    Args:
        hub: holds the channels and delivers to the socket.
        socket: takes the answers.
        admission: names the caller.
        limits: decides whether a limited caller may publish.
    """

    __slots__ = ("_admission", "_client", "_hub", "_limits", "_peers", "_socket")

    def __init__(
        self, hub: Ref[ChannelMessage], socket: SocketTransport, admission: Admission, limits: RateLimits
    ) -> None:
        self._hub = hub
        self._socket = socket
        self._admission = admission
        self._limits = limits
        self._client = ""
        self._peers: dict[str, Peer] = {}

    async def dispatch(self, frame: ChannelFrame) -> None:
        """Execute the command in ``frame``.

        Raises:
            TidegateError: as the messages of ``protocol.channels`` say, or ``channel_denied``.
        """
        check_name(frame.channel, "$.channel")
        match frame:
            case SubscribeFrame():
                await self._subscribe(frame)
            case UnsubscribeFrame():
                await self._unsubscribe(frame)
            case PublishFrame():
                await self._publish(frame)
            case PresenceFrame():
                await self._presence(frame)
            case AckFrame():
                tenant = self._admission.principal.tenant
                ack = AckChannel(socket=self._socket, tenant=tenant, channel=frame.channel, offset=frame.offset)
                await self._hub.tell(ack)

    async def _subscribe(self, frame: SubscribeFrame) -> None:
        """Subscribe to a channel, and join it where the frame has a ``member``."""
        principal = self._allowed("subscribe", frame.channel)
        if frame.presence or frame.member:
            self._allowed("presence", frame.channel)
        peer = Peer(principal.subject, frame.client or self._own_client())
        message = SubscribeChannel(
            socket=self._socket,
            tenant=principal.tenant,
            channel=frame.channel,
            peer=peer,
            after=frame.after,
            mode=frame.mode,
            presence=frame.presence,
            ack_id=frame.id,
        )
        await self._hub.ask(message, timeout=TIMEOUT)
        if frame.member:
            self._allowed("presence", frame.channel)
            join = Join(
                socket=self._socket, tenant=principal.tenant, channel=frame.channel, peer=peer, info=frame.member.copy()
            )
            await self._hub.ask(join, timeout=TIMEOUT)
            self._peers[frame.channel] = peer

    async def _unsubscribe(self, frame: UnsubscribeFrame) -> None:
        tenant, channel = self._admission.principal.tenant, frame.channel
        message = UnsubscribeChannel(socket=self._socket, tenant=tenant, channel=channel)
        await self._hub.ask(message, timeout=TIMEOUT)
        peer = self._peers.pop(channel, None)
        if peer is not None:
            await self._hub.ask(Leave(socket=self._socket, tenant=tenant, channel=channel, peer=peer), timeout=TIMEOUT)
        if frame.id is not None:
            self._send(channel_ack_json(frame.id, channel))

    async def _publish(self, frame: PublishFrame) -> None:
        principal = self._allowed("publish", frame.channel)
        message = Publish(
            tenant=principal.tenant,
            channel=frame.channel,
            event=frame.event,
            data=frame.data.copy(),
            key=frame.key,
        )
        hold = None
        if principal.plan is not None:
            hold = await self._limits.enforce(principal, PUBLISH, path=ROUTE)
        try:
            published = await self._hub.ask(message, timeout=TIMEOUT)
        finally:
            if hold is not None:
                hold.release()
        if frame.id is not None:
            subscribers = published.subscribers
            self._send(channel_ack_json(frame.id, frame.channel, published.position, subscribers=subscribers))

    async def _presence(self, frame: PresenceFrame) -> None:
        principal = self._allowed("presence", frame.channel)
        members = await self._hub.ask(GetPresence(tenant=principal.tenant, channel=frame.channel), timeout=TIMEOUT)
        if frame.id is not None:
            self._send(members_json(frame.id, frame.channel, members))

    def _allowed(self, right: ChannelRight, channel: str) -> Principal:
        principal = self._admission.check("channels")
        check_channel(principal, right, channel)
        return principal

    def _own_client(self) -> str:
        if not self._client:
            self._client = secrets.token_urlsafe(CLIENT_BYTES)
        return self._client

    def _send(self, payload: bytes) -> None:
        self._socket.send(text_frame(payload))
