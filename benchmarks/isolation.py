"""The effect of a failing provider on the requests to another provider.

The whole service has two providers. ``CALLERS`` callers call the first one, each again ``PAUSE`` seconds after its
answer; they are more than its concurrency and its queue allow. Meanwhile requests to the second one are timed by their
client, at a rate that leaves the service idle time. The sides take turns:

* **alone**: no calls to the first provider.
* **answers**: it answers well: the cost of sharing the process and the machine.
* **429**: it limits the rate, with a vendor's rate limit headers, which the service obeys.
* **bare 429**: it refuses with ``Retry-After`` only, so that every call is made.
* **stalls**: it accepts requests and never answers.
* **refuses**: its address refuses connections.

The first provider, both kinds of callers and the service are processes of their own. ``cost`` is a figure over that of
**alone**; the difference between a failing provider and **answers** is the effect of the failure. To tell load from
failure, the table also has the answers a second of the first provider's callers, and the service's share of a core.
"""

import asyncio
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.children import Child, child
from benchmarks.harness import Comparison, Plan, Result, Row, Sample, Side, interleave

NAME: Final = "isolation"
KEY: Final = "bench-key-0123456789"
ALONE: Final = "alone"
SIDES: Final = {
    "answers": "well",
    "429": "limiting",
    "bare 429": "refusing",
    "stalls": "stalling",
    "refuses": "deaf",
}
METRICS: Final = {
    "p50": ("another provider's requests, p50", "ms"),
    "p99": ("another provider's requests, p99", "ms"),
    "cpu": ("the service's share of a core", "%"),
}
CALLERS: Final = 64
PLACES: Final = 16
QUEUE: Final = 32
PAUSE: Final = 1.0  # seconds
SETTLED: Final = 1.5  # seconds until the load is steady
COUNT: Final = 1000
LEAST: Final = 200  # with fewer, a 99th percentile is one request
CONNECTIONS: Final = 4
PACE: Final = 0.02  # seconds from an answer to the next request on its connection
NOBODY: Final = "http://127.0.0.1:9"  # the discard port
NOTE: Final = f"isolation: {CALLERS} callers on the provider in trouble, {CONNECTIONS} connections on the other one"


def run(plan: Plan) -> Result:
    """Measure each side."""
    return asyncio.run(_measure(plan))


async def _measure(plan: Plan) -> Result:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        upstream = await enter(child("upstream"))
        trouble = await enter(child("trouble"))
        routes = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "routes.toml"
        routes.write_text(_routes(upstream.hello["address"], trouble.hello["address"]), encoding="utf-8")
        service = await enter(child("tidegate", upstream=upstream.hello["address"] + "/v1", routes_file=str(routes)))
        address = service.hello["address"]
        clients = await enter(child("asking", address=address, key=KEY))
        pressure = await enter(child("asking", address=address, key=KEY))

        def side(provider: str) -> Side:
            return partial(_measured, service, clients, pressure, provider, plan)

        sides = {name: side(provider) for name, provider in SIDES.items()}
        figures = await interleave(plan.rounds, {ALONE: side(""), **sides})
    rows = [row for metric in METRICS for row in _comparison(metric).rows(figures)]
    return Result((*rows, *_answers(figures)), (NOTE,))


async def _measured(service: Child, clients: Child, pressure: Child, provider: str, plan: Plan) -> Sample:
    if not provider:
        return await _beside(service, clients, plan)
    begun = time.monotonic()
    await pressure.call("press", model=f"{provider}/m", callers=CALLERS, pause=PAUSE)
    await asyncio.sleep(SETTLED)
    timed = await _beside(service, clients, plan)
    ended: dict[str, int] = await pressure.call("release")
    return {**timed, "answers": sum(ended.values()) / (time.monotonic() - begun)}


async def _beside(service: Child, clients: Child, plan: Plan) -> Sample:
    before, began = await service.call("usage"), time.monotonic()
    timed = await _timed(clients, plan)
    after, took = await service.call("usage"), time.monotonic() - began
    return {**timed, "cpu": (after["cpu"] - before["cpu"]) / took * 100}


async def _timed(clients: Child, plan: Plan) -> Sample:
    asked: dict[str, Any] = {
        "model": "other/m",
        "count": max(LEAST, plan.scaled(COUNT)),
        "connections": CONNECTIONS,
        "pause": PACE,
    }
    timed: Mapping[str, float] = await clients.call("measure", **asked)
    return timed


def _routes(upstream: str, trouble: str) -> str:
    named = ("well", "limiting", "refusing", "stalling")
    addresses = {"other": upstream, **{name: f"{trouble}/{name}" for name in named}, "deaf": NOBODY}
    table = '[providers.{}]\nkind = "openai"\nbase_url = "{}/v1"\nconcurrency = {}\nqueue = {}\n'
    return "\n".join(table.format(name, address, PLACES, QUEUE) for name, address in addresses.items())


def _comparison(metric: str) -> Comparison:
    case, unit = METRICS[metric]
    return Comparison(benchmark=NAME, case=case, metric=metric, unit=unit, baseline=ALONE, word="cost")


def _answers(figures: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Row]:
    case = "the provider's callers: answers a second"
    return [
        Row(benchmark=NAME, case=case, side=side, unit="1/s", values=tuple(figures[side]["answers"])) for side in SIDES
    ]
