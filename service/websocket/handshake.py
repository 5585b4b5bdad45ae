"""The handshake of a WebSocket: the checks of an upgrade's headers, and the response that switches the protocol."""

import base64
import hashlib
import re
from typing import Final

from aiohttp import HttpVersion11, hdrs, web

from protocol.errors import InvalidRequest
from protocol.websocket.out import SUBPROTOCOL

VERSION: Final = "13"
_NO_UPGRADE: Final = "The caller may open a socket here, but no `Upgrade: websocket` has arrived"
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # of RFC 6455


class SwitchingProtocols(web.StreamResponse):
    """The response to a valid upgrade. Whoever handles the socket writes what follows it."""

    _length_check = False  # its body has no end of its own

    def __init__(self, key: str, subprotocol: str) -> None:
        accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()  # noqa: S324 - RFC 6455's
        headers = {hdrs.UPGRADE: "websocket", hdrs.CONNECTION: "upgrade", hdrs.SEC_WEBSOCKET_ACCEPT: accept}
        if subprotocol:
            headers[hdrs.SEC_WEBSOCKET_PROTOCOL] = subprotocol
        super().__init__(status=101, headers=headers)
        self.force_close()

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002 - there is none
        """End the response; the socket has ended already."""
        self._eof_sent = True


def upgrade_of(request: web.Request) -> SwitchingProtocols:
    """Return the response to the upgrade that ``request`` asks for.

    Raises:
        InvalidRequest: ``upgrade_required``, also where the version is not ``VERSION``; or the key is not valid.
    """
    headers = request.headers
    asked = request._message.upgrade and headers.get(hdrs.UPGRADE, "").strip().lower() == "websocket"  # noqa: SLF001 - what the parser has made of `Connection`
    if not asked or request.method != hdrs.METH_GET or request.version != HttpVersion11:
        raise InvalidRequest(_NO_UPGRADE, code="upgrade_required")
    if headers.get(hdrs.SEC_WEBSOCKET_VERSION) != VERSION:
        raise InvalidRequest(f"The service speaks version {VERSION} of WebSocket", code="upgrade_required")
    keys = headers.getall(hdrs.SEC_WEBSOCKET_KEY, ())
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]) or not request.content.is_eof():
        raise InvalidRequest("An upgrade has one `Sec-WebSocket-Key` of 16 bytes in base64, and no body")
    offered = ",".join(headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, ())).split(",")
    return SwitchingProtocols(keys[0], SUBPROTOCOL if SUBPROTOCOL in map(str.strip, offered) else "")
