"""The child's side of ``benchmarks.children``: reads options, answers commands, reports usage."""

import asyncio
import faulthandler
import gc
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop
from aiohttp import web

LIFETIME: Final = 3600.0  # seconds after which a child ends itself
STATM: Final = Path("/proc/self/statm")

Command = Callable[..., Awaitable[Any]]


def options() -> dict[str, Any]:
    """Return the options that the parent gave."""
    read: dict[str, Any] = msgspec.json.decode(sys.argv[1] if len(sys.argv) > 1 else "{}")
    return read


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run the process on uvloop, for at most ``LIFETIME``."""
    faulthandler.dump_traceback_later(LIFETIME, exit=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


async def serve(hello: Mapping[str, Any], **commands: Command) -> None:
    """Print ``hello``, then answer commands until standard input ends. Every child has the command ``usage``."""
    commands.setdefault("usage", usage)
    _print(hello)
    reader = asyncio.StreamReader(limit=1024 * 1024)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = msgspec.json.decode(line)
        try:
            _print({"answer": await commands[command["command"]](**command["arguments"])})
        except Exception as error:  # noqa: BLE001 - the parent handles the failure
            _print({"error": f"{type(error).__name__}: {error}"})


async def usage(*, collect: bool = False) -> dict[str, float]:
    """Return the CPU seconds of all threads and the resident bytes; with ``collect``, after a garbage collection."""
    cpu = time.process_time()
    if collect:
        gc.collect()
    return {"cpu": cpu, "rss": _resident()}


async def listen(app: web.Application) -> str:
    """Serve ``app`` on a free loopback port and return its address; for baselines, without an access log."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    return "http://{}:{}".format(*runner.addresses[0][:2])


class Passes:
    """Records the passes of the garbage collector from now on."""

    def __init__(self) -> None:
        self._passes: list[tuple[int, float, int]] = []
        self._began = 0.0
        gc.callbacks.append(self._on_pass)

    async def report(self) -> list[tuple[int, float, int]]:
        """Return the generation of each pass, its milliseconds, and how many objects it has freed."""
        return self._passes

    def _on_pass(self, phase: str, info: Mapping[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            taken = (time.perf_counter() - self._began) * 1000
            self._passes.append((info["generation"], taken, info["collected"]))


def _resident() -> int:
    if STATM.exists():
        return int(STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _print(line: Mapping[str, Any]) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()
