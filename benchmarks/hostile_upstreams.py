"""What an upstream's bytes do to the service: ``python -m benchmarks.hostile_upstreams [mode ...] [--json FILE]``.

The service and ``hostile_upstream`` run in processes of their own. For each mode one request of ``TIMEOUT`` seconds is
sent, while another client asks for ``/api/health/live`` all the time. **stall** is its longest wait; **memory** is what
the service's resident memory has grown at its peak; **seconds** is when the request ended.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

TOP: Final = Path(__file__).resolve().parent.parent
TIMEOUT: Final = 10.0  # seconds, of the request
INTERVAL: Final = 0.005  # seconds between two looks at the health
ROUTES: Final = '[providers.evil]\nkind = "openai"\nbase_url = "http://127.0.0.1:{port}/v1"\n'


class Looks:
    """Asks for the health all the time, and notes the longest wait and the largest memory."""

    def __init__(self, base: str, pid: int) -> None:
        self.longest = 0.0
        self.first = self.peak = resident(pid)
        self._base, self._pid = base, pid
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                began = time.perf_counter()
                async with session.get(f"{self._base}/api/health/live") as response:
                    await response.read()
                self.longest = max(self.longest, time.perf_counter() - began)
                self.peak = max(self.peak, resident(self._pid))
                await asyncio.sleep(INTERVAL)


def resident(pid: int) -> int:
    """Return the resident memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) // 1024
    return 0


async def started(arguments: list[str], folder: str, root: Path, **settings: str) -> Process:
    """Start a process of this interpreter."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=folder,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE if settings else DEVNULL,
        env={**os.environ, "PYTHONPATH": str(root), **settings},
    )


async def ask(base: str, mode: str, session: aiohttp.ClientSession) -> dict[str, Any]:
    """Send one request to its end."""
    body = {
        "model": f"evil/{mode}",
        "messages": [{"role": "user", "content": "x"}],
        "options": {"timeoutMs": int(TIMEOUT * 1000), "dedupe": False},
    }
    async with session.post(f"{base}/api/requests", json=body) as response:
        request_id = (await response.json())["requestId"]
    state: dict[str, Any] = {"assistantStatus": "pending"}
    while state["assistantStatus"] in ("pending", "running"):
        await asyncio.sleep(INTERVAL)
        async with session.get(f"{base}/api/requests/{request_id}") as response:
            state = await response.json()
    async with session.delete(f"{base}/api/requests/{request_id}") as response:
        await response.read()
    return state


async def measure(base: str, pid: int, mode: str) -> dict[str, Any]:
    """Measure one mode."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT * 6)
    async with Looks(base, pid) as looks, aiohttp.ClientSession(timeout=timeout) as session:
        began = time.perf_counter()
        try:
            state = await ask(base, mode, session)
        except TimeoutError:
            state = {"assistantStatus": "no end"}
        seconds = time.perf_counter() - began
    error = state.get("error") or {}
    return {
        "mode": mode,
        "stall_ms": round(looks.longest * 1000),
        "memory_mib": looks.peak - looks.first,
        "seconds": round(seconds, 2),
        "status": state["assistantStatus"],
        "code": error.get("code", ""),
    }


async def run(root: Path, modes: list[str]) -> list[dict[str, Any]]:
    """Measure these modes, each on a service of its own."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        upstream = await started(["-m", "benchmarks.processes.hostile_upstream"], folder, TOP)
        assert upstream.stdout is not None
        hello = json.loads(await upstream.stdout.readline())
        (Path(folder) / "tidegate.toml").write_text(ROUTES.format(port=hello["port"]), encoding="utf-8")
        for mode in modes or hello["modes"]:
            service = await started(
                ["-m", "service.cli.main", "serve", "--port", "0"],
                folder,
                root,
                LOG_FORMAT="json",
                LLM_PROVIDER="openai",
                OPENAI_API_KEY="sk-x",
            )
            assert service.stderr is not None
            address = ""
            async for line in service.stderr:
                entry = json.loads(line)
                address = entry.get("address", address)
                if entry.get("state") == "ready":
                    break
            drained = asyncio.create_task(service.stderr.read())
            try:
                found.append(await measure(address, service.pid, mode))
                sys.stdout.write(json.dumps(found[-1]) + "\n")
                sys.stdout.flush()
            finally:
                service.kill()
                await service.wait()
                await drained
        upstream.kill()
        await upstream.wait()
    return found


def main() -> None:
    """Measure the modes named on the command line, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile_upstreams", description=__doc__)
    parser.add_argument("modes", nargs="*")
    parser.add_argument("--root", type=Path, default=TOP, help="the checkout that serves")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    chosen = parser.parse_args()
    figures = asyncio.run(run(chosen.root.resolve(), chosen.modes))
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
