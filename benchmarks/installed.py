"""Installs the gateways to compare with, on request, each once into a directory of its own.

Packages come from the sources that this machine's ``pip`` and ``npm`` are configured for. A gateway that can't be
installed is an ``UnavailableError`` with the reason.
"""

import asyncio
import os
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

LITELLM: Final = "1.102.4"
PORTKEY: Final = "1.15.2"
PORTKEY_SERVER: Final = "1.13.8"  # of @hono/node-server: a later one makes its headers immutable, and streaming fails
PACKAGE: Final = "@portkey-ai/gateway"
WITHIN: Final = 900.0  # seconds for one command
STAMP: Final = ".installed"
HOME_VARIABLE: Final = "TIDEGATE_BENCH_HOME"
KEPT_OUTPUT: Final = 300  # characters of a failed command's output, from its end


class UnavailableError(Exception):
    """A gateway can't be installed here, or does not start."""


def home() -> Path:
    """Return the directory of the installations: ``TIDEGATE_BENCH_HOME``, or a cache directory of the user."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(HOME_VARIABLE) or Path(cache) / "tidegate-bench")


async def litellm() -> Path:
    """Return LiteLLM's command; install it in a virtual environment first where it is missing.

    Raises:
        UnavailableError: it can't be installed.
    """
    place = home() / f"litellm-{LITELLM}"
    if not (place / STAMP).exists():
        await _run(sys.executable, "-m", "venv", str(place))
        pip = (str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        await _run(*pip, f"litellm[proxy]=={LITELLM}")
        (place / STAMP).touch()
    return place / "bin" / "litellm"


async def portkey() -> Path:
    """Return the file of Portkey's gateway for node; install it first where it is missing.

    Raises:
        UnavailableError: it can't be installed.
    """
    place = home() / f"portkey-{PORTKEY}"
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise UnavailableError("node and npm are not installed")
    if not (place / STAMP).exists():
        place.mkdir(parents=True, exist_ok=True)
        wanted = {"dependencies": {PACKAGE: PORTKEY}, "overrides": {"@hono/node-server": PORTKEY_SERVER}}
        (place / "package.json").write_bytes(msgspec.json.encode(wanted))
        quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
        await _run("npm", "install", "--prefix", str(place), *quiet)
        (place / STAMP).touch()
    return place / "node_modules" / PACKAGE / "build" / "start-server.js"


async def _run(*command: str) -> None:
    print(f"  {' '.join(command)}", file=sys.stderr, flush=True)
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
    try:
        async with asyncio.timeout(WITHIN):
            output, _ = await process.communicate()
    except TimeoutError:
        raise UnavailableError(f"{command[0]} took more than {WITHIN:.0f} s") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise UnavailableError(" ".join(output.decode(errors="replace").split())[-KEPT_OUTPUT:])
