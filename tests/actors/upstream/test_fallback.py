import asyncio
import gc
import weakref
from collections.abc import Callable, Sequence

import pytest

from actors.resilience.retry import RetryPolicy
from actors.runtime.testing import ManualClock
from actors.upstream.admission import AdmissionTerms
from actors.upstream.breaker import IN_A_ROW
from actors.upstream.candidates import PROBED, Candidate, CandidateSet
from actors.upstream.concurrency import ConcurrencyLimiter
from actors.upstream.endpoint import Endpoint
from actors.upstream.fallback import Fallback
from protocol.errors import BudgetExceeded, Overloaded, ProviderError, TidegateError

Script = dict[str, list[str | Exception | None]]


class WatchedSet(CandidateSet[str]):
    """A candidate set that keeps whose failures it has judged."""

    def __init__(self, candidates: Sequence[Candidate[str]], *, retry: RetryPolicy, terms: AdmissionTerms) -> None:
        super().__init__(candidates, retry=retry, terms=terms)
        self.judged: list[str] = []

    def may_continue(self, candidate: Candidate[str], error: TidegateError) -> bool:
        self.judged.append(candidate.target)
        return super().may_continue(candidate, error)


class Rig:
    """A fallback over candidates whose calls bring what a test has scripted."""

    def __init__(self, script: Script, *, attempts: int = 3, final: frozenset[str] = frozenset()) -> None:
        self.clock = ManualClock()
        self.script = script
        self.called: list[str] = []
        self.candidates = [self._candidate(name) for name in script]
        terms = AdmissionTerms(self.clock, 100.0)
        retry = RetryPolicy(attempts=attempts, jitter=lambda: 1.0)
        self.set = WatchedSet(self.candidates, retry=retry, terms=terms)
        self.fallback: Fallback[str, str] = Fallback(self.set, final=final)

    def _candidate(self, name: str) -> Candidate[str]:
        endpoint = Endpoint(name, ConcurrencyLimiter(name, concurrency=1, queue=0))
        return Candidate(name, endpoint, endpoint.health("m", self.clock), lambda: 1)

    async def call(self, candidate: Candidate[str]) -> str | None:
        """Bring the next of the script."""
        self.called.append(candidate.target)
        outcome = self.script[candidate.target].pop(0)
        if outcome is not None:
            candidate.count_call()
        try:
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        finally:
            del outcome  # an error holds this frame

    async def run(self) -> str:
        """Run to the end, and let the time pass meanwhile."""
        task = asyncio.create_task(self.fallback.run(self.call))
        while not task.done():
            await asyncio.sleep(0)
            self.clock.step(self.clock.time() + 1)
        return await task


def down() -> ProviderError:
    """A failure that may pass."""
    return ProviderError(code="provider_unavailable")


async def test_a_failure_is_followed_by_the_next_candidate() -> None:
    """At once, and a call that was not made counts for nothing."""
    rig = Rig({"a": [down()], "b": [None, "text"]})
    assert await rig.run() == "text"
    assert rig.called == ["a", "b", "b"]
    assert rig.set.calls_left == 1


async def test_the_last_failure_ends_it() -> None:
    """With as many calls as the policy allows."""
    last = down()
    rig = Rig({"a": [down(), last], "b": [down()]})
    with pytest.raises(ProviderError) as caught:
        await rig.run()
    assert caught.value is last
    assert rig.called == ["a", "b", "a"]


@pytest.mark.parametrize("make", [lambda: ProviderError(code="response_too_large"), lambda: BudgetExceeded("no room")])
async def test_some_failures_are_final(make: Callable[[], TidegateError]) -> None:
    """Those in ``final``, and those that no other target would answer differently."""
    error = make()
    rig = Rig({"a": [error], "b": ["text"]}, final=frozenset({"response_too_large"}))
    with pytest.raises(type(error)):
        await rig.run()
    assert rig.called == ["a"]


async def test_a_full_queue_goes_to_the_next_candidate() -> None:
    """It is a failure like another."""
    assert await Rig({"a": [Overloaded("full", code="provider_overloaded")], "b": ["text"]}).run() == "text"


async def test_without_a_call_it_is_unavailable() -> None:
    """With the time of the next probe; where one is under way, with the time that one takes."""
    rig = Rig({"a": []})
    breaker = rig.candidates[0].health.breaker
    for _ in range(IN_A_ROW):
        breaker.leave(breaker.enter() or 0, good=False)
    with pytest.raises(ProviderError) as caught:
        await rig.run()
    assert (caught.value.code, rig.called) == ("provider_unavailable", [])
    rig.clock.step(rig.clock.time() + 100)
    assert breaker.enter() is not None
    with pytest.raises(ProviderError) as caught:
        await rig.run()
    assert caught.value.retry_after == PROBED


@pytest.mark.parametrize("verdict", [True, False])
async def test_the_verdict_of_a_call_goes_before_that_of_the_candidates(verdict: bool) -> None:
    """It holds for that call alone."""
    rig = Rig({"a": [down()], "b": [down()], "c": ["text"]})

    async def call(candidate: Candidate[str]) -> str | None:
        if candidate.target == "a":
            rig.fallback.verdict = verdict
            if verdict:
                rig.set.may_continue(candidate, down())
        return await rig.call(candidate)

    if verdict:
        assert await rig.fallback.run(call) == "text"
    else:
        with pytest.raises(ProviderError):
            await rig.fallback.run(call)
    assert rig.called == (["a", "b", "c"] if verdict else ["a"])


async def test_a_candidate_can_be_repeated() -> None:
    """It comes before the others, once."""
    rig = Rig({"a": [down(), down()], "b": ["text"]})

    async def call(candidate: Candidate[str]) -> str | None:
        if not rig.called:
            rig.fallback.repeat(candidate)
            rig.fallback.verdict = True
        return await rig.call(candidate)

    assert await rig.fallback.run(call) == "text"
    assert rig.called == ["a", "a", "b"]


async def test_parallel_calls_are_judged_once_each() -> None:
    """A step raises what is final, and nobody judges it again."""
    rig = Rig({"a": [down()], "b": [down()]}, attempts=2)

    async def both(_: Candidate[str]) -> str | None:
        first, second = rig.candidates
        assert await rig.fallback.parallel(first, rig.call(first)) is None
        return await rig.fallback.parallel(second, rig.call(second))

    with pytest.raises(ProviderError):
        await rig.fallback.run(both)
    assert rig.set.judged == ["a", "b"]


async def test_an_error_is_not_kept() -> None:
    """Its traceback holds the frames of the request: with the error those would stay until a collection."""
    rig = Rig({"a": [down()], "b": ["text"]})
    (error,) = rig.script["a"]
    gone = weakref.ref(error) if isinstance(error, Exception) else None
    assert gone is not None
    gc.disable()
    try:
        del error
        await rig.run()
        assert gone() is None
    finally:
        gc.enable()
