"""Child processes: starts them, sends them commands, and ends them.

A child prints one JSON line for each line it receives. It ends when its standard input ends, so that it can't outlive
the parent, and in any case after ``LIFETIME``.
"""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

TOP: Final = Path(__file__).resolve().parent.parent
START_TIMEOUT: Final = 30.0  # seconds until the first line of a child
END_TIMEOUT: Final = 10.0  # seconds for a child to end before it is killed
MAX_LINE: Final = 1024 * 1024  # bytes
NOT_INHERITED: Final = ("OTEL_", "OPENAI_", "ANTHROPIC_", "LLM_", "API_KEYS", "PYTHONASYNCIODEBUG")


class ChildError(Exception):
    """A child has ended, or has reported a failure."""


class Child:
    """A child process that answers commands.

    Attributes:
        hello: its first line.
    """

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.hello: dict[str, Any] = {}
        self._process = process

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def call(self, command: str, within: float = 120.0, **arguments: Any) -> Any:  # noqa: ANN401 - JSON
        """Send a command and return its answer.

        Raises:
            ChildError: the child failed or has ended.
            TimeoutError: no answer ``within`` seconds.
        """
        if self._process.stdin is None:
            raise ChildError(f"{self.name} takes no commands")
        self._process.stdin.write(msgspec.json.encode({"command": command, "arguments": arguments}) + b"\n")
        return (await self.read(within))["answer"]

    async def read(self, within: float) -> dict[str, Any]:
        """Return the next line that the child prints; raises as ``call``."""
        if self._process.stdout is None:
            raise ChildError(f"{self.name} says nothing")
        async with asyncio.timeout(within):
            line = await self._process.stdout.readline()
        if not line:
            raise ChildError(f"{self.name} has gone")
        answer: dict[str, Any] = msgspec.json.decode(line)
        if "error" in answer:
            raise ChildError(f"{self.name}: {answer['error']}")
        return answer

    async def end(self) -> None:
        """Wait until the child ends, and kill it after ``END_TIMEOUT``."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(END_TIMEOUT):
                await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


def environment(checkout: Path = TOP) -> dict[str, str]:
    """Return the environment of a process that runs the code of ``checkout``, without settings of this one's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    return {**inherited, "PYTHONPATH": str(checkout), "PYTHONHASHSEED": "0"}


@asynccontextmanager
async def child(
    module: str,
    *,
    checkout: Path = TOP,
    under: Sequence[str] = (),
    **options: Any,  # noqa: ANN401 - JSON
) -> AsyncIterator[Child]:
    """Run ``benchmarks.processes.<module>`` until the end of the block.

    Args:
        module: which process.
        checkout: the checkout of the project whose code it runs.
        under: a command that runs it, such as a profiler with its arguments.
        options: what the process is told at its start.
    """
    process = await asyncio.create_subprocess_exec(
        *under,
        sys.executable,
        "-m",
        f"benchmarks.processes.{module}",
        msgspec.json.encode(options).decode(),
        stdin=PIPE,
        stdout=PIPE,
        cwd=checkout,
        env=environment(checkout),
        limit=MAX_LINE,
    )
    started = Child(module, process)
    try:
        started.hello = await started.read(START_TIMEOUT)
        yield started
    finally:
        await started.end()
