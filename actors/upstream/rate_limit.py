"""How many calls a target's rate limit has room for, learnt from what its answers say."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from actors.runtime import Clock, Handle
from actors.upstream.fair_queue import Line
from actors.upstream.reported_limit import Limit, said_limit, shut
from protocol.errors import Overloaded, ProviderError
from protocol.upstream import Allowance

PROBED: Final = 1.0  # seconds; refusals come at once, so a call that has not been refused by then is let in
PACE: Final = 0.005  # seconds from one call of a line to the next, so that nobody else has to wait for all of them


class Ticket(msgspec.Struct, frozen=True):
    """How much had been sent when a call was, the call itself included."""

    calls: int = 0
    tokens: int = 0


class RateWindow:
    """Keeps calls back that a target's rate limit has no room for, until it has.

    What an answer says holds as of when its call was sent: what has been sent since counts against it. The vendors fill
    their limits up steadily, and ``reset`` is when one is full; so there is room for the next call after its share of
    that time.

    ::

        open ─(refused)─► shut ─(until it said, or the reset)─► one probe ─► open, or shut again
                                                    └─(PROBED)─► open

    A target that refused nevertheless is left alone until it said, or until the reset. Then one call goes as a probe,
    and the others wait for what becomes of it. Where it is refused they are, too, as they would have been had they been
    sent. A probe that ends without an answer is followed by the next one.

    Who waits is served as ``Line`` says, one call each ``PACE``, and so are those told that they have waited in vain.
    Where answers say nothing of limits it costs nothing.

    Args:
        name: the target's.
        clock: the time.
        queue: calls that may wait; as many again may be waiting to be told that they have waited in vain.
    """

    __slots__ = (
        "_as_of",
        "_clock",
        "_doubted",
        "_known",
        "_leaving",
        "_line",
        "_name",
        "_probe",
        "_probed",
        "_sent",
        "_served",
        "_shut",
        "_timer",
    )

    def __init__(self, name: str, clock: Clock, *, queue: int) -> None:
        self._name = name
        self._clock = clock
        self._known: list[Limit] = []
        self._line: Line[Ticket] = Line(queue, self._full)
        self._leaving: Line[Ticket] = Line(queue, self._full)
        self._sent = self._as_of = Ticket()
        self._shut = 0
        self._doubted = False
        self._probe: Ticket | None = None
        self._probed = self._served = float("-inf")
        self._timer: Handle | None = None

    @property
    def queued(self) -> int:
        """How many calls wait."""
        return self._line.queued + self._leaving.queued

    @property
    def unlimited(self) -> bool:
        """Whether nothing is known of any limit, so that entering would not wait."""
        return not self._known and self._probe is None

    @property
    def wait(self) -> float:
        """Seconds until there is room for one more call, however small; 0 for now."""
        return self.wait_for(1)

    def wait_for(self, tokens: int) -> float:
        """Return the seconds until there is room for one more call of this size; 0 for now."""
        return 0.0 if self.unlimited else max(self._wait(tokens), self._probing)

    def count(self) -> Ticket:
        """Count a call as sent while nothing is known of any limit, as ``enter`` does then."""
        return self._send(0)

    async def enter(self, tenant: str, tokens: Callable[[], int], deadline: float) -> Ticket:
        """Wait until there is room for a call, and count it as sent.

        Args:
            tenant: who asks.
            tokens: about how many the call sends; is asked only where the target limits anything.
            deadline: when the call is pointless.

        Raises:
            Overloaded: ``provider_overloaded``: there is no room before ``deadline``, or too many wait for it.
            ProviderError: ``provider_rate_limited``: the call has waited for a probe that was refused.
        """
        if self.unlimited:
            return self._send(0)
        size = tokens()
        wait = self._wait(size)
        if self._clock.time() + wait >= deadline:
            raise self._closed(wait)
        wait = max(wait, self._probing)
        if not wait:
            return self._send(size)
        try:
            if not self._line.queued:
                self._arm(self._clock.time() + wait)
            return await self._line.wait(tenant, self.over, size=size)
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
        probed = ticket is self._probe
        if probed:
            self._probe = None
        elif not said:
            return
        if ticket.calls < self._as_of.calls:
            return
        now = self._clock.time()
        self._as_of = ticket
        self._known = [said_limit(allowance, now) for allowance in said]
        self._doubted = refused
        self._shut = self._sent.calls if refused else 0
        if refused:
            if retry_after is None:
                retry_after = max((one.reset for one in said if not one.remaining), default=0.0)
            self._known.append(shut(now, retry_after))
            if probed:
                self._dismiss()
        self._serve()

    def stale(self, ticket: Ticket) -> bool:
        """Whether the target has refused since this call was let in, and has let in none since: it would be refused."""
        return ticket.calls <= self._shut

    def over(self, ticket: Ticket) -> None:
        """Hear that a call has ended, or is not made: a probe of which nothing was heard is followed by another one.

        What was counted as sent stays so: the next answer knows better.
        """
        if ticket is self._probe:
            self._probe = None
            self._doubted = True
            self._serve()

    @property
    def _probing(self) -> float:
        """For how many seconds the others still wait for the probe's answer."""
        return 0.0 if self._probe is None else max(0.0, self._probed - self._clock.time())

    def _wait(self, size: int) -> float:
        """Return the seconds until there is room for a call of this size, after all that wait."""
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
        if self._doubted:
            self._doubted = False
            self._probe = self._sent
            self._probed = self._clock.time() + PROBED
        return self._sent

    def _serve(self) -> None:
        """Let the next in where there is room for it, and look again when there is for the one after it."""
        self._disarm()
        size = self._line.next_size
        if size is None:
            return
        now = self._clock.time()
        opens = self._opens_next(size, now)
        if opens <= now:
            self._served = now
            self._line.hand(self._send(size))
            size = self._line.next_size
        if size is not None:
            self._arm(self._opens_next(size, now))

    def _opens_next(self, size: int, now: float) -> float:
        """Return when the next in the line may be sent."""
        self._known = [known for known in self._known if known.until > now]
        return max(self._opens(1, size), self._served + PACE, now + self._probing)

    def _dismiss(self) -> None:
        """Let all that wait go in vain, unless such are on their way out already."""
        if not self._leaving.queued:
            self._line, self._leaving = self._leaving, self._line
            self._tell()

    def _tell(self) -> None:
        """Tell the next one that it has waited in vain."""
        if self._leaving.refuse(ProviderError(code="provider_rate_limited", retry_after=self.wait)):
            self._clock.call_at(self._clock.time() + PACE, self._tell)

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
