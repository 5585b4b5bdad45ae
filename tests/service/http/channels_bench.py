"""A service with keys of several callers, for the tests of channels and users."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from service.auth.keys import digest_of

Start = Callable[..., Awaitable[Any]]

KEYS = """
[keys.ada]
hash = "{ada}"
tenant = "acme"

[keys.reader]
hash = "{reader}"
tenant = "acme"
channels = [{{ pattern = "room:*", rights = ["subscribe"] }}]

[keys.root]
hash = "{root}"
tenant = "acme"
scopes = ["channels", "admin"]

[keys.model]
hash = "{model}"
tenant = "acme"
scopes = ["inference"]

[keys.onlyadmin]
hash = "{onlyadmin}"
tenant = "acme"
scopes = ["admin"]

[keys.other]
hash = "{other}"
tenant = "other"
scopes = ["channels", "admin"]
"""


async def open_service(start: Start, folder: Path) -> "Service":
    """Start the service."""
    file = folder / "tidegate.toml"
    names = ("ada", "reader", "root", "model", "other", "onlyadmin")
    file.write_text(KEYS.format(**{name: digest_of(name).hex() for name in names}), encoding="utf-8")
    return Service(await start(routes_file=file))


class Service:
    """HTTP calls with a caller's key, which is the caller's name."""

    def __init__(self, running: Any) -> None:  # noqa: ANN401 - the fixture's own
        self._client = running.client
        self.hub = running.container.hub

    async def call(
        self, who: str, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Return the status, the body and the headers."""
        sent = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {who}", "Content-Type": "application/json"} | headers
        async with self._client.request(method, path, data=sent, headers=headers) as response:
            return response.status, json.loads(await response.read()), dict(response.headers)

    async def post(self, who: str, path: str, body: object = None, **headers: str) -> tuple[int, dict[str, Any]]:
        """Return the status and the body."""
        status, answer, _ = await self.call(who, "POST", path, {} if body is None else body, **headers)
        return status, answer

    async def get(self, who: str, path: str) -> tuple[int, dict[str, Any]]:
        """Return the status and the body."""
        status, answer, _ = await self.call(who, "GET", path)
        return status, answer

    async def publish(self, who: str = "ada", channel: str = "room:7", **body: object) -> tuple[int, dict[str, Any]]:
        """Publish."""
        return await self.post(who, f"/api/channels/{channel}/publish", {"event": "said", **body})

    async def socket(self, who: str, **frame: object) -> "Client":
        """Connect and subscribe to the room; returns after the acknowledgement."""
        client = await self.connect(who)
        await client.send(type="subscribe", id=1, channel="room:7", **frame)
        assert (await client.next())["type"] == "ack"
        return client

    async def connect(self, who: str) -> "Client":
        """Connect; returns when the hub knows the socket."""
        client = Client(await self._client.ws_connect("/ws", headers={"Authorization": f"Bearer {who}"}))
        await client.settled()
        return client


class Client:
    """A client's socket."""

    def __init__(self, socket: Any) -> None:  # noqa: ANN401 - aiohttp's
        self.socket = socket

    async def send(self, **frame: object) -> None:
        """Send a frame."""
        await self.socket.send_json(frame)

    async def next(self) -> dict[str, Any]:
        """Return the next frame."""
        async with asyncio.timeout(5):
            frame: dict[str, Any] = await self.socket.receive_json()
        return frame

    async def settled(self) -> None:
        """Return when the service has done all that was sent; for a client with no unread frame."""
        await self.send(type="ping", id=0)
        assert (await self.next())["type"] == "pong"

    async def closed(self) -> int:
        """Return the socket's close code."""
        async with asyncio.timeout(5):
            await self.socket.receive()
        return int(self.socket.close_code)
