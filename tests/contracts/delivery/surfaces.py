"""Each way to follow a request from a position, to another or to the end, over real connections."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final

from aiohttp import ClientWebSocketResponse, WSMsgType

from actors.log.follow import follow
from protocol.events import Entry, EventStream, Position, Snapshot
from protocol.requests import GetRequest
from protocol.websocket.out import snapshot_json, update_json
from tests.service.bench import Service

Frame = dict[str, Any]
Frames = AsyncGenerator[Frame, None]
Surface = Callable[[Service, str, Position | None], Frames]


class RefusedError(Exception):
    """The position is refused."""


async def plain(service: Service, request_id: str, after: Position | None) -> Frames:
    """Over the socket."""
    async for frame in _socket(service, {"requestId": request_id, "mode": "replay"}, after):
        yield frame


async def batch(service: Service, request_id: str, after: Position | None) -> Frames:
    """Over the socket, with all frames of a tick in one message."""
    async for frame in _socket(service, {"requestId": request_id, "mode": "replay", "batch": True}, after):
        yield frame


async def events(service: Service, request_id: str, after: Position | None) -> Frames:
    """Over server-sent events."""
    async for frame in _events(service, request_id, "" if after is None else f"?after={after}", {}):
        yield frame


async def polls(service: Service, request_id: str, after: Position | None) -> Frames:
    """By long polls."""
    ended = False
    while not ended:
        query = "?wait=50" if after is None else f"?wait=50&after={after}"
        response = await service.get(f"/api/requests/{request_id}/events{query}", Accept="application/json")
        _check(response.status)
        news = await response.json()
        after, ended = Position(**news["position"]), news["ended"]
        for frame in news["events"]:
            yield frame


async def in_process(service: Service, request_id: str, after: Position | None) -> Frames:
    """By ``async for``."""
    handle = await service.container.router.ask(GetRequest(request_id), timeout=5)
    async with follow(handle.stream, after, "replay") as follower:
        async for item in follower:
            yield json.loads(_frame(handle.stream, item))


async def forgiving(service: Service, request_id: str, after: Position | None) -> Frames:
    """Over the socket, with a snapshot rather than a refusal."""
    async for frame in _socket(service, {"requestId": request_id}, after):
        yield frame


async def reconnecting(service: Service, request_id: str, after: Position | None) -> Frames:
    """Over server-sent events, as an ``EventSource`` reconnects."""
    async for frame in _events(service, request_id, "", {} if after is None else {"Last_Event_ID": str(after)}):
        yield frame


EXACT: Final[dict[str, Surface]] = {
    "socket": plain,
    "batch": batch,
    "after": events,
    "long poll": polls,
    "in process": in_process,
}
FORGIVING: Final[dict[str, Surface]] = {"socket": forgiving, "Last-Event-ID": reconnecting}
SURFACES: Final = EXACT | {f"forgiving {name}": surface for name, surface in FORGIVING.items()}


async def read(
    surface: Surface, service: Service, request_id: str, after: Position | None, until: int = 0
) -> list[Frame]:
    """Return the frames after a position, up to an offset, or up to the end."""
    frames = []
    async with aclosing(surface(service, request_id, after)) as coming:
        async for frame in coming:
            frames.append(frame)
            if until and frame["offset"] >= until:
                break
    return frames


async def _socket(service: Service, subscribe: Frame, after: Position | None) -> Frames:
    async with service.client.ws_connect(f"{service.base}/ws") as socket:
        place = {} if after is None else {"after": {"epoch": after.epoch, "offset": after.offset}}
        await socket.send_json({"type": "subscribe", "id": 1, **subscribe, **place})
        async for frame in _heard(socket, batch=subscribe.get("batch", False)):
            if frame.get("error", {}).get("code") == "unrecoverable_position":
                raise RefusedError
            if frame["type"] == "ack":
                data = frame["data"]
                if after is not None and (data["state"], data["offset"]) == ("completed", after.offset):
                    return
                continue
            yield frame
            if frame["type"] in {"complete", "error"}:
                return


async def _heard(socket: ClientWebSocketResponse, *, batch: bool) -> Frames:
    while (message := await socket.receive()).type is WSMsgType.TEXT:
        for line in message.data.split("\n") if batch else [message.data]:
            yield json.loads(line)


async def _events(service: Service, request_id: str, query: str, headers: dict[str, str]) -> Frames:
    response = await service.follow(request_id, query, **headers)
    async with response:
        _check(response.status)
        kept = b""
        async for chunk in response.content.iter_any():
            *blocks, kept = (kept + chunk.replace(b": ping\n", b"")).split(b"\n\n")
            for block in blocks:
                yield json.loads(block.partition(b"data: ")[2])


def _frame(stream: EventStream, item: Entry | Snapshot) -> bytes:
    if isinstance(item, Snapshot):
        return snapshot_json(stream.request_id, stream.epoch, item)
    return update_json(stream.request_id, item)


def _check(status: int) -> None:
    if status == 410:
        raise RefusedError
