"""One request on its way over its targets: who is asked next, when, and when it is over."""

import asyncio
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from actors.llm_gateway.attempt import Call
from actors.llm_gateway.commons import Commons
from actors.llm_gateway.hedge import Ask, Race
from actors.llm_gateway.repair import repairing
from actors.llm_gateway.routing import Leg
from actors.llm_gateway.till import Bill
from actors.targets.trial import Size, Trial, Trials
from actors.targets.watch import Watch, pause
from actors.targets.window import Ticket
from protocol.errors import Overloaded, ProviderError, SchemaMismatch, TidegateError
from protocol.gateway import Complete, ProgressSink
from protocol.llm import Attempt, Usage
from protocol.upstream import Refusal

if TYPE_CHECKING:
    from actors.llm_gateway.schema import Validator

FINAL: Final = frozenset({"response_too_large", "schema_mismatch"})  # failures after which nobody else is asked


class Course:
    """Asks the targets, until one gives a whole answer.

    Who is asked after a failure before any content is as ``Trials`` has it. Content that has been told is never told
    again: then a failure is the end, unless the request is one that may begin anew.

    Where the route says so, a target that is slow to begin has another one asked beside it, or itself again where there
    is no other; ``Race`` says whose the answer is.

    A whole answer that does not match is given back to the target that gave it, once, where the request allows it: the
    calls from then on have the wrong answer and its faults in the conversation.

    Before each call room is held for it in the budgets of whoever pays. Where there is none the request fails: that
    says nothing of the target, and nobody else is asked.

    Args:
        message: what is asked.
        legs: the targets in their order; at least one.
        deadline: when the request is out of time.
        commons: what it has in common with all others.
        validator: what the answer has to match; None for anything.
    """

    __slots__ = (
        "_again",
        "_calls",
        "_clock",
        "_commons",
        "_continues",
        "_deadline",
        "_error",
        "_message",
        "_size",
        "_trials",
        "_validator",
    )

    def __init__(
        self,
        message: Complete,
        legs: Sequence[Leg],
        *,
        deadline: float,
        commons: Commons,
        validator: "Validator | None",
    ) -> None:
        self._message = message
        self._deadline = deadline
        self._commons = commons
        self._clock = commons.clock
        self._validator = validator
        self._size = Size(message.request)
        self._trials = Trials(
            [Trial(leg, leg.upstream, leg.upstream.health(leg.model, commons.clock), self._size) for leg in legs],
            retry=commons.retry,
            clock=commons.clock,
            deadline=deadline,
        )
        self._continues: bool | None = None
        self._again: Trial[Leg] | None = None
        self._error: TidegateError | None = None
        self._calls: list[Call] = []

    async def run(self) -> tuple[Call, Leg]:
        """Return the call that gave the answer, and whom it was made to.

        Raises:
            BudgetExceeded: whoever pays has no room for the next call.
            DeadlineExceeded: out of time.
            Overloaded: the last target's queue is full.
            ProviderError: the last target's failure, or ``provider_unavailable`` where none is worth asking.
            SchemaMismatch: the answer is whole but does not match, and is not to be repaired, or no more.
        """
        while True:
            trial = self._next()
            if trial is None:
                raise self._error or self._trials.unavailable()
            delay = trial.due - self._clock.time()
            if delay > 0:
                await pause(self._clock, delay)
            answered = await self._hedged(trial)
            if answered is not None:
                return answered

    @property
    def usage(self) -> Usage:
        """Tokens of all the attempts together, as far as they are known by now."""
        usages = [attempt.usage for attempt in self._attempts if attempt.usage is not None]
        return usages[0] if len(usages) == 1 else sum(usages, Usage())

    @property
    def cost(self) -> Decimal | None:
        """What they cost, in US dollars; None where a price is unknown."""
        costs = [attempt.cost for attempt in self._attempts if attempt.usage is not None]
        known = [cost.usd for cost in costs if cost is not None]
        return sum(known, Decimal(0)) if len(known) == len(costs) else None

    @property
    def _attempts(self) -> Iterable[Attempt]:
        return (call.attempt for call in self._calls if call.attempt is not None)

    def _next(self) -> Trial[Leg] | None:
        """Return whom to ask next; None where nobody is left."""
        self._continues = None
        again, self._again = self._again, None
        return again or self._trials.next()

    async def _hedged(self, trial: Trial[Leg]) -> tuple[Call, Leg] | None:
        """Ask, perhaps another one beside it; None where somebody has to be asked again."""
        after, sink = trial.leg.hedge_after, self._message.sink
        if after is None or self._trials.left <= 1:
            return await self._try(trial, sink)
        race = Race[tuple[Call, Leg] | None](self._clock, sink)
        return await race.run(partial(self._try, trial), after=after, second=partial(self._beside, trial))

    def _beside(self, trial: Trial[Leg]) -> Ask[tuple[Call, Leg] | None] | None:
        other = self._trials.beside(trial)
        return None if other is None else partial(self._try, other)

    async def _try(self, trial: Trial[Leg], sink: ProgressSink | None) -> tuple[Call, Leg] | None:
        """Ask this one; None where somebody has to be asked again."""
        try:
            call = await self._ask(trial, sink)
        except (ProviderError, Overloaded) as failed:
            self._error = failed
            if not (self._goes_on(trial, failed) if self._continues is None else self._continues):
                raise
            return None
        return None if call is None else (call, trial.leg)

    async def _ask(self, trial: Trial[Leg], sink: ProgressSink | None) -> Call | None:
        """Wait for a place and make the call; None where the target has turned out not to be worth asking meanwhile."""
        request = trial.leg.request(self._message.request)
        lane = trial.leg.upstream.lane
        sent = await self._enter(trial)
        if sent is None:
            return None
        try:
            bill = await self._commons.till.open(self._message.account, trial.leg, request)
            ticket = trial.health.breaker.enter()
            if ticket is None:
                await bill.settle(None)
                return None
            message = self._message
            if request is not message.request or sink is not message.sink:
                message = msgspec.structs.replace(message, request=request, sink=sink)
            return await self._call(trial, ticket, message, sent, bill)
        finally:
            lane.leave()
            trial.health.window.over(sent)

    async def _enter(self, trial: Trial[Leg]) -> Ticket | None:
        """Wait for room in the target's rate limit, and then for a place; None where it has refused meanwhile."""
        lane, window, tenant = trial.leg.upstream.lane, trial.health.window, self._message.tenant
        if lane.free and window.unlimited:
            await lane.enter(tenant)
            return await window.enter(tenant, self._size, self._deadline)
        with Watch(self._clock, self._deadline):
            try:
                sent = await window.enter(tenant, self._size, self._deadline)
            except ProviderError:
                self._trials.spared(trial)
                raise
            try:
                await lane.enter(tenant)
            except (Overloaded, asyncio.CancelledError):
                window.over(sent)
                raise
        if window.stale(sent):
            window.over(sent)
            lane.leave()
            return None
        return sent

    async def _call(self, trial: Trial[Leg], ticket: int, message: Complete, sent: Ticket, bill: Bill) -> Call:
        good = None
        call = Call(
            trial.leg,
            message,
            number=self._trials.called(trial),
            commons=self._commons,
            validator=self._validator,
            bill=bill,
            heard=partial(trial.health.window.heard, sent),
        )
        self._calls.append(call)
        try:
            await call.run(self._deadline, partial(self._restarts, trial))
            good = True
        except ProviderError as error:
            good = self._judged(trial, sent, error)
            raise
        finally:
            trial.health.breaker.leave(ticket, good=good)
        return call

    def _judged(self, trial: Trial[Leg], sent: Ticket, error: ProviderError) -> bool | None:
        """Say what a failure tells of the target. A whole answer is a good call, also where it does not match."""
        if isinstance(error, SchemaMismatch):
            return True
        if isinstance(error, Refusal):
            limited = error.code == "provider_rate_limited"
            trial.health.window.heard(sent, error.limits, refused=limited, retry_after=error.retry_after)
        return self._trials.judged(trial, error)

    def _restarts(self, trial: Trial[Leg], error: TidegateError) -> bool:
        """Decide, after a failure with content or a wrong answer, whether the answer begins anew."""
        if isinstance(error, SchemaMismatch):
            self._continues = self._repairs(trial, error)
            return self._continues
        self._continues = self._message.restart and isinstance(error, ProviderError) and self._goes_on(trial, error)
        return self._continues

    def _repairs(self, trial: Trial[Leg], error: SchemaMismatch) -> bool:
        """Decide whether the target gets its wrong answer back; then it is asked next."""
        message = self._message
        over = self._trials.left <= 0 or self._clock.time() >= self._deadline
        if over or not message.repair or not error.raw.strip():
            return False
        self._message = msgspec.structs.replace(message, request=repairing(message.request, error), repair=False)
        self._size.replace(self._message.request)
        self._again = trial
        return True

    def _goes_on(self, trial: Trial[Leg], error: TidegateError) -> bool:
        return error.code not in FINAL and self._trials.goes_on(trial, error)
