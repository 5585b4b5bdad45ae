"""A client of chat completions: times a number of calls, or calls steadily until it is told to stop.

All requests differ from each other, so none is joined or comes from the cache.
"""

import asyncio
import itertools
import statistics
import time
from collections import Counter
from typing import Any, Final

import aiohttp
import msgspec

from benchmarks.processes import control

WITHIN: Final = 100.0  # seconds for all calls of one measurement
PERCENTILES: Final = {"p50": 50, "p99": 99}


class Asking:
    """Calls one service.

    Args:
        session: the connections.
        url: the URL of the calls.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self._numbers = itertools.count()
        self._pressure: list[asyncio.Task[None]] = []
        self._ended: Counter[int] = Counter()

    async def measure(self, model: str, count: int, connections: int, pause: float) -> dict[str, float]:
        """Make ``count`` calls, and return the percentiles of their durations, in milliseconds.

        ``connections`` calls run at once; the next one follows ``pause`` seconds after an answer.
        """
        left = iter(range(count))
        took: list[float] = []

        async def one_after_the_other() -> None:
            for _ in left:
                started = time.perf_counter()
                status = await self._ask(model)
                assert status == 200, f"{model} was answered with {status}"
                took.append((time.perf_counter() - started) * 1e3)
                await asyncio.sleep(pause)

        async with asyncio.timeout(WITHIN), asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(one_after_the_other())
        cuts = statistics.quantiles(took, n=100, method="inclusive")
        return {name: cuts[percent - 1] for name, percent in PERCENTILES.items()}

    async def press(self, model: str, callers: int, pause: float) -> None:
        """Start callers that call again ``pause`` seconds after each answer, until ``release``.

        They start one after the other within the first pause, to avoid bursts.
        """
        self._ended.clear()
        waits = (pause * number / callers for number in range(callers))
        self._pressure = [asyncio.create_task(self._press(model, wait, pause)) for wait in waits]

    async def release(self) -> dict[str, int]:
        """Cancel the callers, and return the number of answers by status."""
        for task in self._pressure:
            task.cancel()
        ended = await asyncio.gather(*self._pressure, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended
        return {str(status): count for status, count in self._ended.items()}

    async def _press(self, model: str, wait: float, pause: float) -> None:
        await asyncio.sleep(wait)
        while True:
            self._ended[await self._ask(model)] += 1
            await asyncio.sleep(pause)

    async def _ask(self, model: str) -> int:
        messages = [{"role": "user", "content": f"question {next(self._numbers)}"}]
        body = msgspec.json.encode({"model": model, "messages": messages})
        async with self._session.post(self._url, data=body) as response:
            await response.read()
            return response.status


async def main() -> None:
    """Run the parent's commands until it ends."""
    chosen: dict[str, Any] = control.options()
    headers = {"Authorization": f"Bearer {chosen['key']}", "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        asking = Asking(session, f"{chosen['address']}/v1/chat/completions")
        await control.serve({}, measure=asking.measure, press=asking.press, release=asking.release)


if __name__ == "__main__":
    control.run(main())
