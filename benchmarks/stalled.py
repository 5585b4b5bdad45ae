"""1,000 WebSockets that read, and beside them 200 that never do: what those cost the others and the server.

One stream of 50 events of ``WORD`` bytes a second goes to all of them, until there is twice as much as the kernels
and the server hold for a client that does not read. The clients that don't read ask for small buffers, so that
it is the server that notices.

* **p99** is the 99th percentile of the time from when an event was due to when one of the 1,000 had it; ``cost`` is
  that with the others over that without. Every reader has to have every event, in order.
* **memory** is how much more the server had resident at the end of a stream with them than at the end of the one
  without them before it, both the first of their process, over their number: all that such a client costs, its socket
  included.
* Then half of the silent ones read again, and have to come to the end without a gap: what they missed comes merged. The
  others are silent for longer than the server bears, and have to find themselves closed; they connect anew, each from
  where it was, and have to come to the end without a gap, too.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any, Final

import aiohttp

from actors.delivery.fanout import STALL_LIMIT
from actors.subscription_hub import HIGH_WATER
from benchmarks.children import Child, child
from benchmarks.fanout import KEY, LEAD, submit, subscribe_text
from benchmarks.harness import Comparison, Goal, Plan, Result, Row, Sample, interleave
from benchmarks.limits import affordable_sockets

NAME: Final = "stalled"
READERS: Final = 1000
SILENT: Final = 200
WORD: Final = "x" * 1000
EVENTS: Final = 16  # a tick
INTERVAL: Final = 0.32  # seconds
TICKS: Final = 20
MAX_ROUNDS: Final = 3
ALONE: Final = "readers alone"
BESIDE: Final = "with silent ones"
MORE: Final = Goal("most", HIGH_WATER / 1024 + 33)  # KiB: what it may have buffered, a write on top, the socket itself
GRACE: Final = 3.0  # seconds after the limit in which the server has noticed, and still waits for the close to be read
NO_MORE: Final = 60.0  # seconds


class Stage:
    """The processes of one measurement."""

    def __init__(self, upstream: Child, service: Child, session: aiohttp.ClientSession, readers: int) -> None:
        self._upstream = upstream
        self._service = service
        self._session = session
        self._readers = readers

    async def alone(self) -> Sample:
        """Deliver to those who read."""
        return await self._deliver(await submit(self._session, self._address))

    async def beside(self) -> Sample:
        """Deliver while others don't read, and let half of those read in the end."""
        request_id = await submit(self._session, self._address)
        async with child("deaf", address=self._address, key=KEY, request_id=request_id) as deaf:
            await deaf.call("open", count=SILENT)
            sample = await self._deliver(request_id)
            heard: dict[str, int] = await deaf.call("hear", offset=LAST, limit=NO_MORE)
            assert heard == {"clients": SILENT // 2, "gaps": 0, "merged": SILENT // 2}, heard
        return sample

    async def closed(self) -> dict[str, int]:
        """Deliver once more, and return how many of those who stay silent were closed with which code."""
        request_id = await submit(self._session, self._address)
        async with child("deaf", address=self._address, key=KEY, request_id=request_id) as deaf:
            await deaf.call("open", count=SILENT)
            start = time.monotonic()
            await self._upstream.call("ticks", count=TICKS, events=EVENTS, interval=0.01, word=WORD)
            await asyncio.sleep(start + STALL_LIMIT + GRACE - time.monotonic())
            codes: dict[str, int] = await deaf.call("ends", limit=NO_MORE)
            back: dict[str, int] = await deaf.call("come_back", offset=LAST, limit=NO_MORE)
            assert (back["clients"], back["gaps"]) == (SILENT - SILENT // 2, 0), back
            await self._upstream.call("finish")
        return codes

    @property
    def _address(self) -> str:
        return str(self._service.hello["address"])

    async def _deliver(self, request_id: str) -> Sample:
        async with child("sockets") as clients:
            first = subscribe_text(request_id)
            await clients.call("open", address=self._address, key=KEY, count=self._readers, first=first)
            start = float(await self._upstream.call("ticks", count=TICKS, events=EVENTS, interval=INTERVAL, word=WORD))
            got: dict[str, Any] = await clients.call("all_have", offset=LAST, limit=NO_MORE)
            assert got == {"clients": self._readers, "least": LAST, "most": LAST, "gaps": 0}, got
            after = await self._service.call("usage", collect=True)
            due = [start + event // EVENTS * INTERVAL for event in range(TICKS * EVENTS)]
            delays: dict[str, float] = await clients.call("delays", due=due, lead=LEAD)
            await self._upstream.call("finish")
        return {"p99": delays["p99"] * 1e3, "kib": after["rss"] / 1024}


LAST: Final = LEAD + TICKS * EVENTS


def run(plan: Plan) -> Result:
    """Measure with and without; the rounds are fewer, since each is several seconds of stream."""
    return asyncio.run(_measure(plan))


async def _measure(plan: Plan) -> Result:
    readers = affordable_sockets(READERS + SILENT) - SILENT
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        upstream = await enter(child("upstream"))
        service = await enter(child("tidegate", upstream=upstream.hello["address"] + "/v1"))
        session = await enter(aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}))
        stage = Stage(upstream, service, session, readers)
        without, beside = await stage.alone(), await stage.beside()
        sides = {ALONE: stage.alone, BESIDE: stage.beside}
        figures = await interleave(min(plan.rounds, MAX_ROUNDS), sides, warm_up=False)
        codes = await stage.closed()
    slowest = Comparison(
        benchmark=NAME,
        case=f"{readers} readers, {SILENT} that don't read",
        metric="p99",
        unit="ms p99",
        baseline=ALONE,
        word="cost",
    )
    more = (beside["kib"] - without["kib"]) / SILENT
    memory = Row(
        benchmark=NAME, case=f"memory for each of {SILENT}", side=BESIDE, unit="KiB", values=(more,), goal=MORE
    )
    said = ", ".join(f"{count} with {code}" for code, count in sorted(codes.items()))
    note = f"of {SILENT // 2} that stayed silent were closed: {said}; all came back and got the rest without a gap"
    return Result((*slowest.rows(figures), memory), (note,))
