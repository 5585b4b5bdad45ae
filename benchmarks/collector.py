"""The garbage collector's passes while requests are in flight: for each of them the whole process stands still.

Requests are submitted, sent upstream and not answered. Each figure is the longest pass until all of them are in flight.

* **frozen**: as ``serve`` runs: what has survived two passes is looked at when nothing runs.
* **thresholds alone**: the same service with thresholds of 20,000, 20 and 50 in the place of that.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final

import aiohttp

from benchmarks.children import child
from benchmarks.harness import Goal, Plan, Result, Row, Sample, interleave
from benchmarks.limits import affordable_sockets
from benchmarks.memory import submit
from benchmarks.proxying import KEY

NAME: Final = "collector"
REQUESTS: Final = 10_000
THRESHOLDS: Final = (20_000, 20, 50)
SHORT: Final = Goal("most", 50.0)  # ms


def run(plan: Plan) -> Result:
    """Measure in fewer rounds, because each side is a process of its own."""
    return asyncio.run(_measure(plan))


async def _measure(plan: Plan) -> Result:
    count = affordable_sockets(plan.scaled(REQUESTS))
    figures = await interleave(
        min(plan.rounds, 3),
        {
            "thresholds alone": lambda: _longest(count, gc_thresholds=THRESHOLDS),
            "frozen": lambda: _longest(count),
        },
        warm_up=False,
    )
    rows = [
        Row(
            benchmark=NAME,
            case=f"longest pass, {count} requests in flight",
            side=side,
            unit="ms",
            values=tuple(metrics["ms"]),
            goal=SHORT if side == "frozen" else None,
        )
        for side, metrics in figures.items()
    ]
    return Result(tuple(rows))


async def _longest(count: int, **options: Any) -> Sample:  # noqa: ANN401 - settings
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        upstream = await enter(child("upstream"))
        service = await enter(
            child(
                "tidegate",
                upstream=upstream.hello["address"] + "/v1",
                provider_concurrency=count,
                first_token_timeout_seconds=600.0,
                **options,
            )
        )
        session = await enter(aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}))
        await submit(session, service.hello["address"] + "/api/requests", 0, count)
        passes = await service.call("passes")
        return {"ms": max(milliseconds for _, milliseconds, _ in passes)}
