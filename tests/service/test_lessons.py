"""Failures of other gateways, tested over real connections: streams that an SDK can't parse, slow readers."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from service.http import sse
from tests.service.bench import CHAT, Service, open_service

STREAMS: Mapping[str, Mapping[str, Any]] = {
    "/v1/chat/completions": CHAT | {"stream": True},
    "/v1/messages": CHAT | {"stream": True, "max_tokens": 50},
    "/v1/responses": {"model": "m", "input": "hi", "stream": True},
}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with a gateway that the test scripts."""
    async with open_service() as running:
        yield running


@pytest.mark.parametrize("path", STREAMS)
async def test_a_vendor_s_stream_has_neither_ids_nor_empty_events(
    service: Service, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Some decoders parse an `id:` or a comment followed by a blank line as an event without data."""
    monkeypatch.setattr(sse, "PING_INTERVAL", 0.001)
    wire = await service.connect("POST", path, STREAMS[path])
    await wire.headers()
    came = [await wire.chunk() for _ in range(3)]
    call = await service.call()
    await call.say("Hel")
    while b"Hel" not in came[-1]:
        came.append(await wire.chunk())
    await call.say("lo")
    await call.end()
    while came[-1]:
        came.append(await wire.chunk())
    await wire.leave()
    text = b"".join(came).decode()
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    for block in blocks:
        lines = [line for line in block.split("\n") if not line.startswith(":")]
        assert lines, text
        assert {line.partition(":")[0] for line in lines} <= {"event", "data"}
        assert lines[-1].startswith("data: ")


async def test_frames_are_not_compressed(service: Service) -> None:
    """An offer of compression is declined: it costs memory for each socket, and time."""
    async with service.client.get(service.base + "/ws", headers=UPGRADE) as response:
        assert response.status == 101
        assert "Sec-WebSocket-Extensions" not in response.headers
