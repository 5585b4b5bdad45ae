"""Counts the user instructions of another process with ``perf stat``, where it is installed and permitted."""

import asyncio
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from types import TracebackType
from typing import Final, Self

PERF: Final = shutil.which("perf")
EVENT: Final = "instructions:u"


async def countable() -> bool:
    """Whether ``perf`` is installed and may count."""
    if PERF is None:
        return False
    perf = await asyncio.create_subprocess_exec(
        PERF, "stat", "-x,", "-e", EVENT, "--", sys.executable, "-c", "", stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
    )
    _, output = await perf.communicate()
    return _total(output) is not None


class Instructions:
    """Counts instructions within the ``with`` block.

    Args:
        pid: the process; None to count nothing.

    Attributes:
        total: the count, after the block; None where it is unknown.
    """

    def __init__(self, pid: int | None) -> None:
        self.total: int | None = None
        self._pid = pid
        self._perf: Process | None = None

    async def __aenter__(self) -> Self:
        if PERF is not None and self._pid is not None:
            self._perf = await asyncio.create_subprocess_exec(
                PERF, "stat", "-x,", "-e", EVENT, "-p", str(self._pid), stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
            )
            await asyncio.sleep(0.05)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._perf is None:
            return
        if self._perf.returncode is None:
            self._perf.send_signal(signal.SIGINT)
        _, output = await self._perf.communicate()
        self.total = _total(output)


def _total(output: bytes) -> int | None:
    for line in output.decode(errors="replace").splitlines():
        count = line.partition(",")[0]
        if EVENT in line and count.isdigit():
            return int(count)
    return None
