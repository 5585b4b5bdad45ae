"""The deadlines of asks: exact to the clock, and almost free for asks that are answered soon."""

from typing import Final

from actors.runtime.clock import Clock, Handle
from actors.runtime.envelope import Envelope
from protocol.errors import AskTimeout

PROMPT: Final = 0.25  # seconds: an ask that is answered sooner needs no timer of its own


class Deadlines:
    """The deadlines of all asks that have no reply yet.

    Most asks are answered within a pass or two of the loop, and a timer made and cancelled for each would cost more
    than its message. So one shared timer runs every ``PROMPT`` seconds while there are asks, and gives each ask that
    still has no reply a timer of its own, for its exact deadline.

    Args:
        clock: the system's clock.
    """

    __slots__ = ("_clock", "_shared", "_young")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._young: dict[Envelope, None] = {}
        self._shared: Handle | None = None

    def add(self, envelope: Envelope, now: float) -> None:
        """Let the ask raise ``AskTimeout`` at its deadline, unless it is discarded before."""
        if envelope.deadline <= now + PROMPT:
            self._give_timer(envelope)
            return
        self._young[envelope] = None
        if self._shared is None:
            self._shared = self._clock.call_at(now + PROMPT, self.give_timers)

    def discard(self, envelope: Envelope) -> None:
        """Forget an ask that is over."""
        if envelope.timer is None:
            del self._young[envelope]
        else:
            envelope.timer.cancel()

    def give_timers(self) -> None:
        """Give each ask that has none a timer of its own."""
        if self._shared is not None:
            self._shared.cancel()
            self._shared = None
        for envelope in self._young:
            self._give_timer(envelope)
        self._young.clear()

    def _give_timer(self, envelope: Envelope) -> None:
        envelope.timer = self._clock.call_at(envelope.deadline, _expire, envelope)


def _expire(envelope: Envelope) -> None:
    if envelope.reply is not None and not envelope.reply.done():
        envelope.reply.set_exception(AskTimeout(f"{envelope.actor} did not answer in time"))
