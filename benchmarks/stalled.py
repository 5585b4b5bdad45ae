"""The effect of 200 WebSocket clients that stop reading on 1,000 clients that read, and on the server.

All of them follow one stream of 50 events of ``WORD`` bytes a second, until it is twice as long as the kernels and the
server buffer for a client that does not read. The stalled clients ask for small buffers, so that the server notices.

* **p99** is the 99th percentile of the delay from an event's due time until one of the 1,000 has it; ``cost`` is the
  delay with stalled clients over the delay without. Every reader has to receive every event, in order.
* **memory** is the server's resident memory at the end of the first stream with stalled clients, minus that at the end
  of the first stream without, divided by their number: the cost of such a client with its socket.
* Then half of the stalled clients read again, and have to reach the end without a gap, by merged frames. The others
  stall for longer than the server's limit, and have to be closed; they reconnect, each from its position, and have to
  reach the end without a gap too.
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
MORE: Final = Goal("most", HIGH_WATER / 1024 + 33)  # KiB: its buffer, one more write, and the socket itself
GRACE: Final = 3.0  # seconds after the limit: the server has noticed, and waits until the close frame is read
NO_MORE: Final = 60.0  # seconds


class Stage:
    """The processes of one measurement."""

    def __init__(self, upstream: Child, service: Child, session: aiohttp.ClientSession, readers: int) -> None:
        self._upstream = upstream
        self._service = service
        self._session = session
        self._readers = readers

    async def alone(self) -> Sample:
        """Deliver to the readers alone."""
        return await self._deliver(await submit(self._session, self._address))

    async def beside(self) -> Sample:
        """Deliver beside stalled clients, and let half of them read again at the end."""
        request_id = await submit(self._session, self._address)
        async with child("stalled", address=self._address, key=KEY, request_id=request_id) as stalled:
            await stalled.call("open", count=SILENT)
            sample = await self._deliver(request_id)
            resumed: dict[str, int] = await stalled.call("resume", offset=LAST, limit=NO_MORE)
            assert resumed == {"clients": SILENT // 2, "gaps": 0, "merged": SILENT // 2}, resumed
        return sample

    async def closed(self) -> dict[str, int]:
        """Deliver once more, and return the number of stalled clients closed with each code."""
        request_id = await submit(self._session, self._address)
        async with child("stalled", address=self._address, key=KEY, request_id=request_id) as stalled:
            await stalled.call("open", count=SILENT)
            start = time.monotonic()
            await self._upstream.call("ticks", count=TICKS, events=EVENTS, interval=0.01, word=WORD)
            await asyncio.sleep(start + STALL_LIMIT + GRACE - time.monotonic())
            codes: dict[str, int] = await stalled.call("close_codes", limit=NO_MORE)
            reconnected: dict[str, int] = await stalled.call("reconnect", offset=LAST, limit=NO_MORE)
            assert (reconnected["clients"], reconnected["gaps"]) == (SILENT - SILENT // 2, 0), reconnected
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
    """Measure with and without stalled clients, in fewer rounds, because each takes several seconds."""
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
    closed = ", ".join(f"{count} with {code}" for code, count in sorted(codes.items()))
    note = f"of {SILENT // 2} that stayed silent were closed: {closed}; all came back and got the rest without a gap"
    return Result((*slowest.rows(figures), memory), (note,))
