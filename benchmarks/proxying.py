"""The cost of proxying a chat completion: the whole service against a bare aiohttp proxy.

All servers get the same upstream and the same load, one server at a time, each in a process of its own, on uvloop:

* **bare proxy**: reads the body, sends it upstream, returns the answer. No key, no decoding, no log.
* **bare proxy, streamed upstream**: the same, but it always asks the upstream for a stream and joins the pieces for a
  unary call, as Tidegate does: the least cost of that design. For unary calls only.
* **tidegate**: the whole service: the key is checked, the body is decoded and fingerprinted, the cache and the calls in
  flight are looked up, the answer is a stored log that can be followed, the access log is written as JSON. Tracing is
  off.
* **tidegate, tracing**: the same with spans exported over OTLP to a receiver that drops them; the export's thread is
  part of the CPU time.

**CPU ms/call** is the CPU time of the server's process, all threads, over the calls of the round; **calls/s** is wall
time on one machine shared by server, upstream and load, so it is less reliable. All calls differ from each other, so
none is joined or comes from the cache, except in two rows: ``same call again`` is answered from the cache, ``joined``
is one upstream call for many equal concurrent calls.

Where ``perf`` may count, a row of user instructions for each call follows: the steadiest figure.
"""

import asyncio
import itertools
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Final

from benchmarks.children import Child, child
from benchmarks.harness import Comparison, Goal, Plan, Result, Row, Sample, Side, interleave
from benchmarks.instructions import Instructions, countable

NAME: Final = "proxying"
KEY: Final = "bench-key-0123456789"
BARE: Final = "bare proxy"
FLOOR: Final = "bare proxy, streamed upstream"
OURS: Final = "tidegate"
TRACED: Final = "tidegate, tracing"
CONNECTIONS: Final = (1, 16, 64)
CALLS: Final = {"short": 1000, "long": 300}
CASES: Final = {"short": "unary", "long": "50-chunk stream"}
FIGURES: Final = {"cpu": "CPU ms/call", "instructions": "M instr/call", "rate": "calls/s"}
NOTE: Final = (
    "proxying: tidegate always streams from the upstream, so for its unary calls the upstream sends a short SSE stream "
    "(role and one chunk, then the end), and for the bare proxy's one JSON body."
)


class Load:
    """Makes calls to one server after the other, with distinct calls in each run."""

    def __init__(self, process: Child, *, counting: bool = False) -> None:
        self._process = process
        self._counting = counting
        self._labels: Iterator[int] = itertools.count()

    async def call(self, server: Child, kind: str, connections: int, count: int, *, share: int = 1) -> Sample:
        """Make the calls of one round, and return the server's cost.

        Raises:
            AssertionError: an answer was wrong.
        """
        before = await server.call("usage")
        async with Instructions(server.pid if self._counting else None) as counted:
            result = await self._process.call(
                "call",
                address=server.hello["address"],
                key=KEY,
                connections=connections,
                kind=kind,
                count=count,
                share=share,
                label=f"run{next(self._labels)}",
            )
        after = await server.call("usage")
        assert not result["failed"], f"{server.name}: {result['failed']} of {count} calls failed: {result['failure']}"
        sample = {"cpu": (after["cpu"] - before["cpu"]) / count * 1e3, "rate": count / result["seconds"]}
        return sample if counted.total is None else {**sample, "instructions": counted.total / count / 1e6}


def run(plan: Plan) -> Result:
    """Measure every kind of call with each number of connections."""
    return asyncio.run(_measure(plan))


async def _measure(plan: Plan) -> Result:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        upstream = await enter(child("upstream"))
        address = upstream.hello["address"]
        servers = {
            BARE: await enter(child("bare_proxy", upstream=address + "/v1")),
            FLOOR: await enter(child("bare_proxy", upstream=address + "/v1", streamed=True)),
            OURS: await enter(child("tidegate", upstream=address + "/v1")),
            TRACED: await enter(child("tidegate", upstream=address + "/v1", otel_exporter_otlp_endpoint=address)),
        }
        load = Load(await enter(child("load")), counting=await countable())
        rows: list[Row] = []
        for kind, calls in CALLS.items():
            for connections in CONNECTIONS:
                sides = _sides(load, servers, kind, connections, plan.scaled(calls))
                rows += _rows(f"{CASES[kind]}, {connections} conn", await interleave(plan.rounds, sides))
        for kind, calls in CALLS.items():
            for case, connections, share in (("same call again", 16, plan.scaled(calls)), ("joined", 64, 64)):
                count = plan.scaled(calls)
                before = await upstream.call("counted")
                figures = await interleave(
                    plan.rounds,
                    {
                        BARE: _side(load, servers[BARE], kind, connections, count, share),
                        OURS: _side(load, servers[OURS], kind, connections, count, share),
                    },
                )
                made = await upstream.call("counted") - before
                ours = made - count * (plan.rounds + 1)
                assert ours < count * (plan.rounds + 1), "nothing was shared"
                rows += _rows(f"{CASES[kind]}, {case}, {connections} conn", figures, goal=False)
    return Result(tuple(rows), (NOTE,))


def _sides(load: Load, servers: Mapping[str, Child], kind: str, connections: int, count: int) -> dict[str, Side]:
    return {
        name: _side(load, server, kind, connections, count, 1)
        for name, server in servers.items()
        if kind == "short" or name != FLOOR
    }


def _side(load: Load, server: Child, kind: str, connections: int, count: int, share: int) -> Side:
    return lambda: load.call(server, kind, connections, count, share=share)


def _rows(case: str, figures: dict[str, dict[str, list[float]]], *, goal: bool = True) -> list[Row]:
    rows: list[Row] = []
    for metric, unit in FIGURES.items():
        if metric not in figures[BARE]:
            continue
        comparison = Comparison(
            benchmark=NAME,
            case=case,
            metric=metric,
            unit=unit,
            baseline=BARE,
            word="rate" if metric == "rate" else "cost",
            goals={OURS: Goal("most", 2.0)} if goal and metric == "cpu" else {},
        )
        rows += comparison.rows(figures)
    return rows
