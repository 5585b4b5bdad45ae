"""The deadlines of one piece of waiting, all on one timer."""

import asyncio
from types import TracebackType
from typing import Final, Self

from actors.runtime import Clock, Handle
from protocol.errors import DeadlineExceeded, ProviderError

NEVER: Final = float("inf")


class Watch:
    """Ends the block it guards when the request is out of time, or when the provider is silent for too long.

    A sign of life costs a look at the clock and no timer: the one timer checks, when it fires, how long ago that was.

    Args:
        clock: the time.
        deadline: when the whole request is out of time.
        silence: the longest silence in seconds, from entering on; None for any.

    Raises:
        DeadlineExceeded: on leaving, at the deadline.
        ProviderError: ``provider_timeout``: on leaving, after too long a silence.
    """

    __slots__ = ("_clock", "_deadline", "_due", "_heard", "_held", "_scope", "_silence", "_timer")

    def __init__(self, clock: Clock, deadline: float, silence: float | None = None) -> None:
        self._clock = clock
        self._deadline = deadline
        self._silence = NEVER if silence is None else silence
        self._heard = 0.0
        self._held = False
        self._due = NEVER
        self._timer: Handle | None = None
        self._scope = asyncio.timeout(None)

    def hold(self) -> None:
        """Don't count silence until the next sign of life: it is not the provider who keeps us waiting."""
        self._held = True

    def heard(self) -> None:
        """There was a sign of life."""
        self._held = False
        self._heard = self._clock.time()
        if self._moment() < self._due:
            self._arm()

    def expect(self, silence: float | None) -> None:
        """From now on this is the longest silence; None for any."""
        self._silence = NEVER if silence is None else silence
        self.heard()

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        self._heard = self._clock.time()
        self._arm()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            await self._scope.__aexit__(kind, error, traceback)
        except TimeoutError as expired:
            if self._clock.time() >= self._deadline:
                raise DeadlineExceeded from expired
            raise ProviderError(code="provider_timeout") from expired

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
        elif self._timer is not None:
            asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        if self._timer is None:
            return
        if self._clock.time() < self._moment():
            self._arm()
        else:
            self._scope.reschedule(asyncio.get_running_loop().time())


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
