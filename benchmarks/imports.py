"""How long ``import actors`` takes in a fresh interpreter, and how soon the service listens.

``actors`` is what an embedder imports: the runtime, the router, the hub, the cache and the gateway's entrance; no
provider, no SDK. The interpreter's own start is taken off: each round measures inside the child, from the first line to
the end of the import. The service is timed from the start of its process to the first answer of ``/api/health/live``,
so the interpreter is included. Bytecode is compiled before the first round.
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
    "actors.request_router",
    "actors.subscription_hub",
    "actors.cache",
    "actors.llm_gateway",
)
IMPORTS: Final = {
    "import actors.runtime": ("actors.runtime",),
    "import actors, all that an embedder uses": EMBEDDER,
    "import service.app": ("service.app",),
}
PROGRAM: Final = "import time\nstart = time.perf_counter()\nimport {modules}\nprint(time.perf_counter() - start)\n"


def run(plan: Plan) -> Result:
    """Measure each import and the service's start."""
    return asyncio.run(_measure(plan))


async def _measure(plan: Plan) -> Result:
    sides: dict[str, Side] = {case: _side(modules) for case, modules in IMPORTS.items()}
    sides["start to first answer"] = _serving
    figures = await interleave(plan.rounds, sides)
    rows = [
        Row(
            benchmark=NAME,
            case=case,
            side="service" if "service" in case or "answer" in case else "actors",
            unit="ms",
            values=tuple(metrics["ms"]),
            goal=Goal("most", 150.0) if case.startswith("import actors,") else None,
        )
        for case, metrics in figures.items()
    ]
    return Result(tuple(rows))


def _side(modules: tuple[str, ...]) -> Side:
    async def side() -> Sample:
        times = sorted([await importing(modules) for _ in range(STARTS_A_ROUND)])
        return {"ms": times[len(times) // 2] * 1000}

    return side


async def importing(modules: tuple[str, ...]) -> float:
    """Return the seconds that importing ``modules`` takes in a fresh interpreter."""
    program = PROGRAM.format(modules=", ".join(modules))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        stdout=asyncio.subprocess.PIPE,
        cwd=TOP,
        env={**os.environ, "PYTHONPATH": str(TOP)},
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, f"can't import {modules}"
    return float(said)


async def _serving() -> Sample:
    start = time.perf_counter()
    async with child("tidegate", upstream="http://127.0.0.1:9/v1") as service, aiohttp.ClientSession() as session:
        async with session.get(service.hello["address"] + "/api/health/live") as answer:
            assert answer.status == 200
        return {"ms": (time.perf_counter() - start) * 1000}
