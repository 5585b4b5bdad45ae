"""Streams that nobody reads any more: read on for a moment, because the tokens are counted at the end of them."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final

from actors.llm_gateway.provider import AnswerStream
from actors.runtime import System
from actors.upstream.timeouts import Watch
from protocol.errors import ShuttingDown, TidegateError
from protocol.events import ToolCallDelta
from protocol.upstream import Deltas

STREAMS: Final = 64  # that are read on at once; of any beyond them the socket is closed


class Drain:
    """Reads on in a bounded number of streams, for a bounded time each, in tasks that the system owns.

    Args:
        system: owns the tasks, and has the clock.
        seconds: for which a stream is read on at most; 0 closes it at once.
        streams: the most that are read on at once.
    """

    __slots__ = ("_left", "_seconds", "_system")

    def __init__(self, system: System, *, seconds: float, streams: int = STREAMS) -> None:
        self._system = system
        self._seconds = seconds
        self._left = streams

    def take(self) -> bool:
        """Take a place, where there is one; ``read`` gives it back."""
        if not self._left or self._seconds <= 0:
            return False
        self._left -= 1
        return True

    async def read(self, kept: "Kept", seconds: float) -> int:
        """Read a stream that was left, to its end or until the time is over, close it, and give its place back.

        Args:
            kept: what is left of an answer.
            seconds: the time; 0 for closing it at once.

        Returns:
            How many characters of content came.
        """
        chars, stream = 0, kept.left
        try:
            if stream is not None and seconds > 0:
                with Watch(self._system.clock, self._system.clock.time() + seconds):
                    async for pieces in stream:
                        chars += size(pieces)
        except TidegateError:
            return chars
        else:
            return chars
        finally:
            self._left += 1
            await kept.close()

    async def later(self, work: Callable[[float], Coroutine[Any, Any, None]]) -> None:
        """Do ``work`` with so many seconds to read in, in a task of its own; where the system ends, here with none."""
        try:
            _ = self._system.background(work(self._seconds), name="llm-gateway/drain")
        except ShuttingDown:
            await _to_its_end(work(0.0))


class Kept:
    """A provider's stream as a context that can be left without closing it: then it is ``left``, for ``close``.

    Args:
        context: the provider's.
        keep: is asked whether the stream stays open after this failure.

    Attributes:
        left: the stream, where it was left open.
    """

    __slots__ = ("_context", "_keep", "_stream", "left")

    def __init__(
        self, context: AbstractAsyncContextManager[AnswerStream], keep: Callable[[BaseException], bool]
    ) -> None:
        self._context = context
        self._keep = keep
        self._stream: AnswerStream | None = None
        self.left: AnswerStream | None = None

    async def __aenter__(self) -> AnswerStream:
        self._stream = await self._context.__aenter__()
        return self._stream

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self._keep(error):
            self.left = self._stream
        else:
            await self._context.__aexit__(kind, error, traceback)

    async def close(self) -> None:
        """Close a stream that was left; a connection whose answer came to its end goes back to its pool."""
        self.left = None
        await self._context.__aexit__(None, None, None)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do ``work`` also where everything is cancelled meanwhile, as it is when a system ends; only then be cancelled."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise


def size(pieces: Deltas) -> int:
    """Return how many characters of content there are."""
    return sum(
        len(piece.name) + len(piece.arguments) if isinstance(piece, ToolCallDelta) else len(piece.text)
        for piece in pieces
    )
