"""The time of ``import actors`` in a fresh interpreter, and the start time of the service.

``actors`` is what an embedder imports: the runtime, the router, the hub, the cache and the gateway; no provider, no
SDK. Each round measures inside a fresh interpreter, from the first line of the program to the end of the import. So the
interpreter's own start is excluded and the standard library included; the row of ``asyncio`` shows the part that every
asyncio program has. The figure is CPU time, which on a quiet machine with cached bytecode equals wall time. The service
is timed by the clock, from the start of its process to the first answer of ``/api/health/live``, so the interpreter is
included. Bytecode is compiled before the first round.
"""

import asyncio
import os
import sys
import time
from typing import Final

import aiohttp

from benchmarks.children import TOP, child
from benchmarks.harness import Goal, Plan, Result, Row, Sample, Side, interleave

NAME: Final = "imports"
STARTS_A_ROUND: Final = 3
EMBEDDER: Final = (
    "actors.runtime",
    "actors.requests.router",
    "actors.subscription_hub",
    "actors.cache",
    "actors.llm_gateway",
)
ASYNCIO: Final = "import asyncio alone"
RUNTIME: Final = "import actors.runtime"
ALL: Final = "import actors, all that an embedder uses"
SERVICE: Final = "import service.server.app"
START: Final = "start to first answer"
IMPORTS: Final = {
    ASYNCIO: ("asyncio",),
    RUNTIME: ("actors.runtime",),
    ALL: EMBEDDER,
    SERVICE: ("service.server.app",),
}
PROGRAM: Final = "import time\nstart = time.process_time()\nimport {modules}\nprint(time.process_time() - start)\n"


def run(plan: Plan) -> Result:
    """Measure each import and the start of the service."""
    return asyncio.run(_measure(plan))


async def _measure(plan: Plan) -> Result:
    sides: dict[str, Side] = {case: _side(modules) for case, modules in IMPORTS.items()}
    sides[START] = _serving
    figures = await interleave(plan.rounds, sides)
    rows = [
        Row(benchmark=NAME, case=case, side=side, unit="CPU ms", values=tuple(figures[case]["ms"]), goal=goal)
        for case, side, goal in (
            (ASYNCIO, "python", None),
            (RUNTIME, "actors", None),
            (ALL, "actors", Goal("most", 150.0)),
            (SERVICE, "service", None),
        )
    ]
    rows.append(Row(benchmark=NAME, case=START, side="service", unit="ms", values=tuple(figures[START]["ms"])))
    return Result(tuple(rows))


def _side(modules: tuple[str, ...]) -> Side:
    async def side() -> Sample:
        times = sorted([await importing(modules) for _ in range(STARTS_A_ROUND)])
        return {"ms": times[len(times) // 2] * 1000}

    return side


async def importing(modules: tuple[str, ...]) -> float:
    """Return the CPU seconds for importing ``modules`` in a fresh interpreter."""
    program = PROGRAM.format(modules=", ".join(modules))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        stdout=asyncio.subprocess.PIPE,
        cwd=TOP,
        env={**os.environ, "PYTHONPATH": str(TOP)},
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, f"can't import {modules}"
    return float(output)


async def _serving() -> Sample:
    start = time.perf_counter()
    async with child("tidegate", upstream="http://127.0.0.1:9/v1") as service, aiohttp.ClientSession() as session:
        async with session.get(service.hello["address"] + "/api/health/live") as answer:
            assert answer.status == 200
        return {"ms": (time.perf_counter() - start) * 1000}
