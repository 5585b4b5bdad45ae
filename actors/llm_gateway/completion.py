"""One request on its way over its targets: who is asked next, when, and when it is over."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from actors.llm_gateway.attempt import Call
from actors.llm_gateway.attempt_deps import Commons
from actors.llm_gateway.hedge import Ask, Race
from actors.llm_gateway.repair import repairing
from actors.llm_gateway.routing import Leg
from actors.llm_gateway.usage import total
from actors.upstream.candidates import Size, Trial, Trials
from actors.upstream.rate_limit import Ticket
from actors.upstream.timeouts import Watch, pause
from protocol.errors import Overloaded, ProviderError, SchemaMismatch, TidegateError
from protocol.gateway import Complete, Completion, ProgressSink
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

    async def run(self) -> Completion:
        """Return the answer, with what all the calls have come to as far as that is known by now.

        Raises:
            BudgetExceeded: whoever pays has no room for the next call.
            DeadlineExceeded: out of time.
            Overloaded: the last target's queue is full.
            ProviderError: the last target's failure, or ``provider_unavailable`` where none is worth asking.
            SchemaMismatch: the answer is whole but does not match, and is not to be repaired, or no more.
        """
        try:
            while True:
                trial = self._next()
                if trial is None:
                    raise self._error or self._trials.unavailable()
                if trial.due and (delay := trial.due - self._clock.time()) > 0:
                    await pause(self._clock, delay)
                if trial.leg.hedge_after is None or self._trials.left <= 1:
                    call = await self._try(trial, self._message.sink)
                else:
                    call = await self._race(trial, trial.leg.hedge_after)
                if call is not None:
                    return call.completion(*total([one.attempt for one in self._calls]))
        finally:
            self._error = None  # its traceback holds this, and both would stay until the collector comes

    def _next(self) -> Trial[Leg] | None:
        """Return whom to ask next; None where nobody is left."""
        self._continues = None
        again, self._again = self._again, None
        return again or self._trials.next()

    async def _race(self, trial: Trial[Leg], after: float) -> Call | None:
        """Ask, and another one beside it when it is slow to begin; None where somebody has to be asked again."""
        race = Race[Call | None](self._clock, self._message.sink)
        return await race.run(partial(self._try, trial), after=after, second=partial(self._beside, trial))

    def _beside(self, trial: Trial[Leg]) -> Ask[Call | None] | None:
        other = self._trials.beside(trial)
        return None if other is None else partial(self._try, other)

    async def _try(self, trial: Trial[Leg], sink: ProgressSink | None) -> Call | None:
        """Ask this one; None where somebody has to be asked again."""
        try:
            return await self._ask(trial, sink)
        except (ProviderError, Overloaded) as failed:
            self._error = failed
            if not (self._goes_on(trial, failed) if self._continues is None else self._continues):
                raise
            return None

    async def _ask(self, trial: Trial[Leg], sink: ProgressSink | None) -> Call | None:
        """Wait for a place and make the call; None where the target has turned out not to be worth asking meanwhile."""
        sent = self._enter_at_once(trial) or await self._enter(trial)
        if sent is None:
            return None
        try:
            message = self._addressed(trial.leg, sink)
            till, account = self._commons.till, message.account
            held = None if account is None else await till.open(account, trial.leg, message.request)
            ticket = trial.health.breaker.enter()
            if ticket is None:
                await till.settle(trial.leg, None, reservation=held)
                return None
            call = Call(
                trial,
                message,
                number=self._trials.called(trial),
                commons=self._commons,
                validator=self._validator,
                held=held,
                sent=sent,
            )
            self._calls.append(call)
            good = None
            try:
                await call.run(self._deadline, self._restarts)
                good = True
            except ProviderError as error:
                good = self._judged(trial, sent, error)
                raise
            finally:
                trial.health.breaker.leave(ticket, good=good)
            return call
        finally:
            trial.leg.upstream.lane.leave()
            trial.health.window.over(sent)

    def _addressed(self, leg: Leg, sink: ProgressSink | None) -> Complete:
        """Return what this target is asked."""
        message = self._message
        request = leg.request(message.request)
        if request is message.request and sink is message.sink:
            return message
        return msgspec.structs.replace(message, request=request, sink=sink)

    def _enter_at_once(self, trial: Trial[Leg]) -> Ticket | None:
        """Take a place where one is free and nothing is known of a limit."""
        lane, window = trial.leg.upstream.lane, trial.health.window
        if lane.free and window.unlimited:
            lane.take()
            return window.count()
        return None

    async def _enter(self, trial: Trial[Leg]) -> Ticket | None:
        """Wait for room in the target's rate limit, and then for a place; None where it has refused meanwhile."""
        lane, window, tenant = trial.leg.upstream.lane, trial.health.window, self._message.tenant
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
