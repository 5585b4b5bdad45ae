"""When askers give up: exact to the clock, and next to free for the asks that are answered at once."""

from typing import Final

from actors.runtime.clock import Clock, Handle
from actors.runtime.envelope import Envelope
from protocol.errors import AskTimeout

PROMPT: Final = 0.25  # seconds: an ask answered sooner than this never costs a timer


class Deadlines:
    """The deadlines of all asks under way.

    Most asks are answered within a turn or two of the loop, and a timer made and cancelled for each would cost more
    than its message. So one timer looks every ``PROMPT`` seconds, as long as there are asks, for those that are not
    answered yet, and gives each of them a timer of its own, for its exact deadline.

    Args:
        clock: the system's clock.
    """

    __slots__ = ("_clock", "_fresh", "_look")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._fresh: dict[Envelope, None] = {}
        self._look: Handle | None = None

    def add(self, envelope: Envelope, now: float) -> None:
        """Let the ask raise ``AskTimeout`` when its deadline has come, unless it is discarded first."""
        if envelope.deadline <= now + PROMPT:
            self._give_timer(envelope)
            return
        self._fresh[envelope] = None
        if self._look is None:
            self._look = self._clock.call_at(now + PROMPT, self.look)

    def discard(self, envelope: Envelope) -> None:
        """Forget an ask that is over."""
        if envelope.timer is None:
            del self._fresh[envelope]
        else:
            envelope.timer.cancel()

    def look(self) -> None:
        """Give the asks that are not over yet their timers."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        for envelope in self._fresh:
            self._give_timer(envelope)
        self._fresh.clear()

    def _give_timer(self, envelope: Envelope) -> None:
        envelope.timer = self._clock.call_at(envelope.deadline, _expire, envelope)


def _expire(envelope: Envelope) -> None:
    if envelope.reply is not None and not envelope.reply.done():
        envelope.reply.set_exception(AskTimeout(f"{envelope.actor} did not answer in time"))
    if envelope.room is not None and not envelope.room.done():
        envelope.room.set_result(None)
