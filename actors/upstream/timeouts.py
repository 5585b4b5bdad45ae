"""Deadline and silence timeout of a block of code, both on one timer."""

import asyncio
from types import TracebackType
from typing import Any, Final, Self

from actors.runtime import Clock, Handle
from protocol.errors import DeadlineExceeded, ProviderError

NEVER: Final = float("inf")
MAX_PINGED: Final = 600.0  # seconds for which signs without content put off the silence timeout


class TimeoutScope:
    """Cancels the block it guards at the request's deadline, or when the provider is silent for too long.

    ::

        new ──enter──► running ──deadline or silence──► expired ──exit──► raises
                          └──exit──► left

    A sign of life costs a look at the clock and no timer: the one timer checks, when it fires, how long ago that was.
    A cancellation from outside stays a cancellation, also where the time is up in the same moment.

    Args:
        clock: the time.
        deadline: when the whole request is out of time.
        silence: the longest silence in seconds, from entering on; None for any.

    Raises:
        DeadlineExceeded: on leaving, at the deadline.
        ProviderError: ``provider_timeout``: on leaving, after too long a silence.
    """

    __slots__ = (
        "_alive",
        "_cancelling",
        "_clock",
        "_deadline",
        "_due",
        "_expired",
        "_last_sign",
        "_paused",
        "_silence",
        "_task",
        "_timer",
    )

    def __init__(self, clock: Clock, deadline: float, silence: float | None = None) -> None:
        self._clock = clock
        self._deadline = deadline
        self._silence = NEVER if silence is None else silence
        self._last_sign = 0.0
        self._alive = 0.0  # the last sign without content
        self._paused = False
        self._due = NEVER
        self._timer: Handle | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._expired = False

    def pause_silence(self) -> None:
        """Count no silence until the next sign of life: our own code, and not the provider, is slow."""
        self._paused = True

    def sign_of_life(self) -> None:
        """Count the silence from now on."""
        self._paused = False
        self._last_sign = self._clock.time()
        if self._last_sign + self._silence < self._due:
            self._arm()

    def stay_alive(self) -> None:
        """Count the silence from now on, but for ``MAX_PINGED`` seconds after the last sign of life at most.

        For what shows that the provider is there, such as a ping, and brings nothing.
        """
        self._alive = self._clock.time()

    def limit_silence(self, silence: float | None) -> None:
        """Set the longest silence, in seconds, and count it from now on; None for any."""
        self._silence = NEVER if silence is None else silence
        self.sign_of_life()

    def __enter__(self) -> Self:
        task = self._task = asyncio.current_task()
        if task is None:
            raise RuntimeError("there is no task that could be guarded")
        self._cancelling = task.cancelling()
        self._last_sign = self._clock.time()
        self._arm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        task, self._task = self._task, None
        if not self._expired or task is None or task.uncancel() > self._cancelling:
            return
        if kind is asyncio.CancelledError:
            if self._clock.time() >= self._deadline:
                raise DeadlineExceeded from error
            raise ProviderError(code="provider_timeout") from TimeoutError(f"nothing came for {self._silence:g} s")

    def _expires(self) -> float:
        if self._paused:
            return self._deadline
        last = max(self._last_sign, min(self._alive, self._last_sign + MAX_PINGED))
        return min(self._deadline, last + self._silence)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = self._expires()
        if self._due < NEVER:
            self._timer = self._clock.call_at(self._due, self._check)

    def _check(self) -> None:
        """Look whether time is up; where it seems so, look once more in the next turn of the loop.

        After a pause of the whole process the timer runs before the bytes that have long been waiting at the socket.
        """
        if self._clock.time() < self._expires():
            self._arm()
        else:
            asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        if self._task is None or self._expired:
            return
        if self._clock.time() < self._expires():
            self._arm()
        else:
            self._expired = True
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
