"""The command in real processes, and a real service with a scripted upstream for it."""

import asyncio
import fcntl
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from actors.testing import ScriptedUpstream

COMMAND: Final = (sys.executable, "-m", "service.cli.main")


@dataclass(frozen=True)
class Service:
    """A service in its own process."""

    process: asyncio.subprocess.Process
    address: str

    async def kill(self) -> None:
        """Kill the process."""
        self.process.kill()
        await self.process.wait()


class Terminal:
    """A command on a terminal: ``seen`` is its output so far, ``until`` waits for a text."""

    def __init__(self) -> None:
        self.seen = ""
        self._near, self._far = pty.openpty()
        self._changed = asyncio.Event()
        self.process: asyncio.subprocess.Process

    @classmethod
    async def run(cls, root: Path, *arguments: str, at_terminal: bool = False, **settings: str) -> Self:
        """Start a command; with ``at_terminal`` its input is the terminal's, too."""
        terminal = cls()
        terminal.process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *arguments,
            cwd=root,
            stdin=terminal._far if at_terminal else asyncio.subprocess.DEVNULL,
            stdout=terminal._far,
            stderr=terminal._far,
            env=environment(root, **settings),
            preexec_fn=heed_interrupts,
        )
        os.close(terminal._far)
        fcntl.fcntl(terminal._near, fcntl.F_SETFL, os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(terminal._near, terminal._read)
        return terminal

    async def until(self, text: str) -> None:
        """Wait for ``text``."""
        while text not in self.seen:
            assert self.process.returncode is None, self.seen
            self._changed.clear()
            await self._changed.wait()

    async def end(self) -> int:
        """Wait for the command's end and return its exit code."""
        return await self.process.wait()

    def _read(self) -> None:
        try:
            data = os.read(self._near, 65_536)
        except OSError:
            asyncio.get_running_loop().remove_reader(self._near)
            os.close(self._near)
        else:
            self.seen += data.decode().replace("\r\n", "\n")
        self._changed.set()


def heed_interrupts() -> None:
    """Handle Ctrl-C as at a terminal: a shell's background process would ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def environment(root: Path, **settings: str) -> dict[str, str]:
    """Return the environment of a command, without the developer's settings."""
    return {**os.environ, "PYTHONPATH": str(root), "TERM": "dumb", "COLUMNS": "500", **settings}


async def tidegate(root: Path, *arguments: str, stdin: str = "", **settings: str) -> tuple[int, str, str]:
    """Run a command to its end: exit code, output, notes."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        cwd=root,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(root, **settings),
    )
    out, notes = await process.communicate(stdin.encode())
    return await process.wait(), out.decode(), notes.decode()


@asynccontextmanager
async def serving(root: Path, upstream: ScriptedUpstream, port: int = 0, **settings: str) -> AsyncIterator[Service]:
    """Serve in a process, with ``upstream`` as the provider."""
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, "serve", "--port", str(port)),
        cwd=root,
        stderr=asyncio.subprocess.PIPE,
        env=environment(
            root,
            OPENAI_API_KEY="made-up",
            OPENAI_BASE_URL=upstream.openai_url,
            LOG_FORMAT="json",
            SHUTDOWN_GRACE_SECONDS="0",
            **settings,
        ),
    )
    assert process.stderr is not None
    try:
        async for line in process.stderr:
            entry = json.loads(line)
            if entry["event"] == "serving":
                break
        else:
            raise AssertionError("the service did not start")
        draining = asyncio.create_task(process.stderr.read())
        yield Service(process, entry["address"])
        if process.returncode is None:
            process.terminate()
        await draining
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
