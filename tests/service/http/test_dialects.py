"""The common part of the vendors' dialects over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from actors.log.event_log import EventLog
from actors.log.follow import Follower
from actors.requests.stream import RequestStream
from protocol.anthropic.answer import MessagesEventEncoder
from protocol.events import Delta, Started
from protocol.openai.answer import ChunkEncoder
from service.http import sse
from service.http.dialects import StreamEncoder, encoded
from tests.service.bench import CHAT, Service, open_service

BODY: dict[str, Any] = CHAT | {"temperature": 0, "max_tokens": 9}
PATHS = ("/v1/chat/completions", "/v1/messages")


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with a gateway that the test scripts."""
    async with open_service() as running:
        yield running


@pytest.mark.parametrize(
    "make", [lambda: ChunkEncoder("req_1", 1, "m"), lambda: MessagesEventEncoder("req_1", "m", "call_1")]
)
async def test_a_reader_that_was_left_behind_is_told_so(make: Callable[[], StreamEncoder]) -> None:
    """No dialect can retract sent content, so a snapshot is only for a reader that has nothing yet."""
    log = EventLog(max_bytes=1000)
    log.append(Started(model="m", created=1))
    encoder = make()
    async with Follower(RequestStream("req_1", log)) as follower:
        await follower.next()
        log.extend(Delta(text="x" * 100) for _ in range(20))
        batch = await follower.next()
    assert batch is not None
    data, last = encoded(encoder, batch, begun=False)
    assert (b'"%b"' % (b"x" * 2000) in data, last) == (True, False)
    data, last = encoded(encoder, batch, begun=True)
    assert (b'"slow_consumer"' in data, last) == (True, True)


async def test_the_same_question_in_another_dialect_is_the_same_question(service: Service) -> None:
    """The answer is replayed in the dialect of each caller."""
    first = asyncio.ensure_future(service.post(PATHS[0], BODY))
    call = await service.call()
    await call.say("Hel", "lo")
    await call.end()
    assert (await first).headers["x-tidegate-source"] == "upstream"
    for path in PATHS:
        for stream in (True, False):
            later = await service.post(path, BODY | {"stream": stream})
            assert (later.status, later.headers["x-tidegate-source"]) == (200, "cache")
            assert ('"Hel"' if stream else '"Hello"') in await later.text()
    assert service.calls.empty()


@pytest.mark.parametrize("path", PATHS)
async def test_a_switch_that_is_misspelt_is_refused(service: Service, path: str) -> None:
    """A header with an unknown value is refused."""
    for header in ("x-tidegate-dedupe", "x-tidegate-on-abandon"):
        response = await service.post(path, BODY, **{header: "maybe"})
        assert (response.status, header in await response.text()) == (400, True)


@pytest.mark.parametrize("path", PATHS)
async def test_who_has_only_had_pings_can_still_be_told_everything(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content beyond the log's ring reaches a client that waits for the first content, merged."""
    monkeypatch.setattr(sse, "PING_INTERVAL", 0.001)
    async with open_service(log_max_bytes=65_536) as service:
        wire = await service.connect("POST", path, BODY | {"stream": True})
        await wire.headers()
        call = await service.call()
        await call.tell(*(Delta(text="x" * 10_000) for _ in range(20)))
        await call.end()
        said = b""
        while chunk := await wire.chunk():
            said += chunk
        await wire.leave()
    assert b'"%b"' % (b"x" * 200_000) in said
    assert b"error" not in said
