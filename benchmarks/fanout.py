"""One log to 1,000 WebSockets: the whole service against an aiohttp server that awaits ``send_str`` in a loop.

Every ``INTERVAL`` seconds there is a tick with one event, or with sixteen.

* **send_str loop**: the event is encoded once, and each socket gets it by ``await socket.send_str(text)``. Events come
  from a timer in the same process.
* **tidegate**: the whole service: a request was submitted over HTTP, the upstream sends the tick's events in one write,
  they become entries of the request's log, and the hub delivers that log to the sockets that follow it. So reading the
  upstream is part of our figure, and of our figure only.

What is given is microseconds of the server's CPU time (all threads) for one event to one socket, from before the first
tick to after the last socket has the last event; ``cheaper`` is the loop's cost over ours. The clients are raw readers
in a process of their own; each one checks that it got every offset in order, how many frames it got, and which was the
last. Ticks are far enough apart for either side to be done before the next: a server that is behind would merge them.
A quick run has fewer ticks, not fewer sockets: with few of them what is done once for all of them weighs too much.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import aiohttp

from benchmarks.children import Child, child
from benchmarks.harness import Comparison, Goal, Plan, Result, Row, Sample, interleave
from benchmarks.limits import affordable_sockets

NAME: Final = "fanout"
KEY: Final = "bench-key-0123456789"
SOCKETS: Final = 1000
INTERVAL: Final = {1: 0.1, 16: 0.4}  # seconds between ticks, by events a tick
TICKS: Final = {1: 30, 16: 10}
GOALS: Final = {1: 1.4, 16: 10.0}
LOOP: Final = "send_str loop"
OURS: Final = "tidegate"

Ticker = Callable[[int, int, float], Awaitable[int]]


def run(plan: Plan) -> Result:
    """Measure one event a tick, and sixteen."""
    return asyncio.run(_measure(plan))


async def _measure(plan: Plan) -> Result:
    sockets = affordable_sockets(SOCKETS)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        upstream = await enter(child("upstream"))
        service = await enter(child("tidegate", upstream=upstream.hello["address"] + "/v1"))
        loop = await enter(child("send_str"))
        clients = await enter(child("sockets"))
        session = await enter(aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}))
        rows: list[Row] = []
        for events, goal in GOALS.items():
            ticks = max(3, plan.scaled(TICKS[events]))

            async def theirs(events: int = events, ticks: int = ticks) -> Sample:
                await clients.call("open", address=loop.hello["address"], key="", count=sockets)
                return await _deliver(loop, clients, loop, (ticks, events, INTERVAL[events]), sockets, around=0)

            async def ours(events: int = events, ticks: int = ticks) -> Sample:
                request_id = await _submit(session, service.hello["address"])
                where = {"address": service.hello["address"], "key": KEY, "request_id": request_id}
                await clients.call("open", count=sockets, **where)
                return await _deliver(service, clients, upstream, (ticks, events, INTERVAL[events]), sockets, around=2)

            figures = await interleave(plan.rounds, {LOOP: theirs, OURS: ours})
            comparison = Comparison(
                benchmark=NAME,
                case=f"{sockets} sockets, {events} event{'s' if events > 1 else ''} a tick",
                metric="us",
                unit="us CPU/event",
                baseline=LOOP,
                word="cheaper",
                goals={OURS: Goal("least", goal)},
            )
            rows += comparison.rows(figures)
        return Result(tuple(rows))


async def _submit(session: aiohttp.ClientSession, address: str) -> str:
    body = {
        "messages": [{"role": "user", "content": "bench-ticks"}],
        "model": "gpt-4o-mini",
        "options": {"dedupe": False},
    }
    async with session.post(address + "/api/requests", json=body) as answer:
        assert answer.status == 202, await answer.text()
        return str((await answer.json())["requestId"])


async def _deliver(
    server: Child, clients: Child, source: Child, ticks: tuple[int, int, float], sockets: int, *, around: int
) -> Sample:
    """Let ``source`` tick, wait for every client, and return what that cost the server.

    ``around`` is how many entries a log has beside the events: one that begins it, and one that ends it.
    """
    count, events, interval = ticks
    before = await server.call("usage")
    total = await _ticks(source, count, events, interval)
    got: dict[str, Any] = await clients.call("all_have", offset=total + around, limit=60.0)
    after = await server.call("usage")
    assert got == {"clients": sockets, "least": total + around, "most": total + around, "gaps": 0}, (
        f"{server.name}: {got}"
    )
    await clients.call("close")
    return {"us": (after["cpu"] - before["cpu"]) / total / sockets * 1e6}


async def _ticks(source: Child, count: int, events: int, interval: float) -> int:
    return int(await source.call("ticks", count=count, events=events, interval=interval))
