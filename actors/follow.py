"""Reading a stream in this process: the reader behind SSE, the compatible dialects and ``async for``.

::

    async with Follower(handle.stream) as follower:
        async for item in follower:            # Entry, or Snapshot for a reader that was left behind
            ...

A follower holds a cursor. It never holds back the writer; leaving it unsubscribes and nothing more.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from protocol.errors import UnrecoverablePosition
from protocol.events import Entry, EventStream, Position, Snapshot

Batch = Sequence[Entry] | Snapshot


def locate(stream: EventStream, position: Position | None) -> int:
    """Return the offset to go on from; the beginning for no position.

    Raises:
        UnrecoverablePosition: the position is of another epoch, beyond the end, or no longer held.
    """
    if position is None:
        return 0
    if position.epoch != stream.epoch:
        message = f"epoch {position.epoch[:40]!r} is not this log's, which is {stream.epoch!r}"
        raise UnrecoverablePosition(message)
    if not stream.first - 1 <= position.offset <= stream.offset:
        message = f"offset {position.offset} is not within {stream.first - 1}..{stream.offset}"
        raise UnrecoverablePosition(message)
    return position.offset


class Follower:
    """A cursor on a stream, with waiting.

    Args:
        stream: what to read.
        after: the exclusive offset to begin at; see :func:`locate` for positions.
        idle: seconds without news after which :meth:`next` returns an empty batch; None for never.
    """

    def __init__(self, stream: EventStream, *, after: int = 0, idle: float | None = None) -> None:
        self.cursor = after
        self._stream = stream
        self._idle = idle
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()

    async def __aenter__(self) -> Self:
        self._stream.listen(self._wake)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave. Calling it again does nothing."""
        self._stream.unlisten(self._wake)
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._wake()

    async def next(self) -> Batch | None:
        """Return what is new, waiting for it; None once the terminal entry has been given.

        A batch is every entry since the last call, in order. It is a ``Snapshot`` where the log no longer has them one
        by one, and empty where nothing came for ``idle`` seconds.
        """
        while not self._ended:
            batch = self._take()
            if batch is not None:
                self._heard = self._loop.time()
                return batch
            if self._stream.ended:
                return None
            if self._idle is not None:
                if self._loop.time() - self._heard >= self._idle:
                    self._heard = self._loop.time()
                    return ()
                if self._timer is None:
                    self._timer = self._loop.call_at(self._heard + self._idle, self._alarm)
            self._waiter = self._loop.create_future()
            await self._waiter
        return None

    async def __aiter__(self) -> AsyncIterator[Entry | Snapshot]:
        """Give one entry after the other, to the end."""
        while (batch := await self.next()) is not None:
            if isinstance(batch, Snapshot):
                yield batch
            else:
                for entry in batch:
                    yield entry

    def _take(self) -> Batch | None:
        stream = self._stream
        if stream.offset <= self.cursor:
            return None
        try:
            entries = stream.since(self.cursor)
        except UnrecoverablePosition:
            snapshot = stream.snapshot()
            self.cursor = snapshot.offset
            return snapshot
        self.cursor = entries[-1].offset
        self._ended = entries[-1].terminal
        return entries

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _alarm(self) -> None:
        self._timer = None
        self._wake()
