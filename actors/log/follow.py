"""Followers: readers of a stream in this process, behind SSE, the compatible dialects and ``async for``.

::

    async for item in handle.follow():         # each Entry, after a Snapshot where the reader wants one
        ...

A follower holds a cursor. It never blocks the writer, it never misses an entry however far it is behind, and closing it
only unsubscribes. The loop above closes it at the
end; use ``async with handle.follow() as items`` for a loop that may break before that.
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
    """Where a reader begins.

    Attributes:
        after: the exclusive offset to start from; unused with a ``snapshot``.
        snapshot: whether a snapshot comes first, then the entries after it.
        recovered: whether the reader's content is part of this log; if not, the reader has to discard it.
    """

    after: int = 0
    snapshot: bool = False
    recovered: bool = True


def open_at(stream: EventStream, position: Position | None, mode: Mode | None = None) -> Opening:
    """Return where a reader begins that has everything up to ``position``.

    Args:
        stream: the stream to read.
        position: None for a reader that has nothing: it begins at the first entry.
        mode: ``replay``: each entry after the position; ``snapshot``: one snapshot, then the entries after it;
            ``live``: only later entries, for an ended stream its terminal entry; None: a replay, or a snapshot where
            the position is of another epoch.

    Raises:
        UnrecoverablePosition: the position lies beyond the end; or ``mode`` is ``replay``, and the position is of
            another epoch.
    """
    known = position is None or position.epoch == stream.epoch
    after = 0 if position is None else position.offset
    if known and after > stream.offset:
        raise UnrecoverablePosition(f"offset {after} is beyond the end, {stream.offset}")
    if mode == "live":
        return Opening(stream.offset - stream.ended, recovered=known)
    if mode == "snapshot":
        return Opening(snapshot=True, recovered=known)
    if known and after >= 0:
        return Opening(after)
    if mode is None:
        return Opening(snapshot=True, recovered=False)
    if position is not None and not known:
        raise UnrecoverablePosition(f"epoch {position.epoch[:40]!r} is not this log's, which is {stream.epoch!r}")
    raise UnrecoverablePosition(f"offset {after} is not within 0..{stream.offset}")


def follow(
    stream: EventStream, after: Position | None = None, mode: Mode | None = None, *, idle: float | None = None
) -> "Follower":
    """Return a follower of ``stream`` from ``after`` on; see :func:`open_at` for ``mode`` and what it raises."""
    opening = open_at(stream, after, mode)
    return Follower(stream, after=opening.after, snapshot=opening.snapshot, idle=idle)


class Follower:
    """A cursor on a stream that can wait for more.

    ::

        new --next, or async with--> listening --terminal entry, or close--> closed

    Args:
        stream: the stream to read.
        after: the exclusive offset to start from; see :func:`open_at` for positions.
        snapshot: whether a snapshot comes first; ``after`` is then unused.
        idle: seconds without an entry after which :meth:`next` returns an empty batch; None for never.

    Attributes:
        cursor: the offset up to which it has returned everything.
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
        self._behind = False  # whether the last batch was a page, and there is more
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._last_batch = self._loop.time()

    async def __aenter__(self) -> Self:
        self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening; :meth:`next` then returns None. Calling it again does nothing."""
        self._stream.unlisten(self._wake)
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._wake()

    async def next(self) -> Batch | None:
        """Wait for new entries and return them; return None after the terminal entry.

        A batch has the entries since the last call, in order: all of them, or one page of a log that has packed some.
        After a page the loop turns once before the next one, so that a reader of a long log leaves others their time.
        A batch is a ``Snapshot`` only where the follower begins with one, and empty where no entry came for ``idle``
        seconds.
        """
        self._listen()
        if self._behind:
            await asyncio.sleep(0)
        while not self._ended:
            batch = self._take()
            if batch is not None:
                self._last_batch = self._loop.time()
                return batch
            if self._stream.ended:
                return None
            if self._idle is not None:
                if self._loop.time() - self._last_batch >= self._idle:
                    self._last_batch = self._loop.time()
                    return ()
                if self._timer is None:
                    self._timer = self._loop.call_at(self._last_batch + self._idle, self._alarm)
            self._waiter = self._loop.create_future()
            await self._waiter
        return None

    async def __aiter__(self) -> AsyncIterator[Entry | Snapshot]:
        """Yield each entry up to the terminal one; a loop outside ``async with`` closes the follower when it ends."""
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
        entries = stream.since(self.cursor)
        last = entries[-1]
        self.cursor, self._ended = last.offset, last.terminal
        self._behind = last.offset < stream.offset
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
