"""The deadlines of one piece of waiting, all on one timer."""

import asyncio
from types import TracebackType
from typing import Any, Final, Self

from actors.runtime import Clock, Handle
from protocol.errors import DeadlineExceeded, ProviderError

NEVER: Final = float("inf")


class Watch:
    """Ends the block it guards when the request is out of time, or when the provider is silent for too long.

    A sign of life costs a look at the clock and no timer: the one timer checks, when it fires, how long ago that was.
    Being cancelled by somebody else stays that, also where the time is up in the same moment.

    Args:
        clock: the time.
        deadline: when the whole request is out of time.
        silence: the longest silence in seconds, from entering on; None for any.

    Raises:
        DeadlineExceeded: on leaving, at the deadline.
        ProviderError: ``provider_timeout``: on leaving, after too long a silence.
    """

    __slots__ = ("_cancelling", "_clock", "_deadline", "_due", "_heard", "_held", "_silence", "_task", "_timer", "_up")

    def __init__(self, clock: Clock, deadline: float, silence: float | None = None) -> None:
        self._clock = clock
        self._deadline = deadline
        self._silence = NEVER if silence is None else silence
        self._heard = 0.0
        self._held = False
        self._due = NEVER
        self._timer: Handle | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._up = False

    def hold(self) -> None:
        """Don't count silence until the next sign of life: it is not the provider who keeps us waiting."""
        self._held = True

    def heard(self) -> None:
        """There was a sign of life."""
        self._held = False
        self._heard = self._clock.time()
        if self._heard + self._silence < self._due:
            self._arm()

    def expect(self, silence: float | None) -> None:
        """From now on this is the longest silence; None for any."""
        self._silence = NEVER if silence is None else silence
        self.heard()

    def __enter__(self) -> Self:
        task = self._task = asyncio.current_task()
        if task is None:
            raise RuntimeError("there is no task that could be guarded")
        self._cancelling = task.cancelling()
        self._heard = self._clock.time()
        self._arm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        task, self._task = self._task, None
        if not self._up or task is None or task.uncancel() > self._cancelling:
            return
        if kind is asyncio.CancelledError:
            if self._clock.time() >= self._deadline:
                raise DeadlineExceeded from error
            raise ProviderError(code="provider_timeout") from error

    def _moment(self) -> float:
        return self._deadline if self._held else min(self._deadline, self._heard + self._silence)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = self._moment()
        if self._due < NEVER:
            self._timer = self._clock.call_at(self._due, self._check)

    def _check(self) -> None:
        """Look whether time is up; where it seems so, once more in the next turn of the loop.

        After a pause of the whole process the timer comes before the bytes that were waiting at the socket all along.
        """
        if self._clock.time() < self._moment():
            self._arm()
        else:
            asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        if self._task is None or self._up:
            return
        if self._clock.time() < self._moment():
            self._arm()
        else:
            self._up = True
            self._task.cancel()


async def pause(clock: Clock, seconds: float) -> None:
    """Wait for ``seconds`` of the clock."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not done.done():
            done.set_result(None)

    timer = clock.call_at(clock.time() + seconds, wake)
    try:
        await done
    finally:
        timer.cancel()
