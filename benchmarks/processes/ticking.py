"""Events of the hubs to compare with: the same events at the same due times."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

WORD: Final = "token "
LEAD_TIME: Final = 0.05  # seconds from the command to the first tick

Event = Mapping[str, object]


async def paced(start: float, count: int, interval: float) -> AsyncIterator[int]:
    """Yield ticks, each at its due time; a late tick does not delay the later ones."""
    for tick in range(count):
        await asyncio.sleep(max(0.0, start + tick * interval - time.monotonic()))
        yield tick


def text_of(event: Event) -> str:
    """Return an event as JSON."""
    return msgspec.json.encode(event).decode()


def framed(event: Event) -> bytes:
    """Return an event as a server's text frame, which is a small one."""
    payload = msgspec.json.encode(event)
    assert len(payload) < 126
    return bytes((0x81, len(payload))) + payload


class Ticker:
    """Makes events, numbered from 1 in each run.

    Args:
        send: sends a tick's events to every client.
    """

    def __init__(self, send: Callable[[Sequence[Event]], Awaitable[object]]) -> None:
        self._send = send
        self._running: set[asyncio.Task[None]] = set()

    async def ticks(self, count: int, events: int, interval: float) -> float:
        """Start ticking, and return the due time of the first tick, by the clock that all processes share."""
        start = time.monotonic() + LEAD_TIME
        task = asyncio.create_task(self._run(start, count, events, interval))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return start

    async def _run(self, start: float, count: int, events: int, interval: float) -> None:
        async for tick in paced(start, count, interval):
            first = tick * events + 1
            await self._send(
                [
                    {"type": "update", "requestId": "req_1", "offset": offset, "data": {"delta": WORD}}
                    for offset in range(first, first + events)
                ]
            )
