"""One chat request: fallback over its targets, hedging, restarts, and the repair round."""

from collections.abc import Awaitable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from actors.llm_gateway.attempt import Attempt
from actors.llm_gateway.attempt_deps import AttemptDeps
from actors.llm_gateway.hedge import MakeCall, Race
from actors.llm_gateway.repair import repair_request
from actors.llm_gateway.routing import ResolvedTarget
from actors.llm_gateway.usage import total, worst_case
from actors.upstream.admission import AdmissionTerms
from actors.upstream.budget import BudgetHold
from actors.upstream.candidates import Candidate, CandidateSet, RequestSize
from actors.upstream.fallback import Fallback
from actors.upstream.timeouts import TimeoutScope
from protocol.budgets import Account
from protocol.errors import ProviderError, SchemaMismatch, TidegateError
from protocol.gateway import Complete, Completion, ProgressSink

if TYPE_CHECKING:
    from actors.llm_gateway.schema import Validator

FINAL: Final = frozenset({"content_policy", "response_too_large", "schema_mismatch"})
"""Failures after which no other target is called. What one vendor refuses for its content is not taken to the next."""


class CompletionRun:
    """Calls the targets of one request until one gives a whole answer.

    ``CandidateSet`` says which target is called after a failure before any content. Content that the sink has received
    is never sent to it again: a later failure ends the request, unless the request allows a restart.

    Where the route has ``hedge_after``, a target that is slow to begin gets a second call beside it, to another target
    or to itself; ``Race`` decides which of the two gives the answer.

    A whole answer that does not match its schema is given back once to the target that gave it, where the request
    allows it: the calls from then on have the wrong answer and its errors in the conversation.

    Before each call room is held in the budgets of the account that pays. Where there is none, the request fails: that
    says nothing of the target, and no other one is called.

    Args:
        message: the request.
        targets: in their order; at least one.
        deadline: when the request is out of time.
        deps: what all requests share.
        validator: of the answer; None for none.
    """

    __slots__ = (
        "_attempts",
        "_candidates",
        "_deps",
        "_fallback",
        "_message",
        "_size",
        "_terms",
        "_validator",
    )

    def __init__(
        self,
        message: Complete,
        targets: Sequence[ResolvedTarget],
        *,
        deadline: float,
        deps: AttemptDeps,
        validator: "Validator | None",
    ) -> None:
        clock = deps.clock
        self._message = message
        self._terms = terms = AdmissionTerms(
            clock, deadline, message.tenant, request_id=message.request_id, trace_id=message.trace_id
        )
        self._deps = deps
        self._validator = validator
        self._size = size = RequestSize(message.request)
        self._candidates = CandidateSet(
            [
                Candidate(target, target.endpoint, target.endpoint.health(target.model, clock), size)
                for target in targets
            ],
            retry=deps.retry,
            terms=terms,
        )
        self._fallback: Fallback[ResolvedTarget, Attempt] = Fallback(self._candidates, final=FINAL)
        self._attempts: list[Attempt] = []

    async def run(self) -> Completion:
        """Return the answer, with the usage and the cost of all attempts as far as they are known by now.

        Raises:
            BudgetExceeded: the account that pays has no room for the next call.
            DeadlineExceeded: out of time.
            Overloaded: the last target's queue is full.
            ProviderError: the last target's failure, or ``provider_unavailable`` where no call could be made.
            SchemaMismatch: the answer is whole but does not match, and is not repaired, or no more.
        """
        attempt = await self._fallback.run(self._step)
        return attempt.completion(*total([one.report for one in self._attempts]))

    def _step(self, candidate: Candidate[ResolvedTarget]) -> Awaitable[Attempt | None]:
        after = candidate.target.hedge_after
        if after is None or self._candidates.calls_left <= 1:
            return self._call(candidate, self._message.sink)
        race = Race[Attempt | None](self._terms.clock, self._message.sink)
        return race.run(partial(self._parallel_call, candidate), after=after, second=partial(self._hedge, candidate))

    def _hedge(self, candidate: Candidate[ResolvedTarget]) -> MakeCall[Attempt | None] | None:
        """Return what makes the second call beside the one to ``candidate``; None for no second call."""
        other = self._candidates.hedge(candidate)
        return None if other is None else partial(self._parallel_call, other)

    async def _parallel_call(self, candidate: Candidate[ResolvedTarget], sink: ProgressSink) -> Attempt | None:
        return await self._fallback.parallel(candidate, self._call(candidate, sink))

    async def _call(self, candidate: Candidate[ResolvedTarget], sink: ProgressSink | None) -> Attempt | None:
        """Wait for admission and make the call; None where the target is not worth one any more."""
        target, message = candidate.target, self._message
        hold = None if message.account is None else self._hold(target, message.account)
        async with target.endpoint.admit(candidate, self._terms, hold) as admitted:
            if admitted is None:
                return None
            if self._validator is not None and not self._validator.checked:
                with TimeoutScope(self._terms.clock, self._terms.deadline):
                    await self._deps.schemas.check(self._validator)
            attempt = Attempt(
                candidate,
                self._message_to(target, sink),
                number=len(self._attempts) + 1,
                deps=self._deps,
                validator=self._validator,
                admission=admitted,
            )
            self._attempts.append(attempt)
            number = len(self._attempts)
            if message.began is not None:
                message.began(number, target.endpoint.name, target.model)
            try:
                await attempt.run(self._terms.deadline, self._restarts)
            except TidegateError as error:
                self._fallback.failed(candidate, number, error, attempt.duration)
                raise
            return attempt

    def _hold(self, target: ResolvedTarget, account: Account) -> BudgetHold:
        return self._deps.budget.hold(account, (target,), lambda: worst_case(target.request(self._message.request)))

    def _message_to(self, target: ResolvedTarget, sink: ProgressSink | None) -> Complete:
        """Return the message with the target's own options, and with the sink of this call."""
        message = self._message
        request = target.request(message.request, message.seed)
        if request is message.request and sink is message.sink:
            return message
        return msgspec.structs.replace(message, request=request, sink=sink)

    def _restarts(self, candidate: Candidate[ResolvedTarget], error: TidegateError) -> bool:
        """Decide, after a failure with content or a wrong answer, whether the answer begins anew."""
        fallback = self._fallback
        if isinstance(error, SchemaMismatch):
            verdict = self._repairs(candidate, error)
        else:
            restartable = self._message.restart and isinstance(error, ProviderError)
            verdict = restartable and fallback.may_continue(candidate, error)
        fallback.verdict = verdict
        return verdict

    def _repairs(self, candidate: Candidate[ResolvedTarget], error: SchemaMismatch) -> bool:
        """Decide whether the target gets its wrong answer back; then it is called next."""
        message = self._message
        over = self._candidates.calls_left <= 0 or self._terms.clock.time() >= self._terms.deadline
        if over or not message.repair or not error.raw.strip():
            return False
        self._message = msgspec.structs.replace(message, request=repair_request(message.request, error), repair=False)
        self._size.replace(self._message.request)
        self._fallback.repeat(candidate)
        return True
