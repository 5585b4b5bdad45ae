"""Reading a stream in this process: the reader behind SSE, the compatible dialects and ``async for``.

::

    async for item in handle.follow():         # Entry, or Snapshot for a reader that was left behind
        ...

A follower holds a cursor. It never holds back the writer; leaving it unsubscribes and nothing more. The loop above
leaves at the end; one that may break off before is best within ``async with handle.follow() as items``.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

import msgspec

from protocol.errors import UnrecoverablePosition
from protocol.events import Entry, EventStream, Position, Snapshot
from protocol.hub import Mode

Batch = Sequence[Entry] | Snapshot


class Opening(msgspec.Struct, frozen=True):
    """How a reader begins.

    Attributes:
        after: the exclusive offset to go on from; of no meaning with a ``snapshot``.
        snapshot: whether all content so far comes first, merged, and then what follows it.
        recovered: whether what the reader has is part of this log; otherwise it has to forget it.
    """

    after: int = 0
    snapshot: bool = False
    recovered: bool = True


def open_at(stream: EventStream, position: Position | None, mode: Mode | None = None) -> Opening:
    """Decide where in ``stream`` a reader begins that has everything up to ``position``.

    Args:
        stream: what it reads.
        position: None for a reader that has nothing: the beginning.
        mode: ``replay`` each entry after the position; one ``snapshot`` and what follows it; ``live``, only what
            follows, which for an ended stream is its end; None for a replay, or a snapshot where that can't be had.

    Raises:
        UnrecoverablePosition: the position lies beyond the end; or ``mode`` is ``replay``, and it is of another epoch
            or no longer held.
    """
    known = position is None or position.epoch == stream.epoch
    after = 0 if position is None else position.offset
    if known and after > stream.offset:
        raise UnrecoverablePosition(f"offset {after} is beyond the end, {stream.offset}")
    if mode == "live":
        return Opening(stream.offset - stream.ended, recovered=known)
    if mode == "snapshot":
        return Opening(snapshot=True, recovered=known)
    if known and after >= stream.first - 1:
        return Opening(after)
    if mode is None:
        return Opening(snapshot=True, recovered=False)
    if position is not None and not known:
        raise UnrecoverablePosition(f"epoch {position.epoch[:40]!r} is not this log's, which is {stream.epoch!r}")
    raise UnrecoverablePosition(f"offset {after} is not within {stream.first - 1}..{stream.offset}")


def follow(
    stream: EventStream, after: Position | None = None, mode: Mode | None = None, *, idle: float | None = None
) -> "Follower":
    """Return a reader of ``stream`` that begins where :func:`open_at` says; raises as it does."""
    opening = open_at(stream, after, mode)
    return Follower(stream, after=opening.after, snapshot=opening.snapshot, idle=idle)


class Follower:
    """A cursor on a stream, with waiting. It follows from the first step on, or from entering it.

    Args:
        stream: what to read.
        after: the exclusive offset to begin at; see :func:`open_at` for positions.
        snapshot: whether all content so far comes first, merged; ``after`` then has no meaning.
        idle: seconds without news after which :meth:`next` returns an empty batch; None for never.
    """

    def __init__(
        self, stream: EventStream, *, after: int = 0, snapshot: bool = False, idle: float | None = None
    ) -> None:
        self.cursor = after
        self._stream = stream
        self._snapshot = snapshot
        self._listening = False
        self._idle = idle
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()

    async def __aenter__(self) -> Self:
        self._listen()
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
        self._listen()
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
        """Give one entry after the other, to the end; a loop outside ``async with`` leaves when it is over."""
        entered = self._listening
        try:
            while (batch := await self.next()) is not None:
                if isinstance(batch, Snapshot):
                    yield batch
                else:
                    for entry in batch:
                        yield entry
        finally:
            if not entered:
                self.close()

    def _listen(self) -> None:
        if not self._listening and not self._ended:
            self._listening = True
            self._stream.listen(self._wake)

    def _take(self) -> Batch | None:
        stream = self._stream
        if self._snapshot:
            return self._merged()
        if stream.offset <= self.cursor:
            return None
        try:
            entries = stream.since(self.cursor)
        except UnrecoverablePosition:
            return self._merged()
        self.cursor = entries[-1].offset
        self._ended = entries[-1].terminal
        return entries

    def _merged(self) -> Snapshot:
        self._snapshot = False
        snapshot = self._stream.snapshot()
        self.cursor = snapshot.offset
        return snapshot

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _alarm(self) -> None:
        self._timer = None
        self._wake()
