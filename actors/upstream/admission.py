"""Admission of one call: everything that it acquires before it is sent, and gives back when it has ended."""

from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

import msgspec

from actors.runtime import Clock
from actors.upstream.budget import BudgetHold
from actors.upstream.concurrency import ConcurrencyLimiter
from actors.upstream.health import Health
from actors.upstream.rate_limit import Permit
from actors.upstream.timeouts import TimeoutScope
from protocol.errors import ProviderError, SchemaMismatch
from protocol.upstream import Allowance, Refusal


class Admissible(Protocol):
    """A candidate, as far as admission needs to know it.

    Attributes:
        health: the breaker and the rate limit of its model.
        size: returns about how many tokens a call to it sends.
    """

    health: Health
    size: Callable[[], int]

    def count_call(self) -> None:
        """Count a call to it."""


class AdmissionTerms(msgspec.Struct, frozen=True):
    """What the calls of one request have in common.

    Attributes:
        clock: the time.
        deadline: when the request is out of time.
        tenant: whose request it is, for fair queues.
        learns_limits: whether refusals close a target's rate limit.
        request_id: for the log.
        trace_id: for the log.
    """

    clock: Clock
    deadline: float
    tenant: str = ""
    learns_limits: bool = True
    request_id: str = ""
    trace_id: str = ""


class Admission:
    """Acquires all that a call needs, as an async context manager that releases it on every way out.

    ::

        new ──► waiting ──► admitted ──► released
                   └──► refused

    Entering acquires, in this order: room in the target's rate limit, a place in the endpoint's concurrency, room in
    the account's budgets, and the breaker's consent. Where nothing has to be waited for, there is no timer and no task.

    Entering returns None, with everything released, where the target has turned out not to be worth a call meanwhile:
    its rate limit has refused other calls, or its breaker has opened. Leaving tells the breaker and the rate limit how
    the call ended. A budget hold that ``take_hold`` has not handed over is settled with nothing.

    Args:
        limiter: the endpoint's concurrency.
        candidate: is called.
        terms: of the request.
        hold: the room to be held in an account's budgets; None where nobody pays.

    Raises:
        BudgetExceeded: on entering: the account has no room for the call.
        DeadlineExceeded: on entering: out of time while the call waited.
        Overloaded: on entering: a queue is full, the rate limit has no room before the deadline, or the ledger is full.
        ProviderError: on entering: ``provider_rate_limited``: the call has waited for a probe that was refused; it
            counts as a call.
    """

    __slots__ = ("_candidate", "_generation", "_hold", "_limiter", "_permit", "_placed", "_terms")

    def __init__(
        self, limiter: ConcurrencyLimiter, candidate: Admissible, terms: AdmissionTerms, hold: BudgetHold | None
    ) -> None:
        self._limiter = limiter
        self._candidate = candidate
        self._terms = terms
        self._hold = hold
        self._permit: Permit | None = None
        self._placed = False
        self._generation: int | None = None

    async def __aenter__(self) -> Self | None:
        limiter, health = self._limiter, self._candidate.health
        try:
            if limiter.free and health.gate.unlimited:
                limiter.acquire_nowait()
                self._placed = True
                self._permit = health.gate.acquire_nowait()
                welcome = True
            else:
                welcome = await self._wait()
            if welcome:
                if self._hold is not None:
                    await self._hold.reserve()
                self._generation = health.breaker.enter()
        finally:
            if self._generation is None and (hold := self._release(good=None)) is not None:
                await hold.settle()
        if self._generation is None:
            return None
        self._candidate.count_call()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._generation is not None:
            if error is None:
                self._candidate.health.count_success()
            hold = self._release(good=True if error is None else self._outcome(error))
            if hold is not None:
                await hold.settle()

    def learn(self, allowances: tuple[Allowance, ...]) -> None:
        """Take over the rate limits that the answer reports."""
        if self._permit is not None:
            self._candidate.health.gate.learn(self._permit, allowances)

    def take_hold(self) -> BudgetHold | None:
        """Hand over the room held in budgets: the caller settles it from now on. None where nobody pays."""
        hold, self._hold = self._hold, None
        return hold

    async def _wait(self) -> bool:
        """Wait for a permit, then for a place; return False where the target has refused other calls meanwhile."""
        candidate, gate, terms = self._candidate, self._candidate.health.gate, self._terms
        with TimeoutScope(terms.clock, terms.deadline):
            try:
                self._permit = permit = await gate.acquire(terms.tenant, candidate.size, terms.deadline)
            except ProviderError:
                candidate.count_call()
                raise
            await self._limiter.acquire(terms.tenant)
            self._placed = True
        return not gate.stale(permit)

    def _outcome(self, error: BaseException) -> bool | None:
        """Return what a failure says about the target: good, bad, or None for nothing.

        A whole answer that does not match its schema is good.
        """
        if isinstance(error, SchemaMismatch):
            self._candidate.health.count_success()
            return True
        if not isinstance(error, ProviderError):
            return None
        health = self._candidate.health
        if self._terms.learns_limits and isinstance(error, Refusal) and self._permit is not None:
            refused = error.code == "provider_rate_limited"
            health.gate.learn(self._permit, error.limits, refused=refused, retry_after=error.retry_after)
        return health.count_failure(error, self._terms.clock.time())

    def _release(self, *, good: bool | None) -> BudgetHold | None:
        """Give back all that was acquired, each part once; return the budget hold, which is yet to be settled."""
        health = self._candidate.health
        generation, self._generation = self._generation, None
        if generation is not None:
            health.breaker.leave(generation, good=good)
        if self._placed:
            self._placed = False
            self._limiter.release()
        permit, self._permit = self._permit, None
        if permit is not None:
            health.gate.release(permit)
        hold, self._hold = self._hold, None
        return hold
