"""Rate limit of one target, learnt from what its answers report."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from actors.runtime import Clock, Handle
from actors.upstream.fair_queue import FairQueue
from actors.upstream.reported_limit import ReportedLimit, closed_limit, refilling_limit
from protocol.errors import Overloaded, ProviderError
from protocol.upstream import Allowance

PROBED: Final = 1.0  # seconds; refusals come at once, so a call that has not been refused by then is let in
PACE: Final = 0.005  # seconds from one waiting call to the next, so that no other work has to wait for all of them


class Permit(msgspec.Struct, frozen=True):
    """The permission to send one call: how much has been sent to the target, this call included."""

    calls: int = 0
    tokens: int = 0


class RateLimitGate:
    """Keeps calls back that a target's rate limit has no room for, until it has.

    A report holds as of when its call was sent: what has been sent since counts against it. The vendors fill their
    limits up steadily, and ``reset`` is when one is full; so there is room for the next call after its share of that
    time.

    ::

        open ──refused──► closed ──retry-after or reset──► probing ──answer──► open
                            ▲                                 │ └──PROBED──► open
                            └─────────────refused─────────────┘

    A target that refuses nevertheless is left alone for its ``retry-after``, or until the reset. Then one call goes as
    a probe, and the others wait for its end. Where the probe is refused, they fail in the same way, as they would have
    had they been sent. A probe that ends without an answer is followed by the next one.

    Waiting calls are served as ``FairQueue`` says, one each ``PACE``, and so are those that fail with the probe.
    Where answers report no limits, the gate costs nothing.

    Args:
        name: the target's.
        clock: the time.
        queue: calls that may wait; as many again may wait to fail after a refused probe.
    """

    __slots__ = (
        "_clock",
        "_dismissed",
        "_known",
        "_name",
        "_probe",
        "_probe_next",
        "_probed",
        "_refused_up_to",
        "_reported_at",
        "_sent",
        "_served",
        "_timer",
        "_waiting",
    )

    def __init__(self, name: str, clock: Clock, *, queue: int) -> None:
        self._name = name
        self._clock = clock
        self._known: list[ReportedLimit] = []
        self._waiting: FairQueue[Permit] = FairQueue(queue, self._full)
        self._dismissed: FairQueue[Permit] = FairQueue(queue, self._full)
        self._sent = self._reported_at = Permit()
        self._refused_up_to = 0
        self._probe_next = False
        self._probe: Permit | None = None
        self._probed = self._served = float("-inf")
        self._timer: Handle | None = None

    @property
    def queued(self) -> int:
        """How many calls wait."""
        return self._waiting.queued + self._dismissed.queued

    @property
    def unlimited(self) -> bool:
        """Whether no limit is known, so that ``acquire`` would not wait."""
        return not self._known and self._probe is None

    @property
    def wait(self) -> float:
        """Seconds until there is room for one more call, however small; 0 for now."""
        return self.wait_for(1)

    def wait_for(self, tokens: int) -> float:
        """Return the seconds until there is room for one more call of this size; 0 for now."""
        return 0.0 if self.unlimited else max(self._wait(tokens), self._probe_left)

    def acquire_nowait(self) -> Permit:
        """Count a call as sent; only while ``unlimited``."""
        return self._send(0)

    async def acquire(self, tenant: str, tokens: Callable[[], int], deadline: float) -> Permit:
        """Wait until there is room for a call, and count it as sent; ``release`` gives the permit back.

        Args:
            tenant: whose call it is.
            tokens: returns about how many the call sends; called only where a limit is known.
            deadline: when the call is pointless.

        Raises:
            Overloaded: ``provider_overloaded``: there is no room before ``deadline``, or too many calls wait for it.
            ProviderError: ``provider_rate_limited``: the call has waited for a probe that was refused.
        """
        if self.unlimited:
            return self._send(0)
        size = tokens()
        wait = self._wait(size)
        if self._clock.time() + wait >= deadline:
            raise self._no_room(wait)
        wait = max(wait, self._probe_left)
        if not wait:
            return self._send(size)
        try:
            if not self._waiting.queued:
                self._arm(self._clock.time() + wait)
            return await self._waiting.wait(tenant, self.release, size=size)
        finally:
            if not self._waiting.queued:
                self._disarm()

    def learn(
        self,
        permit: Permit,
        allowances: Sequence[Allowance],
        *,
        refused: bool = False,
        retry_after: float | None = None,
    ) -> None:
        """Take over what the answer to the call of ``permit`` reports; an answer to an earlier call is too old.

        Args:
            permit: what ``acquire`` returned.
            allowances: the limits in the answer.
            refused: whether the answer was a refusal because of them.
            retry_after: the seconds that the refusal asks for.
        """
        probed = permit is self._probe
        if probed:
            self._probe = None
        elif not allowances:
            return
        if permit.calls < self._reported_at.calls:
            return
        now = self._clock.time()
        self._reported_at = permit
        self._known = [refilling_limit(allowance, now) for allowance in allowances]
        self._probe_next = refused
        self._refused_up_to = self._sent.calls if refused else 0
        if refused:
            if retry_after is None:
                retry_after = max((one.reset for one in allowances if not one.remaining), default=0.0)
            self._known.append(closed_limit(now, retry_after))
            if probed:
                self._dismiss()
        self._serve()

    def stale(self, permit: Permit) -> bool:
        """Whether the target has refused since ``permit`` was given, and let no call in since: this one would fail."""
        return permit.calls <= self._refused_up_to

    def release(self, permit: Permit) -> None:
        """Give a permit back when its call has ended, or is not made: an unanswered probe is followed by another one.

        What was counted as sent stays so: the next answer knows better.
        """
        if permit is self._probe:
            self._probe = None
            self._probe_next = True
            self._serve()

    @property
    def _probe_left(self) -> float:
        """For how many seconds other calls still wait for the probe's answer."""
        return 0.0 if self._probe is None else max(0.0, self._probed - self._clock.time())

    def _wait(self, size: int) -> float:
        """Return the seconds until there is room for a call of this size, after all that wait."""
        now = self._clock.time()
        self._known = [known for known in self._known if known.until > now]
        waiting = self._waiting
        return max(0.0, self._opens(waiting.queued + 1, waiting.total_size + size) - now)

    def _opens(self, calls: int, tokens: int) -> float:
        needs = {
            "calls": calls + self._sent.calls - self._reported_at.calls,
            "tokens": tokens + self._sent.tokens - self._reported_at.tokens,
            "output": calls,
        }
        return max((known.opens(needs[known.unit]) for known in self._known), default=0.0)

    def _send(self, tokens: int) -> Permit:
        self._sent = Permit(self._sent.calls + 1, self._sent.tokens + tokens)
        if self._probe_next:
            self._probe_next = False
            self._probe = self._sent
            self._probed = self._clock.time() + PROBED
        return self._sent

    def _serve(self) -> None:
        """Let the next call in where there is room for it, and set the timer for the one after it."""
        self._disarm()
        size = self._waiting.next_size
        if size is None:
            return
        now = self._clock.time()
        opens = self._opens_next(size, now)
        if opens <= now:
            self._served = now
            self._waiting.grant(self._send(size))
            size = self._waiting.next_size
        if size is not None:
            self._arm(self._opens_next(size, now))

    def _opens_next(self, size: int, now: float) -> float:
        """Return when the next waiting call may be sent."""
        self._known = [known for known in self._known if known.until > now]
        return max(self._opens(1, size), self._served + PACE, now + self._probe_left)

    def _dismiss(self) -> None:
        """Let all waiting calls fail, unless earlier ones are still failing."""
        if not self._dismissed.queued:
            self._waiting, self._dismissed = self._dismissed, self._waiting
            self._fail_next()

    def _fail_next(self) -> None:
        """Fail one dismissed call, and set a timer for the next one."""
        if self._dismissed.fail_next(ProviderError(code="provider_rate_limited", retry_after=self.wait)):
            self._clock.call_at(self._clock.time() + PACE, self._fail_next)

    def _arm(self, when: float) -> None:
        self._timer = self._clock.call_at(when, self._serve)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _full(self) -> Overloaded:
        return self._no_room(self.wait)

    def _no_room(self, wait: float) -> Overloaded:
        message = f"the rate limit of {self._name} has no room for {wait:.3g} s, and {self.queued} calls wait for it"
        return Overloaded(message, code="provider_overloaded", retry_after=wait)
