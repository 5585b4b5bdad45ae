"""A service whose keys and tokens lose their rights while things are open, and every kind of open thing."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp

from protocol.identity import Principal
from service.auth.keys import digest_of
from service.config.routes_watcher import CheckFile, GetRejected
from tests.service.bench import BODY, CHAT, Call, Service, open_service
from tests.service.issuer import SECRET

Sent = dict[str, str]
TENANT: Final = "acme"
WRITTEN: Final = 10**18  # nanoseconds: long ago, so that the file is read at once


def table(name: str, key: str = "", **fields: Any) -> str:  # noqa: ANN401 - TOML
    """Return a key's table."""
    said = {"hash": digest_of(key or name).hex(), "tenant": TENANT} | fields
    return f"[keys.{name}]\n" + "".join(f"{field} = {_toml(value)}\n" for field, value in said.items())


def _toml(value: Any) -> str:  # noqa: ANN401 - TOML
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(one)}" for name, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def bearer(credential: str) -> Sent:
    """Return the header of a credential."""
    return {"Authorization": f"Bearer {credential}"}


class World:
    """The service, its file, and how rights change."""

    def __init__(self, service: Service, file: Path) -> None:
        self.service = service
        self.file = file
        self.container = service.container
        self._written = WRITTEN

    async def put(self, *tables: str) -> None:
        """Write the file, and let the service read it now."""
        self._written += 10**9
        _write(self.file, "".join(tables), self._written)
        watcher: Any = self.container.routes
        await watcher.tell(CheckFile())
        assert await self.container.routes.ask(GetRejected(), timeout=5) == ()

    async def principal(self, credential: str) -> Principal:
        """Return the caller of a credential."""
        return await self.container.auth.authenticate(credential)

    @property
    def open(self) -> int:
        """How much is open by all credentials."""
        return len(self.container.auth.grants)

    async def until_open(self, count: int) -> None:
        """Wait until so much is open."""
        async with asyncio.timeout(10):
            while self.open != count:
                await self.container.routes.ask(GetRejected(), timeout=5)  # a turn of the loop


def _write(file: Path, text: str, at: int) -> None:
    file.write_text(text, encoding="utf-8")
    os.utime(file, ns=(at, at))


@asynccontextmanager
async def open_world(file: Path, *tables: str, **settings: Any) -> AsyncIterator[World]:  # noqa: ANN401 - settings
    """Serve with these keys, and with tokens."""
    _write(file, "".join(tables), WRITTEN)
    async with open_service(routes_file=file, jwt_secret=SECRET, **settings) as service:
        yield World(service, file)


class Opened:
    """Something that is open.

    Args:
        call: the call of the model that feeds it; None where there is none.
        end: returns the status, and all text that has come from now on to its end.
    """

    def __init__(self, call: Call | None, end: Callable[[], Awaitable[tuple[int, str]]]) -> None:
        self.call = call
        self.end = end
        self.witness: object = None  # what has to stay open meanwhile


Opener = Callable[[World, str], Awaitable[Opened]]


async def _stream(world: World, credential: str, method: str, path: str, body: object = None) -> Opened:
    """Open a stream, and read its beginning."""
    client, base = world.service.client, world.service.base
    asked = asyncio.ensure_future(client.request(method, base + path, json=body, headers=bearer(credential)))
    call = None
    if body is not None:
        call = await world.service.call()
        await call.say("early")
    response = await asked
    seen = b""
    while b"early" not in seen:
        seen += await response.content.readany()

    async def end() -> tuple[int, str]:
        rest = await response.content.read()
        return response.status, rest.decode()

    return Opened(call, end)


async def _started(world: World, credential: str) -> tuple[str, Call]:
    headers = bearer(credential)
    body = BODY | {"metadata": {"by": credential[-20:]}, "options": {"dedupe": False}}
    async with world.service.client.post(world.service.base + "/api/requests", json=body, headers=headers) as response:
        request_id = (await response.json())["requestId"]
    call = await world.service.call()
    await call.say("early")
    return request_id, call


async def events(world: World, credential: str) -> Opened:
    """Follow a request by SSE."""
    request_id, call = await _started(world, credential)
    opened = await _stream(world, credential, "GET", f"/api/requests/{request_id}/events")
    opened.call = call
    return opened


async def resumed(world: World, credential: str) -> Opened:
    """Follow a request as a response that goes on."""
    request_id, call = await _started(world, credential)
    opened = await _stream(world, credential, "GET", f"/v1/responses/{request_id}?stream=true")
    opened.call = call
    return opened


async def chat(world: World, credential: str) -> Opened:
    """Stream a chat completion."""
    return await _stream(world, credential, "POST", "/v1/chat/completions", CHAT | {"stream": True})


async def messages(world: World, credential: str) -> Opened:
    """Stream a message."""
    return await _stream(world, credential, "POST", "/v1/messages", CHAT | {"stream": True, "max_tokens": 9})


