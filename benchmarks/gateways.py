"""The cost of proxying a chat completion: Tidegate, a bare proxy, LiteLLM's proxy and Portkey's gateway.

All servers get the same upstream and the same load, one server at a time:

* **bare proxy** and **tidegate**: as in ``proxying``, with the same features on: the key is checked, the body is
  decoded and fingerprinted, the cache and the calls in flight are looked up, the answer is a stored log that can be
  followed, the access log is written as JSON. Tracing is off.
* **LiteLLM**: its proxy with one worker and a master key; no database, no callbacks, its own prices.
* **Portkey**: its gateway on node. It checks no key and stores nothing.

**CPU ms/call** is the CPU time of the server's process and its children. For LiteLLM and Portkey it comes from
``/proc``, in ticks of 10 ms. These two get fewer calls a round, because they are slow: at least two a connection.

**First content** is the time from the request to the first word of a streamed answer, at the median and at the 99th
percentile of a round, minus the same time without a server between the load and the upstream. Everything runs on one
machine, and all connections call again at once, so at 16 and 64 streams it is mostly the time for the other streams.

LiteLLM and Portkey are installed on request only, see ``installed``. A note says which one is not available.
"""

import asyncio
import itertools
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import installed
from benchmarks.children import Child, child
from benchmarks.foreign import foreign, free_port
from benchmarks.harness import Comparison, Goal, Plan, Result, Row, Sample, Side, Word, interleave
from benchmarks.installed import UnavailableError

NAME: Final = "gateways"
KEY: Final = "bench-key-0123456789"
DIRECT: Final = "upstream"
BARE: Final = "bare proxy"
OURS: Final = "tidegate"
LITELLM: Final = "LiteLLM"
PORTKEY: Final = "Portkey"
CHEAPER: Final = {LITELLM: Goal("least", 20), PORTKEY: Goal("least", 3)}
CLOSE: Final = Goal("most", 1.6)
CONNECTIONS: Final = (1, 16, 64)
CALLS: Final = {"short": 1000, "long": 300}
CASES: Final = {"short": "unary", "long": "50-chunk stream"}
FEWER: Final = {LITELLM: 10, PORTKEY: 2}
NOTE: Final = (
    "gateways: tracing is off; tidegate always streams from the upstream, so for its unary calls the upstream sends a "
    "short SSE stream, and for the others' one JSON body."
)
LOOPBACK: Final = (
    "import net from 'node:net';"
    "const listen = net.Server.prototype.listen;"
    "net.Server.prototype.listen = function (port, host, ...rest) "
    "{ return listen.call(this, port, '127.0.0.1', ...rest.concat(host).filter((it) => typeof it === 'function')); };"
)
"""Portkey would listen on every interface."""

Figures = Mapping[str, Mapping[str, Sequence[float]]]


class Server(msgspec.Struct, frozen=True):
    """A server to measure.

    Attributes:
        address: its URL.
        cpu: returns the CPU seconds used so far.
        headers: headers that it needs beside the key.
        key: the key that it accepts.
    """

    address: str
    cpu: Callable[[], Awaitable[float]]
    headers: Mapping[str, str] = {}
    key: str = KEY


def run(plan: Plan) -> Result:
    """Measure every server that is available."""
    return asyncio.run(_measure(plan))


async def _measure(plan: Plan) -> Result:
    notes = [NOTE]
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, task.cancel
    )  # the servers must not outlive this process
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        upstream = await enter(child("upstream"))
        address = upstream.hello["address"] + "/v1"
        load = await enter(child("load"))
        servers = {
            DIRECT: _own(upstream),
            BARE: _own(await enter(child("bare_proxy", upstream=address))),
            OURS: _own(await enter(child("tidegate", upstream=address))),
        }
        for name, start in ((LITELLM, _litellm), (PORTKEY, _portkey)):
            try:
                servers[name] = await enter(start(address))
            except UnavailableError as error:
                notes.append(f"gateways: {name} was left out: {error}")
        rows = [row async for row in _rows(plan, load, servers, notes)]
        return Result(tuple(rows), tuple(notes))


async def _rows(plan: Plan, load: Child, all_servers: Mapping[str, Server], notes: list[str]) -> AsyncIterator[Row]:
    labels = itertools.count()
    for kind, calls in CALLS.items():
        servers = {name: one for name, one in all_servers.items() if await _answers(load, name, one, kind, notes)}
        for connections in CONNECTIONS:
            sides = {
                name: _side(load, server, kind, connections, turns(name, plan.scaled(calls), connections), labels)
                for name, server in servers.items()
                if kind == "long" or name != DIRECT
            }
            figures = await interleave(plan.rounds, sides)
            case = f"{CASES[kind]}, {connections} conn"
            for row in costs(case, figures):
                yield row
            if kind == "long":
                for row in overheads(f"first content, {connections} at once", figures):
                    yield row


