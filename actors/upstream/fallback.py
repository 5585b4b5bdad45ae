"""Fallback: one request on its way over its candidates, until a call succeeds."""

from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from actors.upstream.attempt_log import AttemptLog
from actors.upstream.candidates import Candidate, CandidateSet
from actors.upstream.timeouts import pause
from protocol.errors import Overloaded, ProviderError, TidegateError

ResultT = TypeVar("ResultT")
TargetT = TypeVar("TargetT")

NO_CODES: Final[frozenset[str]] = frozenset()


class Fallback(Generic[TargetT, ResultT]):
    """Calls one candidate after another, until one brings a result.

    ::

        next candidate ──► wait until it is due ──► call ──► result
              ▲                                      │
              └───── the request may go on ──── failure ──► raise

    A call that returns None was not made: the candidate has turned out not to be worth one, and the loop goes on.

    Args:
        candidates: the targets.
        final: codes of failures after which no further call is made.

    Attributes:
        candidates: the targets.
        verdict: whether the request goes on after the failure of the present call, where the call has decided that
            itself; None where ``candidates`` decide.
    """

    __slots__ = ("_error", "_failures", "_final", "_judged", "_repeated", "candidates", "verdict")

    def __init__(self, candidates: CandidateSet[TargetT], *, final: frozenset[str] = NO_CODES) -> None:
        self.candidates = candidates
        self.verdict: bool | None = None
        self._final = final
        self._repeated: Candidate[TargetT] | None = None
        self._error: TidegateError | None = None
        self._judged = False
        self._failures: AttemptLog | None = None  # made with the first one: most requests have none

    async def run(self, step: Callable[[Candidate[TargetT]], Awaitable[ResultT | None]]) -> ResultT:
        """Return the first result.

        Args:
            step: makes the call to a candidate, or several parallel calls, each by ``parallel``.

        Raises:
            ProviderError: ``provider_unavailable``: no candidate's breaker lets a call through.
            TidegateError: the last failure.
        """
        clock = self.candidates.terms.clock
        try:
            while True:
                self.verdict = None
                self._judged = False
                repeated, self._repeated = self._repeated, None
                candidate = repeated or self.candidates.next()
                if candidate is None:
                    raise self._error or self.candidates.unavailable()
                if self._failures is not None:
                    self._log_next(candidate, repeated=repeated is not None)
                if candidate.due and (delay := candidate.due - clock.time()) > 0:
                    await pause(clock, delay)
                try:
                    result = await step(candidate)
                except (ProviderError, Overloaded) as error:
                    self._record(candidate, error)
                    if self._judged or not self._continues(candidate, error):
                        raise
                else:
                    if result is not None:
                        return self._won(result)
        finally:
            if self._failures is not None:
                self._failures.follows("end")
            self._error = None  # its traceback holds this, and both would stay until the collector comes

    async def parallel(self, candidate: Candidate[TargetT], call: Awaitable[ResultT | None]) -> ResultT | None:
        """Make one of several parallel calls of a step; return None where a further call has to follow.

        Raises:
            ProviderError: the call failed, and the request does not go on; so ``Overloaded``.
        """
        self._judged = True
        try:
            return await call
        except (ProviderError, Overloaded) as error:
            self._record(candidate, error)
            if not self._continues(candidate, error):
                raise
            return None

    def failed(self, candidate: Candidate[TargetT], number: int, error: TidegateError, seconds: float) -> None:
        """Record for the log that call ``number`` has failed after so many seconds."""
        if self._failures is None:
            self._failures = AttemptLog(self.candidates.terms)
        self._failures.failed(candidate.name, number, error, seconds, url=candidate.endpoint.url)

    def may_continue(self, candidate: Candidate[TargetT], error: TidegateError) -> bool:
        """Return whether a call may follow this failure, and set when this candidate is due again."""
        return error.code not in self._final and self.candidates.may_continue(candidate, error)

    def repeat(self, candidate: Candidate[TargetT]) -> None:
        """Let this candidate be called next, without a delay."""
        self._repeated = candidate

    def _record(self, candidate: Candidate[TargetT], error: TidegateError) -> None:
        """Record a refusal before the call was made; the failure of a call has been recorded."""
        if self._failures is None or not self._failures.knows(error):
            self.failed(candidate, 0, error, 0.0)

    def _log_next(self, candidate: Candidate[TargetT], *, repeated: bool) -> None:
        """Log the failures so far: a call to ``candidate`` follows."""
        if self._failures is not None:
            self._failures.follows("repair" if repeated else None, target=candidate.name, due=candidate.due)

    def _won(self, result: ResultT) -> ResultT:
        """Return the result; a failure that is not logged yet was one of a parallel call."""
        if self._failures is not None:
            self._failures.follows("hedge")
        return result

    def _continues(self, candidate: Candidate[TargetT], error: TidegateError) -> bool:
        self._error = error
        return self.may_continue(candidate, error) if self.verdict is None else self.verdict
