"""One log and its readers in one process, against a queue for each reader.

* **log**: ``EventLog.append`` of one event, read by ``READERS`` tasks with a ``Follower`` each, to the end.
* **queues**: a list of bounded ``asyncio.Queue``, one a reader; the writer puts each event into all of them.

Both append one event and then yield to the loop, and each reader adds up the sizes of its events. The figure is the
process's CPU time in microseconds for one event and one reader; ``cheaper`` is the queues' over the log's. The append
row is the writer without readers: an entry and its accounting, and the packing of old entries.

The memory rows are the bytes that a log of so many pieces holds, by ``tracemalloc``: while it is open and followed,
with its newest frames, and after its end, without its reader.
"""

import asyncio
import gc
import time
import tracemalloc
from typing import Final

import msgspec
import uvloop

from actors.log.event_log import EventLog
from actors.log.follow import Follower
from actors.requests.stream import RequestStream
from benchmarks.harness import Comparison, Plan, Result, Row, Sample, interleave
from protocol.events import Completed, Delta, Entry
from protocol.websocket.out import DIALECT, tail

NAME: Final = "log"
READERS: Final = 100
EVENTS: Final = 500
APPENDS: Final = 20_000
PIECES: Final = (50, 1000, 20_000)
KIB: Final = 1024
EVENT: Final = Delta(text="token ")
END: Final = Completed(result=msgspec.Raw(b'{"text":""}'))


def run(plan: Plan) -> Result:
    """Measure both on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(plan))


async def _measure(plan: Plan) -> Result:
    events, appends = plan.scaled(EVENTS), plan.scaled(APPENDS)
    shared = await interleave(plan.rounds, {"queues": lambda: _queues(events), "log": lambda: _log(events)})
    alone = await interleave(plan.rounds, {"log": lambda: _append(appends)})
    comparison = Comparison(
        benchmark=NAME,
        case=f"one event to each of {READERS} readers",
        metric="us",
        unit="us CPU/read",
        baseline="queues",
        word="cheaper",
    )
    append = Row(benchmark=NAME, case="append, no reader", side="log", unit="us CPU", values=tuple(alone["log"]["us"]))
    held = [row for pieces in PIECES for row in await _memory_rows(plan, pieces)]
    return Result((*comparison.rows(shared), append, *held))


async def _memory_rows(plan: Plan, pieces: int) -> list[Row]:
    found = await interleave(min(plan.rounds, 2), {"log": lambda: _held(pieces)}, warm_up=False)
    return [
        Row(
            benchmark=NAME,
            case=f"{pieces} pieces held, {state}",
            side="log",
            unit="KiB",
            values=tuple(found["log"][state]),
        )
        for state in ("open", "ended")
    ]


async def _log(events: int) -> Sample:
    log = EventLog(max_bytes=16 * 1024 * 1024)
    stream = RequestStream("req_bench", log)

    async def read() -> int:
        total = 0
        async with Follower(stream) as follower:
            async for item in follower:
                if isinstance(item, Entry) and isinstance(item.event, Delta):
                    total += len(item.event.text)
        return total

    readers = [asyncio.create_task(read()) for _ in range(READERS)]
    await asyncio.sleep(0)
    start = time.process_time()
    for _ in range(events):
        log.append(EVENT)
        await asyncio.sleep(0)
    log.append(END)
    totals = await asyncio.gather(*readers)
    assert set(totals) == {events * len(EVENT.text)}
    return {"us": (time.process_time() - start) / events / READERS * 1e6}


async def _queues(events: int) -> Sample:
    queues = [asyncio.Queue[Delta | None](1024) for _ in range(READERS)]

    async def read(queue: asyncio.Queue[Delta | None]) -> int:
        total = 0
        while (event := await queue.get()) is not None:
            total += len(event.text)
        return total

    readers = [asyncio.create_task(read(queue)) for queue in queues]
    await asyncio.sleep(0)
    start = time.process_time()
    for _ in range(events):
        for queue in queues:
            await queue.put(EVENT)
        await asyncio.sleep(0)
    for queue in queues:
        await queue.put(None)
    totals = await asyncio.gather(*readers)
    assert set(totals) == {events * len(EVENT.text)}
    return {"us": (time.process_time() - start) / events / READERS * 1e6}


async def _append(count: int) -> Sample:
    log = EventLog(max_bytes=1024 * 1024)
    start = time.process_time()
    for _ in range(count):
        log.append(EVENT)
    return {"us": (time.process_time() - start) / count * 1e6}


async def _held(pieces: int) -> Sample:
    def wake() -> None: ...

    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    log = EventLog()
    log.listen(wake)
    for number in range(pieces):
        log.append(Delta(text=f"tok{number % 1000} "))
        log.since(number)[-1].frame(DIALECT, tail)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    log.append(END)
    log.unlisten(wake)
    gc.collect()
    ended, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"open": (held - before) / KIB, "ended": (ended - before) / KIB}