def turns(name: str, calls: int, connections: int) -> int:
    """Return the number of calls of a server in one round: fewer for slow servers, and at least two a connection."""
    return max(calls // FEWER.get(name, 1), 2 * connections)


def costs(case: str, figures: Figures) -> list[Row]:
    """Return the rows of CPU time: every server against the bare proxy, then against Tidegate."""
    servers = {name: metrics for name, metrics in figures.items() if name != DIRECT}
    rows = _cpu(case, BARE, "cost", CLOSE).rows(servers)
    for name, goal in CHEAPER.items():
        if name in servers:
            comparison = _cpu(f"{case}, against {name}", name, "cheaper", goal)
            rows += [row for row in comparison.rows({name: servers[name], OURS: servers[OURS]}) if row.side == OURS]
    return rows


def overheads(case: str, figures: Figures) -> list[Row]:
    """Return the rows of the time to the first content, each minus the upstream's own time."""
    rows = []
    for metric, name in (("first_p50", "p50"), ("first_p99", "p99")):
        direct = figures[DIRECT][metric]
        for side, metrics in figures.items():
            if side != DIRECT:
                over = tuple((own - bare) * 1e3 for own, bare in zip(metrics[metric], direct, strict=True))
                rows.append(Row(benchmark=NAME, case=f"{case}, {name}", side=side, unit="ms over direct", values=over))
    return rows


def _cpu(case: str, baseline: str, word: Word, goal: Goal) -> Comparison:
    return Comparison(
        benchmark=NAME,
        case=case,
        metric="cpu",
        unit="CPU ms/call",
        baseline=baseline,
        word=word,
        goals={OURS: goal},
    )


def _side(load: Child, server: Server, kind: str, connections: int, count: int, labels: Iterator[int]) -> Side:
    async def side() -> Sample:
        before = await server.cpu()
        result = await load.call(
            "call",
            address=server.address,
            key=server.key,
            headers=dict(server.headers),
            connections=connections,
            kind=kind,
            count=count,
            share=1,
            label=f"gateways{next(labels)}",
        )
        after = await server.cpu()
        assert not result["failed"], (
            f"{server.address}: {result['failed']} of {count} calls failed: {result['failure']}"
        )
        return {
            "cpu": (after - before) / count * 1e3,
            "first_p50": result["first_p50"],
            "first_p99": result["first_p99"],
        }

    return side


async def _answers(load: Child, name: str, server: Server, kind: str, notes: list[str]) -> bool:
    """Call a server once. Return False, with a note, where one of the other projects' servers fails."""
    try:
        await _side(load, server, kind, 1, 1, itertools.count())()
    except AssertionError as error:
        if name not in CHEAPER:
            raise
        notes.append(f"gateways: {name} was left out of {CASES[kind]}: {' '.join(str(error).split())}")
        return False
    return True


def _own(process: Child) -> Server:
    async def cpu() -> float:
        used: float = (await process.call("usage"))["cpu"]
        return used

    return Server(process.hello["address"], cpu)


@asynccontextmanager
async def _litellm(upstream: str) -> AsyncIterator[Server]:
    command, port, key = await installed.litellm(), free_port(), f"sk-{KEY}"
    upstream_is = {"model": "openai/gpt-4o-mini", "api_base": upstream, "api_key": "bench-upstream-key"}
    config = {
        "model_list": [{"model_name": "gpt-4o-mini", "litellm_params": upstream_is}],
        "general_settings": {"master_key": key},
    }
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "config.yaml").write_bytes(msgspec.json.encode(config))
        where = ("--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port))
        alone = ("--num_workers", "1", "--telemetry", "False")
        local = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}
        async with foreign((str(command), *where, *alone), port, cwd=place, environment=local) as server:
            yield Server(server.address, server.cpu, key=key)


@asynccontextmanager
async def _portkey(upstream: str) -> AsyncIterator[Server]:
    script, port = await installed.portkey(), free_port()
    preload = ("--import", f"data:text/javascript,{LOOPBACK}")
    with tempfile.TemporaryDirectory() as folder:
        command = ("node", *preload, str(script), f"--port={port}", "--headless")
        production = {"NODE_ENV": "production"}
        async with foreign(command, port, cwd=Path(folder), environment=production) as server:
            headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": upstream}
            yield Server(server.address, server.cpu, headers=headers)