async def responses(world: World, credential: str) -> Opened:
    """Stream a response."""
    return await _stream(world, credential, "POST", "/v1/responses", {"model": "m", "input": "hi", "stream": True})


async def _waiting(
    world: World, credential: str, method: str, path: str, body: object = None, accept: str = ""
) -> Opened:
    """Send a call that waits for its answer."""
    headers = bearer(credential) | ({"Accept": accept} if accept else {})
    open_before = world.open

    async def send() -> tuple[int, str]:
        async with world.service.client.request(
            method, world.service.base + path, json=body, headers=headers
        ) as response:
            return response.status, await response.text()

    answer = asyncio.ensure_future(send())
    await world.until_open(open_before + 1)

    async def end() -> tuple[int, str]:
        async with asyncio.timeout(10):
            return await answer

    return Opened(None, end)


async def whole_chat(world: World, credential: str) -> Opened:
    """Wait for a whole chat completion."""
    opened = await _waiting(world, credential, "POST", "/v1/chat/completions", CHAT)
    opened.call = await world.service.call()
    return opened


async def whole_message(world: World, credential: str) -> Opened:
    """Wait for a whole message."""
    opened = await _waiting(world, credential, "POST", "/v1/messages", CHAT | {"max_tokens": 9})
    opened.call = await world.service.call()
    return opened


async def whole_response(world: World, credential: str) -> Opened:
    """Wait for a whole response."""
    opened = await _waiting(world, credential, "POST", "/v1/responses", {"model": "m", "input": "hi"})
    opened.call = await world.service.call()
    return opened


async def before_content(world: World, credential: str) -> Opened:
    """Ask for a stream of which nothing has come yet."""
    opened = await _waiting(world, credential, "POST", "/v1/chat/completions", CHAT | {"stream": True})
    opened.call = await world.service.call()
    return opened


async def long_poll(world: World, credential: str) -> Opened:
    """Wait for the next event of a request."""
    request_id, call = await _started(world, credential)
    headers = bearer(credential)
    async with world.service.client.get(f"{world.service.base}/api/requests/{request_id}", headers=headers) as state:
        position = (await state.json())["position"]
    place = f"/api/requests/{request_id}/events?wait=50&after={position['epoch']}:{position['offset']}"
    opened = await _waiting(world, credential, "GET", place, accept="application/json")
    opened.call = call
    return opened


async def publication(world: World, credential: str) -> Opened:
    """Wait for the acknowledgements of a publication."""
    headers = bearer("witness")
    socket = await world.service.client.ws_connect(world.service.base + "/ws", headers=headers)
    await socket.send_json({"type": "subscribe", "id": 1, "channel": "room:1"})
    assert (await socket.receive_json())["type"] == "ack"
    body = {"event": "said", "ackTimeoutMs": 50_000}
    opened = await _waiting(world, credential, "POST", "/api/channels/room:1/publish", body)
    opened.witness = socket
    return opened


STREAMS: Final[dict[str, Opener]] = {
    "events": events,
    "resumed": resumed,
    "chat": chat,
    "messages": messages,
    "responses": responses,
}
WAITING: Final[dict[str, Opener]] = {
    "whole chat": whole_chat,
    "whole message": whole_message,
    "whole response": whole_response,
    "before content": before_content,
    "long poll": long_poll,
    "publication": publication,
}


class Line:
    """A client's socket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def ask(self, **frame: Any) -> Any:  # noqa: ANN401 - JSON
        """Send a frame, and return the next one that has come."""
        await self.socket.send_json(frame)
        return await self.socket.receive_json(timeout=10)

    async def rest(self) -> list[Any]:
        """Return all frames that come until the close frame."""
        frames = []
        while (message := await self.socket.receive(timeout=10)).type is aiohttp.WSMsgType.TEXT:
            frames.append(json.loads(message.data))
        return frames


async def dial(world: World, credential: str) -> Line:
    """Open a socket with a credential in its header."""
    return Line(await world.service.client.ws_connect(world.service.base + "/ws", headers=bearer(credential)))


async def dial_with_ticket(world: World, credential: str) -> Line:
    """Open a socket with a ticket of a credential."""
    return Line(
        await world.service.client.ws_connect(f"{world.service.base}/ws?ticket={await ticket(world, credential)}")
    )


async def dial_and_authenticate(world: World, credential: str) -> Line:
    """Open a socket whose first frame has the credential."""
    line = Line(await world.service.client.ws_connect(world.service.base + "/ws"))
    assert (await line.ask(type="authenticate", id=0, token=credential))["type"] == "ack"
    return line


async def ticket(world: World, credential: str) -> str:
    """Return a ticket of a credential."""
    headers = bearer(credential)
    async with world.service.client.post(world.service.base + "/api/tickets", headers=headers) as response:
        return str((await response.json())["ticket"])


DIALS: Final[dict[str, Callable[[World, str], Awaitable[Line]]]] = {
    "header": dial,
    "ticket": dial_with_ticket,
    "frame": dial_and_authenticate,
}
