"""A time limit for clients that read nothing; one that reads slowly is within it."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final

LOOKS: Final = 10  # within a limit's time, at whether the client has read


class StallLimit:
    """Cancels its block when a client has read nothing for some seconds.

    ::

        async with StallLimit(transport.get_write_buffer_size, 30.0):
            await write(data)

    Args:
        buffered: returns the number of bytes that are written and that the client has not taken.
        seconds: without any of these bytes taken, after which ``TimeoutError`` is raised. It is put off whenever there
            are fewer than before.

    Raises:
        TimeoutError: at the end of the block, as ``asyncio.timeout`` does.
    """

    __slots__ = ("_buffered", "_last", "_limit", "_loop", "_seconds", "_timer")

    def __init__(self, buffered: Callable[[], int], seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffered = buffered
        self._seconds = seconds
        self._last = 0
        self._limit = asyncio.timeout(seconds)
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()
        self._last = self._buffered()
        self._wait()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._limit.__aexit__(kind, error, trace)

    def _wait(self) -> None:
        self._timer = self._loop.call_later(self._seconds / LOOKS, self._look)

    def _look(self) -> None:
        buffered = self._buffered()
        if buffered < self._last and not self._limit.expired():
            self._limit.reschedule(self._loop.time() + self._seconds)
        self._last = buffered
        self._wait()
