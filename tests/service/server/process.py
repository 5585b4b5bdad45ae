"""A server in a process of its own, and its log."""

import asyncio
import os
import resource
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from actors.testing import ScriptedUpstream

SOON = 40.0  # seconds, the bound of a wait for an event


class Served:
    """A server process, and its log.

    Attributes:
        process: the process.
        address: its URL.
        lines: the lines of the log that have been read.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.address = ""
        self.lines: list[dict[str, Any]] = []

    async def logged(self, event: str) -> dict[str, Any]:
        """Wait for a line."""
        assert self.process.stderr is not None
        async with asyncio.timeout(SOON):
            while text := await self.process.stderr.readline():
                self.lines.append(orjson.loads(text))
                if self.lines[-1]["event"] == event:
                    return self.lines[-1]
        raise AssertionError(f"the log ended without {event}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send it a signal."""
        self.process.send_signal(number)


async def run_server(root: Path, descriptors: int = 0, /, **env: str) -> Process:
    """Start the command on a free port; with at most so many descriptors, where that is not 0."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "service.cli.main",
        "serve",
        "--port",
        "0",
        stderr=PIPE,
        cwd=root,
        preexec_fn=limit if descriptors else None,
        env={"PATH": os.environ["PATH"], "LOG_FORMAT": "json", "PYTHONPATH": str(root), **env},
    )


@asynccontextmanager
async def serve(root: Path, upstream: ScriptedUpstream, descriptors: int = 0, /, **env: str) -> AsyncIterator[Served]:
    """Run a server in front of ``upstream``; yields it once it serves."""
    process = await run_server(root, descriptors, OPENAI_API_KEY="key", OPENAI_BASE_URL=upstream.openai_url, **env)
    served = Served(process)
    try:
        served.address = (await served.logged("serving"))["address"]
        yield served
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
