"""One request on its way over its targets: who is asked next, when, and when it is over."""

from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
from opentelemetry.trace import Tracer

from actors.llm_gateway.attempt import Call
from actors.llm_gateway.pricing import Prices
from actors.llm_gateway.repair import repairing
from actors.llm_gateway.retry import FAULTS, RetryPolicy
from actors.llm_gateway.routing import Leg
from actors.llm_gateway.upstream import Health
from actors.llm_gateway.watch import Watch, pause
from actors.runtime import Clock
from protocol.errors import Overloaded, ProviderError, SchemaMismatch, TidegateError
from protocol.gateway import Complete
from protocol.llm import Usage

if TYPE_CHECKING:
    from jsonschema_rs import Validator

PROBED: Final = 1.0  # seconds after which a probe that is under way has probably ended
FINAL: Final = frozenset({"response_too_large", "schema_mismatch"})  # failures after which nobody else is asked
COOL_DOWN: Final = 5.0  # seconds for which a target that limits our rate is asked last, where it does not say how long


class Trial:
    """A target, and what this request knows of it."""

    __slots__ = ("calls", "due", "health", "leg")

    def __init__(self, leg: Leg, clock: Clock) -> None:
        self.leg = leg
        self.health: Health = leg.upstream.health(leg.model, clock)
        self.calls = 0
        self.due = 0.0

    def rank(self, now: float) -> tuple[bool, bool, int, float]:
        """Return what sorts it among others: ready, not cooling down, not yet asked, waiting least."""
        return self.due > now, self.health.cools_until > now, self.calls, self.due


