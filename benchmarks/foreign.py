"""Servers of other projects as processes on loopback: starts them, waits for them, counts their CPU time, ends them."""

import asyncio
import os
import signal
import socket
from asyncio.subprocess import DEVNULL, STDOUT
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from benchmarks.children import END_TIMEOUT, NOT_INHERITED
from benchmarks.installed import KEPT_OUTPUT, UnavailableError

START_TIMEOUT: Final = 120.0  # seconds until a server accepts connections
PROBE_INTERVAL: Final = 0.1  # seconds
PROC: Final = Path("/proc")
PARENT, OWN, REAPED = 1, slice(11, 13), slice(13, 15)  # fields of ``stat`` after the command's name


def free_port() -> int:
    """Return a free port of loopback."""
    with socket.socket() as end:
        end.bind(("127.0.0.1", 0))
        port: int = end.getsockname()[1]
        return port


class Foreign:
    """A server and all processes that it started.

    Attributes:
        address: its URL.
    """

    def __init__(self, pid: int, address: str) -> None:
        self.address = address
        self._pid = pid

    async def cpu(self) -> float:
        """Return the CPU seconds of all its processes so far, in ticks of the kernel, usually 10 ms."""
        stats = {int(entry.name): stat for entry in PROC.iterdir() if entry.name.isdigit() and (stat := _stat(entry))}
        return ticks(self._pid, stats) / os.sysconf("SC_CLK_TCK")


def ticks(root: int, stats: Mapping[int, str]) -> int:
    """Return the CPU ticks of a process and its descendants, including those that ended and were reaped.

    Args:
        root: the process.
        stats: the contents of ``/proc/{pid}/stat``, by pid.
    """
    fields = {pid: stat.rpartition(")")[2].split() for pid, stat in stats.items()}
    found, seen = [root], {root}
    for pid in found:
        children = [child for child, values in fields.items() if int(values[PARENT]) == pid and child not in seen]
        found += children
        seen.update(children)
    return sum(_spent(fields[pid]) for pid in found if pid in fields)


@asynccontextmanager
async def foreign(
    command: Iterable[str], port: int, *, cwd: Path, environment: Mapping[str, str]
) -> AsyncIterator[Foreign]:
    """Run a server that listens on ``port`` until the end of the block; its output goes to a file in ``cwd``.

    Raises:
        UnavailableError: the server ended, or did not accept connections in time.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    with (cwd / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=DEVNULL,
            stdout=output,
            stderr=STDOUT,
            cwd=cwd,
            env={**inherited, "NO_PROXY": "127.0.0.1", **environment},
            start_new_session=True,
        )
    try:
        if not await _listens(process, port):
            words = (cwd / "output").read_bytes().decode(errors="replace").split()
            raise UnavailableError(f"it did not start: {' '.join(words)[-KEPT_OUTPUT:]}")
        yield Foreign(process.pid, f"http://127.0.0.1:{port}")
    finally:
        await _end(process)


async def _listens(process: asyncio.subprocess.Process, port: int) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(START_TIMEOUT):
            while process.returncode is None:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return True
                await asyncio.sleep(PROBE_INTERVAL)
    return False


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the server and its children, which are the processes of its session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT):
                await process.wait()


def _stat(entry: Path) -> str:
    try:
        return (entry / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _spent(values: list[str]) -> int:
    return sum(map(int, (*values[OWN], *values[REAPED])))
