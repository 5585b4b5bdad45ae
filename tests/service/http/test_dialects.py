"""The common part of the vendors' dialects over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from protocol.events import Delta
from service.http import sse
from tests.service.bench import CHAT, Service, open_service

BODY: dict[str, Any] = CHAT | {"temperature": 0, "max_tokens": 9}
PATHS = ("/v1/chat/completions", "/v1/messages")


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with a gateway that the test scripts."""
    async with open_service() as running:
        yield running


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
async def test_content_that_outgrows_the_log_at_once_comes_piece_by_piece(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that has had only pings gets every piece, also the pieces that are packed by then."""
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
    assert said.count(b'"%b"' % (b"x" * 10_000)) == 20
    assert b"error" not in said
