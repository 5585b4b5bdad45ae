"""Instructions of one call through the service, counted by ``valgrind --tool=callgrind``.

Seconds on a shared machine differ from run to run; instructions do not. Each server runs under callgrind. Counting is
off while the server starts and warms up, and on for the calls of a round; the figure is the round's instructions over
its calls. Four connections, the same upstream and load as ``proxying``, on uvloop, the kernel's work not included.

* **bare proxy**, **tidegate**: as in ``proxying``.
* **tidegate, other checkout**: the service of the checkout that ``--against`` names, in the same rounds.

It needs ``valgrind`` (a Debian package); without it a note says so.
"""

import asyncio
import re
import shutil
from asyncio.subprocess import DEVNULL
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.children import Child, child
from benchmarks.harness import Comparison, Goal, Plan, Result, Row, Sample, Side, interleave
from benchmarks.proxying import BARE, CASES, KEY, OURS

NAME: Final = "callgrind"
OTHER: Final = "tidegate, other checkout"
CONNECTIONS: Final = 4
CALLS: Final = {"short": 200, "long": 50}
WARM_UP: Final = 100  # calls
TOTALS: Final = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)
MISSING: Final = "callgrind: valgrind is not installed, so nothing was counted (on Debian: the package valgrind)."


class CountedServer:
    """A server that runs under callgrind.

    Args:
        server: its process, started ``under`` the command that ``command`` returns.
        folder: where callgrind writes its files.
    """

    def __init__(self, server: Child, folder: Path) -> None:
        self.server = server
        self._folder = folder

    @staticmethod
    def command(folder: Path) -> tuple[str, ...]:
        """Return the command that runs a process with counting off."""
        output = f"--callgrind-out-file={folder}/out.%p"
        return ("valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet", output)

    async def switch(self, state: str) -> None:
        """Turn counting ``on`` or ``off``."""
        await self._control("-i", state)

    async def total(self) -> int:
        """Return the instructions counted since the last call of this, and begin at 0 again."""
        await self._control("-d")
        dumps = [path for path in self._folder.glob(f"out.{self.server.pid}.*") if path.stat().st_size]
        counted = [int(found[1]) for path in dumps for found in TOTALS.finditer(path.read_text()) if found[1] != "0"]
        for path in dumps:
            path.unlink()
        assert counted, f"callgrind counted nothing of {self.server.name}"
        return max(counted)

    async def _control(self, *arguments: str) -> None:
        control = await asyncio.create_subprocess_exec(
            "callgrind_control", *arguments, str(self.server.pid), stdout=DEVNULL, stderr=DEVNULL
        )
        assert await control.wait() == 0, f"callgrind_control {' '.join(arguments)} failed"


class Counting:
    """Rounds of calls to counted servers, each round unlike any other."""

    def __init__(self, load: Child) -> None:
        self._load = load
        self._labels: Iterator[int] = iter(range(1_000_000))

    async def warm_up(self, counted: CountedServer, kind: str) -> None:
        """Make some calls that are not counted."""
        await self._call(counted.server, kind, WARM_UP)

    async def measure(self, counted: CountedServer, kind: str, calls: int) -> Sample:
        """Return thousands of instructions a call."""
        await counted.switch("on")
        await self._call(counted.server, kind, calls)
        await counted.switch("off")
        return {"instructions": await counted.total() / calls / 1e3}

    async def _call(self, server: Child, kind: str, count: int) -> None:
        answer = await self._load.call(
            "call",
            address=server.hello["address"],
            key=KEY,
            connections=CONNECTIONS,
            kind=kind,
            count=count,
            share=1,
            label=f"counted{next(self._labels)}",
        )
        assert not answer["failed"], f"{server.name}: {answer['failed']} of {count} calls failed: {answer['failure']}"


def run(plan: Plan) -> Result:
    """Count each kind of call."""
    if shutil.which("valgrind") is None:
        return Result((), (MISSING,))
    return asyncio.run(_measure(plan))


async def _measure(plan: Plan) -> Result:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="callgrind")))
        enter = stack.enter_async_context
        upstream = (await enter(child("upstream"))).hello["address"] + "/v1"
        under = CountedServer.command(folder)
        servers = {
            BARE: CountedServer(await enter(child("bare_proxy", under=under, upstream=upstream)), folder),
            OURS: CountedServer(await enter(child("tidegate", under=under, upstream=upstream)), folder),
        }
        if plan.against is not None:
            other = child("tidegate", checkout=plan.against, under=under, upstream=upstream)
            servers[OTHER] = CountedServer(await enter(other), folder)
        counting = Counting(await enter(child("load")))
        rows: list[Row] = []
        for kind, calls in CALLS.items():
            for server in servers.values():
                await counting.warm_up(server, kind)
            sides = {name: _side(counting, server, kind, plan.scaled(calls)) for name, server in servers.items()}
            figures = await interleave(plan.rounds, sides, warm_up=False)
            rows += _rows(f"{CASES[kind]}, {CONNECTIONS} conn", figures)
    return Result(tuple(rows))


def _side(counting: Counting, server: CountedServer, kind: str, calls: int) -> Side:
    return lambda: counting.measure(server, kind, calls)


def _rows(case: str, figures: dict[str, dict[str, list[float]]]) -> list[Row]:
    comparison = Comparison(
        benchmark=NAME, case=case, metric="instructions", unit="k instr/call", baseline=BARE, word="cost"
    )
    rows = comparison.rows(figures)
    if OTHER not in figures:
        return rows
    changed = Comparison(
        benchmark=NAME,
        case=f"{case}, against {OTHER}",
        metric="instructions",
        unit="k instr/call",
        baseline=OTHER,
        word="cost",
        goals={OURS: Goal("most", 1.05)},
    )
    return rows + changed.rows({name: figures[name] for name in (OTHER, OURS)})
