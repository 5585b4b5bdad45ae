"""How many calls a target's rate limit has room for, learnt from what its answers say."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from actors.runtime import Clock, Handle
from actors.targets.turns import Line
from protocol.errors import Overloaded
from protocol.upstream import Allowance, Unit

LONGEST: Final = 60.0  # seconds for which an answer is believed, and so the longest that it keeps calls waiting


class Ticket(msgspec.Struct, frozen=True):
    """How much had been sent when a call was, the call itself included."""

    calls: int = 0
    tokens: int = 0


class _Known:
    """One limit: what remained at ``seen``, by how much that grows each second, and until when we go by it."""

    __slots__ = ("_rate", "_remaining", "_seen", "unit", "until")

    def __init__(self, unit: Unit, remaining: float, rate: float, seen: float, until: float) -> None:
        self.unit = unit
        self.until = until
        self._remaining = remaining
        self._rate = rate
        self._seen = seen

    def opens(self, need: float) -> float:
        """Return when there is room for ``need``, with all that has been sent since included in it."""
        short = need - self._remaining
        if short <= 0:
            return self._seen
        return min(self.until, self._seen + short / self._rate) if self._rate else self.until


class RateWindow:
    """Keeps calls back that a target's rate limit has no room for, until it has.

    What an answer says holds as of when its call was sent: what has been sent since counts against it. The vendors fill
    their limits up steadily, and ``reset`` is when one is full; so there is room for the next call after its share of
    that time. A target that refused nevertheless is left alone until it said, or until the reset.

    Who waits is served as ``Line`` says. There is one timer, for the next in turn. Where answers say nothing of limits
    it costs nothing.

    Args:
        name: the target's.
        clock: the time.
        queue: calls that may wait.
    """

    __slots__ = ("_as_of", "_clock", "_known", "_line", "_name", "_sent", "_timer")

    def __init__(self, name: str, clock: Clock, *, queue: int) -> None:
        self._name = name
        self._clock = clock
        self._known: list[_Known] = []
        self._line: Line[Ticket] = Line(queue, self._full)
        self._sent = self._as_of = Ticket()
        self._timer: Handle | None = None

    @property
    def queued(self) -> int:
        """How many calls wait."""
        return self._line.queued

    @property
    def unlimited(self) -> bool:
        """Whether nothing is known of any limit, so that entering would not wait."""
        return not self._known

    @property
    def wait(self) -> float:
        """Seconds until there is room for one more call, however small; 0 for now."""
        return self.wait_for(1)

    def wait_for(self, tokens: int) -> float:
        """Return the seconds until there is room for one more call of this size; 0 for now."""
        return self._wait(tokens) if self._known else 0.0

    async def enter(self, tenant: str, tokens: Callable[[], int], deadline: float) -> Ticket:
        """Wait until there is room for a call, and count it as sent.

        Args:
            tenant: who asks.
            tokens: about how many the call sends; is asked only where the target limits anything.
            deadline: when the call is pointless.

        Raises:
            Overloaded: ``provider_overloaded``: there is no room before ``deadline``, or too many wait for it.
        """
        if not self._known:
            return self._send(0)
        size = tokens()
        wait = self._wait(size)
        if not wait:
            return self._send(size)
        if self._clock.time() + wait >= deadline:
            raise self._closed(wait)
        try:
            if not self._line.queued:
                self._arm(self._clock.time() + wait)
            return await self._line.wait(tenant, _counted, size=size)
        finally:
            if not self._line.queued:
                self._disarm()

    def heard(
        self, ticket: Ticket, said: Sequence[Allowance], *, refused: bool = False, retry_after: float | None = None
    ) -> None:
        """Learn from an answer to the call of ``ticket``; one to an earlier call than the last is too old.

        Args:
            ticket: what ``enter`` returned.
            said: the limits in the answer.
            refused: whether it was a refusal because of them.
            retry_after: the seconds that the refusal asks for.
        """
        if not said or ticket.calls < self._as_of.calls:
            return
        now = self._clock.time()
        self._as_of = ticket
        self._known = [_known(allowance, now) for allowance in said]
        if refused:
            if retry_after is None:
                retry_after = max((one.reset for one in said if not one.remaining), default=0.0)
            self._known.append(_Known("calls", 0, 0, now, now + min(retry_after, LONGEST)))
        self._serve()

    def _wait(self, size: int) -> float:
        """Return the seconds until a call of this size, after all that wait, may be sent."""
        now = self._clock.time()
        self._known = [known for known in self._known if known.until > now]
        line = self._line
        return max(0.0, self._opens(line.queued + 1, line.sizes + size) - now)

    def _opens(self, calls: int, tokens: int) -> float:
        needs = {
            "calls": calls + self._sent.calls - self._as_of.calls,
            "tokens": tokens + self._sent.tokens - self._as_of.tokens,
            "output": calls,
        }
        return max((known.opens(needs[known.unit]) for known in self._known), default=0.0)

    def _send(self, tokens: int) -> Ticket:
        self._sent = Ticket(self._sent.calls + 1, self._sent.tokens + tokens)
        return self._sent

    def _serve(self) -> None:
        """Let all in that there is room for, and look again when there is for the next."""
        self._disarm()
        while (size := self._line.next_size) is not None:
            now = self._clock.time()
            self._known = [known for known in self._known if known.until > now]
            opens = self._opens(1, size)
            if opens > now:
                self._arm(opens)
                return
            self._line.hand(self._send(size))

    def _arm(self, when: float) -> None:
        self._timer = self._clock.call_at(when, self._serve)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _full(self) -> Overloaded:
        return self._closed(self.wait)

    def _closed(self, wait: float) -> Overloaded:
        message = f"the rate limit of {self._name} has no room for {wait:.3g} s, and {self.queued} calls wait for it"
        return Overloaded(message, code="provider_overloaded", retry_after=wait)


def _known(said: Allowance, now: float) -> _Known:
    rate = max(0, said.limit - said.remaining) / said.reset
    return _Known(said.unit, said.remaining, rate, now, now + min(said.reset, LONGEST))


def _counted(_ticket: Ticket) -> None:
    """Count a call that was given up when its turn had come as sent: the next answer knows better."""