class Course:
    """Asks the targets, until one gives a whole answer.

    A target that fails before any content is followed by the next one at once. When all have failed, those whose
    failure may pass are asked again, each after its own delay. A target whose breaker is open is passed over; one that
    cools down is asked after the others. Content that has been told is never told again: then a failure is the end,
    unless the request is one that may begin anew.

    A whole answer that does not match is given back to the target that gave it, once, where the request allows it: the
    calls from then on have the wrong answer and its faults in the conversation.

    Args:
        message: what is asked.
        legs: the targets in their order; at least one.
        deadline: when the request is out of time.
        clock: the time.
        tracer: opens the attempts' spans.
        retry: when a failed attempt is followed by another at the same target.
        max_chars: the bound on the answer.
        validator: what the answer has to match; None for anything.

    Attributes:
        usage: tokens of all the attempts together.
    """

    __slots__ = (
        "_again",
        "_clock",
        "_continues",
        "_deadline",
        "_left",
        "_max_chars",
        "_message",
        "_number",
        "_retry",
        "_spent",
        "_tracer",
        "_trials",
        "_validator",
        "usage",
    )

    def __init__(
        self,
        message: Complete,
        legs: Sequence[Leg],
        *,
        deadline: float,
        clock: Clock,
        tracer: Tracer,
        retry: RetryPolicy,
        max_chars: int,
        validator: "Validator | None",
    ) -> None:
        self._message = message
        self._deadline = deadline
        self._clock = clock
        self._tracer = tracer
        self._retry = retry
        self._max_chars = max_chars
        self._validator = validator
        self._trials = [Trial(leg, clock) for leg in legs]
        self._left = max(retry.attempts, len(legs))
        self._number = 0
        self._continues: bool | None = None
        self._again: Trial | None = None
        self._spent: list[tuple[str, str, Usage]] = []
        self.usage = Usage()

    async def run(self) -> tuple[Call, Leg]:
        """Return the call that gave the answer, and whom it was made to.

        Raises:
            DeadlineExceeded: out of time.
            Overloaded: the last target's queue is full.
            ProviderError: the last target's failure, or ``provider_unavailable`` where none is worth asking.
            SchemaMismatch: the answer is whole but does not match, and is not to be repaired, or no more.
        """
        error: TidegateError | None = None
        while True:
            trial = self._next()
            if trial is None:
                raise error or self._unavailable()
            delay = trial.due - self._clock.time()
            if delay > 0:
                await pause(self._clock, delay)
            try:
                call = await self._ask(trial)
            except (ProviderError, Overloaded) as failed:
                error = failed
                if not (self._goes_on(trial, failed) if self._continues is None else self._continues):
                    raise
            else:
                if call is not None:
                    return call, trial.leg

    async def cost(self, prices: Prices) -> Decimal | None:
        """Return what all the attempts cost, in US dollars; None where a price is unknown."""
        total = Decimal(0)
        for price_id, model, usage in self._spent:
            cost = await prices.cost(price_id, model, usage)
            if cost is None:
                return None
            total += cost
        return total

    def _next(self) -> Trial | None:
        """Return whom to ask next; None where nobody is left."""
        self._continues = None
        again, self._again = self._again, None
        if again is not None:
            return again
        now = self._clock.time()
        while worth := [trial for trial in self._trials if trial.health.breaker.wait == 0]:
            trial = min(worth, key=lambda trial: trial.rank(now))
            if not trial.calls or trial.leg.upstream.retries.take():
                return trial
            self._trials.remove(trial)
        return None

    async def _ask(self, trial: Trial) -> Call | None:
        """Wait for a place and make the call; None where the target's breaker has opened meanwhile."""
        lane = trial.leg.upstream.lane
        if lane.free:
            await lane.enter(self._message.tenant)
        else:
            async with Watch(self._clock, self._deadline):
                await lane.enter(self._message.tenant)
        try:
            ticket = trial.health.breaker.enter()
            return None if ticket is None else await self._call(trial, ticket)
        finally:
            lane.leave()

    async def _call(self, trial: Trial, ticket: int) -> Call:
        leg, good = trial.leg, None
        self._number += 1
        self._left -= 1
        if not trial.calls:
            leg.upstream.retries.called()
        trial.calls += 1
        request = leg.request(self._message.request)
        message = self._message
        if request is not message.request:
            message = msgspec.structs.replace(message, request=request)
        call = Call(
            leg,
            message,
            number=self._number,
            clock=self._clock,
            tracer=self._tracer,
            max_chars=self._max_chars,
            validator=self._validator,
            restarts=partial(self._restarts, trial),
        )
        try:
            await call.run(self._deadline)
            good = True
        except ProviderError as error:
            good = self._judged(trial, error)
            raise
        finally:
            trial.health.breaker.leave(ticket, good=good)
            if good or call.usage != Usage():
                self._spent.append((leg.upstream.provider.price_id, call.model, call.usage))
                self.usage = _sum(self.usage, call.usage)
        return call

    def _judged(self, trial: Trial, error: ProviderError) -> bool | None:
        """Say what a failure tells of the target: not good, or nothing, since the request itself may be the reason.

        A whole answer is a good call, also where it does not match.
        """
        if isinstance(error, SchemaMismatch):
            return True
        wait = error.retry_after
        if wait is None and error.code == "provider_rate_limited":
            wait = COOL_DOWN
        if wait is not None:
            trial.health.cools_until = self._clock.time() + wait
        return False if error.code in FAULTS else None

    def _restarts(self, trial: Trial, error: TidegateError) -> bool:
        """Decide, after a failure with content or a wrong answer, whether the answer begins anew."""
        if isinstance(error, SchemaMismatch):
            self._continues = self._repairs(trial, error)
            return self._continues
        self._continues = self._message.restart and isinstance(error, ProviderError) and self._goes_on(trial, error)
        return self._continues

    def _repairs(self, trial: Trial, error: SchemaMismatch) -> bool:
        """Decide whether the target gets its wrong answer back; then it is asked next."""
        message = self._message
        if not message.repair or not error.raw.strip() or self._left <= 0 or self._clock.time() >= self._deadline:
            return False
        self._message = msgspec.structs.replace(message, request=repairing(message.request, error), repair=False)
        self._again = trial
        return True

    def _goes_on(self, trial: Trial, error: TidegateError) -> bool:
        """Say whether anybody may be asked after this failure, and when this target may."""
        if self._left <= 0 or error.code in FINAL:
            return False
        now = self._clock.time()
        delay = self._retry.delay(trial.calls, error, self._deadline - now) if trial.calls else None
        if delay is None:
            self._trials.remove(trial)
        else:
            trial.due = now + delay
        return bool(self._trials)

    def _unavailable(self) -> ProviderError:
        waits = [wait for trial in self._trials if (wait := trial.health.breaker.wait) is not None]
        return ProviderError(code="provider_unavailable", retry_after=min(waits, default=PROBED))


def _sum(one: Usage, other: Usage) -> Usage:
    if one == Usage():
        return other
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cached_input_tokens=one.cached_input_tokens + other.cached_input_tokens,
        reasoning_tokens=one.reasoning_tokens + other.reasoning_tokens,
    )
