"""The memory of a stored request, an idle socket and a request in flight.

Each figure is the growth of the server's resident memory, after a garbage collection, divided by the number of objects.
Memory that the allocator had free before is not counted, so trust at most two digits. Each round is a fresh process
after a warm-up.

* **stored request**: after different 50-chunk requests have been answered and are stored: a state, a log with every
  entry, and its copy in the cache.
* **idle socket**: WebSockets without a subscription, and the same on a bare aiohttp server. ``cost`` is ours over the
  bare one's; another row has the difference.
* **request in flight**: submitted, sent upstream or waiting for a slot, and not answered. One row for the first
  thousand, and one up to the most, which shows whether the memory of each grows with their number.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final

import aiohttp

from benchmarks.children import Child, child
from benchmarks.harness import Comparison, Goal, Plan, Result, Row, Sample, interleave
from benchmarks.limits import affordable_sockets
from benchmarks.proxying import KEY, Load

NAME: Final = "memory"
STORED: Final = 1000
SOCKETS: Final = 5000
MORE: Final = Goal("most", 3.0)  # KiB
FEW: Final = 1000
MANY: Final = 10_000
QUICK_FEW: Final = 100
QUICK_MANY: Final = 1000
WARM_UP: Final = 100
AT_ONCE: Final = 64
KIB: Final = 1024


def run(plan: Plan) -> Result:
    """Measure all three, in fewer rounds, because each is a process of its own."""
    return asyncio.run(_measure(plan))


async def _measure(plan: Plan) -> Result:
    rounds = min(plan.rounds, 3)
    sockets = affordable_sockets(plan.scaled(SOCKETS))
    few, many = (QUICK_FEW, QUICK_MANY) if plan.quick else (FEW, MANY)
    stored = await interleave(rounds, {"tidegate": lambda: _stored(plan.scaled(STORED))}, warm_up=False)
    idle = await interleave(
        rounds,
        {"aiohttp": lambda: _idle("send_str", sockets), "tidegate": lambda: _idle("tidegate", sockets)},
        warm_up=False,
    )
    flying = await interleave(rounds, {"tidegate": lambda: _in_flight(few, many)}, warm_up=False)
    comparison = Comparison(
        benchmark=NAME, case=f"idle socket, of {sockets}", metric="kib", unit="KiB", baseline="aiohttp", word="cost"
    )

    def row(case: str, values: list[float], goal: Goal | None = None) -> Row:
        return Row(benchmark=NAME, case=case, side="tidegate", unit="KiB", values=tuple(values), goal=goal)

    more = [ours - bare for ours, bare in zip(idle["tidegate"]["kib"], idle["aiohttp"]["kib"], strict=True)]

    rows = [
        row(f"stored 50-chunk request, of {plan.scaled(STORED)}", stored["tidegate"]["kib"]),
        *comparison.rows(idle),
        row(f"{comparison.case}, beyond the bare one", more, MORE),
        row(f"request in flight, 1 to {few}", flying["tidegate"]["few"]),
        row(f"request in flight, {few} to {many}", flying["tidegate"]["many"]),
    ]
    return Result(tuple(rows))


async def _stored(count: int) -> Sample:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(child("upstream"))
        address = upstream.hello["address"] + "/v1"
        service = await stack.enter_async_context(child("tidegate", upstream=address, request_ttl_seconds=600.0))
        load = Load(await stack.enter_async_context(child("load")))
        await load.call(service, "long", 4, WARM_UP)
        before = await _resident(service)
        await load.call(service, "long", 4, count)
        return {"kib": (await _resident(service) - before) / count}


async def _idle(module: str, count: int) -> Sample:
    async with AsyncExitStack() as stack:
        options: dict[str, Any] = {} if module == "send_str" else {"upstream": "http://127.0.0.1:9/v1"}
        server = await stack.enter_async_context(child(module, **options))
        clients = await stack.enter_async_context(child("sockets"))
        for share in (1, WARM_UP - 1):  # one by itself: with many at once Python never learns what its objects share
            await clients.call("open", address=server.hello["address"], key=KEY, count=share)
        before = await _resident(server)
        held = await clients.call("open", address=server.hello["address"], key=KEY, count=count - WARM_UP)
        assert held == count, f"{held} of {count} sockets"
        return {"kib": (await _resident(server) - before) / (count - WARM_UP)}


async def _in_flight(few: int, many: int) -> Sample:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        upstream = await enter(child("upstream"))
        service = await enter(
            child(
                "tidegate",
                upstream=upstream.hello["address"] + "/v1",
                provider_concurrency=128,
                provider_queue=many,
                first_token_timeout_seconds=600.0,
            )
        )
        session = await enter(aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}))
        address = service.hello["address"] + "/api/requests"
        await submit(session, address, 0, 1)
        start = await _resident(service)
        await submit(session, address, 1, few)
        middle = await _resident(service)
        await submit(session, address, few, many)
        end = await _resident(service)
        return {"few": (middle - start) / (few - 1), "many": (end - middle) / (many - few)}


async def submit(session: aiohttp.ClientSession, address: str, first: int, end: int) -> None:
    """Submit the requests ``first`` to ``end``, which the upstream does not answer."""
    numbers = iter(range(first, end))

    async def submitter() -> None:
        for number in numbers:
            body = {
                "messages": [{"role": "user", "content": f"bench-hold {number}"}],
                "model": "gpt-4o-mini",
                "options": {"timeoutMs": 600_000},
            }
            async with session.post(address, json=body) as answer:
                assert answer.status == 202, await answer.text()

    async with asyncio.TaskGroup() as group:
        for _ in range(min(AT_ONCE, end - first)):
            group.create_task(submitter())


async def _resident(server: Child) -> float:
    usage = await server.call("usage", collect=True)
    return float(usage["rss"]) / KIB
