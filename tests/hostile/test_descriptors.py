"""A process with few descriptors: idle clients stop no call, and a want of descriptors blames no provider."""

import asyncio
import resource
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from actors.testing import Say, ScriptedUpstream, Stall, say
from actors.testing.script import Reply
from service import descriptors
from service.descriptors import UNLIMITED, Descriptors, raise_limit
from tests.service.server.process import Served, serve

KEY = "a-key-of-16-chars"
HEADERS = {"Authorization": f"Bearer {KEY}"}
FEW = 256
IDLE = 300
SOON = 40.0  # seconds


def body(number: int = 0, **changes: object) -> dict[str, Any]:
    """Return a request that no other one shares."""
    return {"model": "default", "messages": [{"role": "user", "content": f"hi {number}"}], **changes}


async def call(client: aiohttp.ClientSession, number: int = 0) -> tuple[int, str]:
    """Make a call; returns its status and the code of its failure."""
    async with client.post("/v1/chat/completions", json=body(number), headers=HEADERS) as response:
        answer = await response.json()
        return response.status, answer.get("error", {}).get("code", "")


async def checks(client: aiohttp.ClientSession) -> dict[str, Any]:
    """Return the checks of health."""
    async with client.get("/api/health", headers=HEADERS) as response:
        return (await response.json())["checks"]  # type: ignore[no-any-return]


async def rest_of_log(served: Served) -> list[str]:
    """Stop the server, and return the events of its log."""
    served.stop()
    await served.logged("stopped")
    await served.process.wait()
    return [line["event"] for line in served.lines]


async def test_idle_clients_stop_no_call(root: Path, upstream: ScriptedUpstream) -> None:
    """With 256 descriptors and 300 clients that send nothing, calls are answered, and health says what is left."""
    upstream.script(*[say("Hello")] * 21)
    async with serve(root, upstream, FEW, API_KEYS=KEY) as served, AsyncExitStack() as stack:
        port = int(served.address.rpartition(":")[2])
        for _ in range(IDLE):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
        full = await served.logged("connections_full")
        assert (full["level"], full["action"]) == ("warning", "evicted")
        assert full["open"] <= Descriptors(FEW).ceiling
        async with aiohttp.ClientSession(served.address, connector=aiohttp.TCPConnector(limit=0)) as client:
            answers = await asyncio.gather(*(call(client, number) for number in range(20)))
            assert answers == [(200, "")] * 20
            found = await checks(client)
            assert found["connections"]["status"] == "degraded"
            assert f"of {FEW} descriptors" in found["connections"]["detail"]
            assert found["provider"]["status"] == "ok"
        events = await rest_of_log(served)
    assert events.count("connections_full") == 1
    assert not {"breaker_changed", "attempt_failed", "call_failed"} & set(events)


async def test_calls_without_a_descriptor_are_our_own_failure(root: Path, upstream: ScriptedUpstream) -> None:
    """They are ``overloaded``, the breaker stays closed, and calls work as soon as there is room."""
    running = 70
    upstream.default = Reply(steps=(Say(text="He"), Stall()))
    options = {"API_KEYS": KEY, "PROVIDER_CONCURRENCY": "500", "ABANDON_GRACE_SECONDS": "0"}
    async with (
        serve(root, upstream, 128, **options) as served,
        aiohttp.ClientSession(
            served.address,
            connector=aiohttp.TCPConnector(limit=0),
            headers={**HEADERS, "x-tidegate-on-abandon": "cancel"},
        ) as client,
        asyncio.timeout(SOON),
    ):
        answers = await asyncio.gather(
            *(client.post("/v1/chat/completions", json=body(number, stream=True)) for number in range(running))
        )
        refused = [answer for answer in answers if answer.status != 200]
        assert refused
        for answer in refused:
            assert answer.status == 503
            assert (await answer.json())["error"]["code"] in {"overloaded", "connection_limit"}
        found = await checks(client)
        assert found["provider"]["status"] == "ok"
        upstream.default = say("Hello")
        for answer in answers:
            answer.close()
        while (await call(client))[0] != 200:
            pass
        assert (await checks(client))["provider"]["status"] == "ok"
        events = await rest_of_log(served)
    assert events.count("resources_exhausted") == 1
    assert "breaker_changed" not in events


@pytest.mark.parametrize("limit", [0, 3, 40, 64, 256, 1024, 65_536, UNLIMITED])
def test_a_share_is_kept(limit: int) -> None:
    """A quarter, at least 32 and at most half."""
    found = Descriptors(limit)
    assert found.ceiling + found.reserved == limit
    assert found.reserved <= limit / 2
    assert found.reserved >= min(32, limit // 2)


@pytest.mark.parametrize(
    ("soft", "hard", "most", "after"),
    [
        (256, 4096, 1 << 30, 4096),
        (4096, 4096, 1 << 30, 4096),
        (256, resource.RLIM_INFINITY, descriptors.OPEN_MAX, descriptors.OPEN_MAX),
        (256, 4096, 100, 256),
    ],
)
def test_the_limit_is_raised(soft: int, hard: int, most: int, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the hard one, or as far as the system allows where there is none."""
    now = [soft, hard]

    def set_limit(_: int, limits: tuple[int, int]) -> None:
        if not 0 <= limits[0] <= most:
            raise ValueError("not allowed to raise maximum limit")
        now[:] = limits

    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(now))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    assert raise_limit() == (soft, after)


def test_what_is_left_is_counted() -> None:
    """With an open file one less is left."""
    limit = Descriptors(UNLIMITED)
    before = limit.left()
    with Path(__file__).open():
        during = limit.left()
    assert before is not None
    assert during == before - 1
    assert limit.few(0)
    assert not limit.few(limit.reserved)
    assert not limit.few(None)
