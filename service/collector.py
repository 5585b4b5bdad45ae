"""The cyclic garbage collector of a server: no pass looks at all objects while something runs."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import structlog

from protocol.errors import TidegateError

YOUNG: Final = 10_000  # objects allocated and not freed, after which the newest generation is collected
PASSES: Final = 4  # passes over it, after which what has survived them is looked at once more
INTERVAL: Final = 600.0  # seconds between two looks at everything
LOOK: Final = 5.0  # seconds between two looks at whether the server is quiet

_log = structlog.get_logger("service")


class Collector:
    """Makes each pass of the collector short, for as long as the server is in use.

    ::

        new objects --YOUNG of them--> pass --PASSES times--> pass --> frozen: looked at when nothing runs

    CPython stops the process for a whole pass. A pass over all objects takes half a microsecond for each: with 10,000
    requests in flight 600 ms, and it finds nothing, since no end of a request leaves a cycle. So what survives two
    passes over at most ``YOUNG * (PASSES + 1)`` objects is frozen: it is freed when its last reference goes, as ever,
    but no pass looks at it. A cycle that lived that long is found in a quiet moment.

    This concerns the whole process, so only ``serve`` does it.

    Args:
        running: returns how much runs now, which a pass over everything would delay.
    """

    def __init__(self, running: Callable[[], Awaitable[int]]) -> None:
        self._running = running
        self._thresholds = gc.get_threshold()
        self._next = 0.0
        self._frozen = False

    def start(self) -> None:
        """Collect and freeze what is there; from now on passes are short."""
        self._collect()
        gc.set_threshold(YOUNG, PASSES, 1 << 30)
        gc.callbacks.append(self._on_pass)

    def stop(self) -> None:
        """Let the collector work as it did before ``start``."""
        gc.callbacks.remove(self._on_pass)
        gc.set_threshold(*self._thresholds)
        gc.unfreeze()

    async def run(self) -> None:
        """Collect everything in quiet moments, until cancelled."""
        while True:
            await asyncio.sleep(LOOK)
            with suppress(TidegateError):
                await self.look()

    async def look(self) -> bool:
        """Collect everything where the time has come and nothing runs; return whether it did."""
        if not self._frozen or time.monotonic() < self._next or await self._running():
            return False
        gc.unfreeze()
        self._collect()
        return True

    def _collect(self) -> None:
        began = time.monotonic()
        found = gc.collect()
        gc.freeze()
        self._frozen = False
        self._next = time.monotonic() + INTERVAL
        _log.debug("collected", ms=round((time.monotonic() - began) * 1000, 1), found=found)

    def _on_pass(self, phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and info["generation"] == 1:
            gc.freeze()
            self._frozen = True
