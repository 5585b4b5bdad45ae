"""Candidates: the targets that one request may call, and their order."""

from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from actors.resilience.retry import RetryPolicy
from actors.upstream.admission import AdmissionTerms
from actors.upstream.endpoint import Endpoint
from actors.upstream.health import Health
from actors.upstream.retry import RETRIED
from protocol.errors import ProviderError, TidegateError
from protocol.llm import ChatRequest
from protocol.tokens import estimate_tokens

PROBED: Final = 1.0  # seconds after which a probe that is under way has probably ended

TargetT = TypeVar("TargetT")


class RequestSize:
    """The estimated tokens of a request, counted when they are first needed.

    Args:
        request: is sent.
    """

    __slots__ = ("_request", "_tokens")

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._tokens = 0

    def replace(self, request: ChatRequest) -> None:
        """Estimate ``request`` from now on."""
        self._request = request
        self._tokens = 0

    def __call__(self) -> int:
        """Return the tokens."""
        self._tokens = self._tokens or estimate_tokens(self._request)
        return self._tokens


class Candidate(Generic[TargetT]):
    """A target, and what one request knows of it.

    Args:
        target: the target.
        endpoint: serves the model.
        health: of the model.
        size: returns about how many tokens a call to it sends.

    Attributes:
        calls: how often the request has called it.
        due: when the request may call it again.
    """

    __slots__ = ("calls", "due", "endpoint", "health", "size", "target")

    def __init__(self, target: TargetT, endpoint: Endpoint, health: Health, size: Callable[[], int]) -> None:
        self.target = target
        self.endpoint = endpoint
        self.health = health
        self.size = size
        self.calls = 0
        self.due = 0.0

    @property
    def name(self) -> str:
        """The target as ``provider/model``."""
        return self.health.breaker.name

    def count_call(self) -> None:
        """Count a call: one that is sent, or one that was refused with a probe in its place."""
        if not self.calls:
            self.endpoint.retries.count_first_call()
        self.calls += 1

    def rank(self, now: float) -> tuple[bool, bool, float, int, float]:
        """Return the key that sorts candidates: not due, limited or cooling, seconds to room, calls made, due time."""
        gate = self.health.gate
        limited = 0.0 if gate.unlimited else gate.wait_for(self.size())
        avoided = limited > 0 or self.health.cools_until > now
        return self.due > now, avoided, limited, self.calls, self.due

    def ready(self, now: float) -> bool:
        """Whether a call would be sent at once, to a target that neither limits calls nor cools down."""
        return self.health.breaker.wait == 0 and self.endpoint.limiter.free and not any(self.rank(now)[:2])


class CandidateSet(Generic[TargetT]):
    """The candidates that one request may still call.

    A candidate that fails is followed by the next one at once. When all have failed, those whose failure may pass are
    called again, each after its own delay and as far as its endpoint's retry budget has room. One whose breaker is open
    is passed over; one that cools down, or whose rate limit has no room, comes after the others.

    Args:
        candidates: in their order; at least one.
        retry: how often calls are made, and when a failed one is followed by another to the same target.
        terms: of the request.

    Attributes:
        terms: of the request.
    """

    __slots__ = ("_all", "_limit", "_remaining", "_retry", "terms")

    def __init__(self, candidates: Sequence[Candidate[TargetT]], *, retry: RetryPolicy, terms: AdmissionTerms) -> None:
        self._all = candidates
        self._remaining = list(candidates)
        self._retry = retry
        self.terms = terms
        self._limit = max(retry.attempts, len(candidates))

    @property
    def calls_left(self) -> int:
        """How many calls the request may still make."""
        return self._limit - sum(candidate.calls for candidate in self._all)

    def next(self) -> Candidate[TargetT] | None:
        """Return the candidate to be called next; None where none is left."""
        while usable := [candidate for candidate in self._remaining if candidate.health.breaker.wait == 0]:
            candidate = usable[0] if len(usable) == 1 else self._first(usable)
            if not candidate.calls or candidate.endpoint.retries.take():
                return candidate
            self._remaining.remove(candidate)
        return None

    def hedge(self, candidate: Candidate[TargetT]) -> Candidate[TargetT] | None:
        """Return the candidate for a second call beside the one to ``candidate``.

        None where no call would be sent at once, or where the retry budget has no room for a repeated one.
        """
        others = [other for other in self._remaining if other is not candidate] or [candidate]
        other = self._first(others)
        repeated = other.calls > 0 or other is candidate
        if not other.ready(self.terms.clock.time()) or (repeated and not other.endpoint.retries.take()):
            return None
        return other

    def may_continue(self, candidate: Candidate[TargetT], error: TidegateError) -> bool:
        """Return whether a call may follow this failure, and set when this candidate is due again."""
        if self.calls_left <= 0:
            return False
        now = self.terms.clock.time()
        delay = None
        if candidate.calls and error.code in RETRIED:
            delay = self._retry.delay(candidate.calls, error, self.terms.deadline - now)
        if delay is not None:
            candidate.due = now + delay
        elif candidate in self._remaining:
            self._remaining.remove(candidate)
        return bool(self._remaining)

    def unavailable(self) -> ProviderError:
        """Return the failure of a request for which no call could be made."""
        waits = [wait for candidate in self._remaining if (wait := candidate.health.breaker.wait) is not None]
        return ProviderError(code="provider_unavailable", retry_after=min(waits, default=PROBED))

    def _first(self, candidates: Sequence[Candidate[TargetT]]) -> Candidate[TargetT]:
        now = self.terms.clock.time()
        return min(candidates, key=lambda candidate: candidate.rank(now))
