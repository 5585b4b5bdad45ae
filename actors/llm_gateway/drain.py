"""Drain: reads cancelled streams on for a moment, because a provider reports the usage at the end of a stream."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final

from actors.llm_gateway.provider import AnswerStream
from actors.runtime import System
from actors.upstream.timeouts import TimeoutScope
from protocol.errors import ShuttingDown, TidegateError
from protocol.events import ToolCallDelta, VendorBlock
from protocol.parts import Piece
from protocol.upstream import Deltas

STREAMS: Final = 64  # that are read at once; any further one is closed at once


class Drain:
    """Reads a bounded number of streams, for a bounded time each, in tasks that the system owns.

    Args:
        system: owns the tasks, and has the clock.
        seconds: for which a stream is read at most; 0 closes it at once.
        streams: the most that are read at once.
    """

    __slots__ = ("_places", "_seconds", "_system")

    def __init__(self, system: System, *, seconds: float, streams: int = STREAMS) -> None:
        self._system = system
        self._seconds = seconds
        self._places = streams

    def take(self) -> bool:
        """Take a place, which ``read`` gives back; False where there is none."""
        if not self._places or self._seconds <= 0:
            return False
        self._places -= 1
        return True

    async def read(self, deferred: "DeferredClose", seconds: float) -> int:
        """Read a stream that was left open, to its end or until the time is over, close it, and give its place back.

        Args:
            deferred: has the stream.
            seconds: the time; 0 closes it at once.

        Returns:
            How many characters of content came.
        """
        chars, stream = 0, deferred.stream_left
        try:
            if stream is not None and seconds > 0:
                with TimeoutScope(self._system.clock, self._system.clock.time() + seconds):
                    async for pieces in stream:
                        chars += size(pieces)
        except TidegateError:
            return chars
        else:
            return chars
        finally:
            self._places += 1
            await deferred.close()

    async def later(self, work: Callable[[float], Coroutine[Any, Any, None]]) -> None:
        """Run ``work`` in a task of its own with the seconds it may read for; while the system ends, here with 0."""
        try:
            _ = self._system.background(work(self._seconds), name="llm-gateway/drain")
        except ShuttingDown:
            await _uninterrupted(work(0.0))


class DeferredClose:
    """The context of a provider's stream, whose closing can be deferred after a failure.

    ::

        new ──enter──► open ──exit──► closed
                        └──exit, deferred──► left open ──close──► closed

    Args:
        context: the provider's.
        defers: returns whether the stream stays open after this failure.

    Attributes:
        stream_left: the stream while it is left open; otherwise None.
    """

    __slots__ = ("_context", "_defers", "_stream", "stream_left")

    def __init__(
        self, context: AbstractAsyncContextManager[AnswerStream], defers: Callable[[BaseException], bool]
    ) -> None:
        self._context = context
        self._defers = defers
        self._stream: AnswerStream | None = None
        self.stream_left: AnswerStream | None = None

    async def __aenter__(self) -> AnswerStream:
        self._stream = await self._context.__aenter__()
        return self._stream

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self._defers(error):
            self.stream_left = self._stream
        else:
            await self._context.__aexit__(kind, error, traceback)

    async def close(self) -> None:
        """Close a stream that was left open; the connection of a whole answer goes back to its pool."""
        self.stream_left = None
        await self._context.__aexit__(None, None, None)


async def _uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` to its end, also where the caller is cancelled meanwhile; the cancellation is raised after it."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise


def size(pieces: Deltas) -> int:
    """Return the number of characters that the model has written: vendors' blocks have none."""
    return sum([_written(piece) for piece in pieces])


def _written(piece: Piece) -> int:
    if isinstance(piece, ToolCallDelta):
        return len(piece.name) + len(piece.arguments)
    return 0 if isinstance(piece, VendorBlock) else len(piece.text)
