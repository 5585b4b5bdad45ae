"""The targets of one request: whose turn it is, what is known of each, and when nobody is left."""

from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from actors.runtime import Clock
from actors.upstream.endpoint import Health, Station
from actors.upstream.retry import FAULTS, RetryPolicy
from protocol.errors import ProviderError, TidegateError
from protocol.llm import ChatRequest
from protocol.tokens import estimate_tokens

PROBED: Final = 1.0  # seconds after which a probe that is under way has probably ended
COOL_DOWN: Final = 5.0  # seconds for which a target that limits our rate is asked last, where it does not say how long

L = TypeVar("L")


class Size:
    """About how many tokens a call sends; they are counted when somebody asks for the first time.

    Args:
        request: what is sent.
    """

    __slots__ = ("_request", "_tokens")

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._tokens = 0

    def replace(self, request: ChatRequest) -> None:
        """From now on this is sent."""
        self._request = request
        self._tokens = 0

    def __call__(self) -> int:
        """Return how many."""
        self._tokens = self._tokens or estimate_tokens(self._request)
        return self._tokens


class Trial(Generic[L]):
    """A target, and what one request knows of it.

    Args:
        leg: the target.
        station: whose model it is.
        health: how the model has done lately.
        size: says about how many tokens a call to it sends.

    Attributes:
        calls: how often the request has asked it.
        due: when the request may ask it again.
    """

    __slots__ = ("_size", "calls", "due", "health", "leg", "station")

    def __init__(self, leg: L, station: Station, health: Health, size: Callable[[], int]) -> None:
        self._size = size
        self.leg = leg
        self.station = station
        self.health = health
        self.calls = 0
        self.due = 0.0

    @property
    def open(self) -> bool:
        """Whether its breaker lets a call through."""
        return self.health.breaker.wait == 0

    def rank(self, now: float) -> tuple[bool, bool, float, int, float]:
        """Return what sorts it among others: ready, not to be spared, room soonest, not yet asked, waiting least."""
        window = self.health.window
        limited = 0.0 if window.unlimited else window.wait_for(self._size())
        spared = limited > 0 or self.health.cools_until > now
        return self.due > now, spared, limited, self.calls, self.due

    def ready(self, now: float) -> bool:
        """Whether a call would be made at once, and is welcome."""
        return self.open and self.station.lane.free and not any(self.rank(now)[:2])


class Trials(Generic[L]):
    """The targets that one request may still ask.

    A target that has failed is followed by the next one at once; when all have failed, those whose failure may pass are
    asked again, each after its own delay and as far as its provider's budget of repeated calls has room. One whose
    breaker is open is passed over; one that cools down, or whose rate limit has no room, comes after the others.

    Args:
        trials: the targets in their order; at least one.
        retry: how often calls are made, and when a failed one is followed by another to the same target.
        clock: the time.
        deadline: when the request is out of time.

    Attributes:
        left: how many calls the request may still make.
        made: how many it has made.
    """

    __slots__ = ("_clock", "_deadline", "_retry", "_trials", "left", "made")

    def __init__(self, trials: Sequence[Trial[L]], *, retry: RetryPolicy, clock: Clock, deadline: float) -> None:
        self._trials = list(trials)
        self._retry = retry
        self._clock = clock
        self._deadline = deadline
        self.left = max(retry.attempts, len(self._trials))
        self.made = 0

    def next(self) -> Trial[L] | None:
        """Return whose turn it is; None where nobody is left."""
        while worth := [trial for trial in self._trials if trial.open]:
            trial = worth[0] if len(worth) == 1 else self._first(worth)
            if not trial.calls or trial.station.retries.take():
                return trial
            self._trials.remove(trial)
        return None

    def _first(self, trials: Sequence[Trial[L]]) -> Trial[L]:
        now = self._clock.time()
        return min(trials, key=lambda trial: trial.rank(now))

    def beside(self, trial: Trial[L]) -> Trial[L] | None:
        """Return who is asked beside ``trial``; None where nobody could begin at once, or is worth a repeated call."""
        others = [other for other in self._trials if other is not trial] or [trial]
        other = self._first(others)
        repeated = other.calls > 0 or other is trial
        if not other.ready(self._clock.time()) or (repeated and not other.station.retries.take()):
            return None
        return other

    def called(self, trial: Trial[L]) -> int:
        """Count a call to this one, and return its number."""
        self.made += 1
        self.spared(trial)
        return self.made

    def spared(self, trial: Trial[L]) -> None:
        """Count a call to this one that need not be made, as one in its place has failed."""
        self.left -= 1
        if not trial.calls:
            trial.station.retries.called()
        trial.calls += 1

    def judged(self, trial: Trial[L], error: ProviderError) -> bool | None:
        """Say what a failure tells of the target: not good, or nothing, since the request itself may be the reason."""
        wait = error.retry_after
        if wait is None and error.code == "provider_rate_limited":
            wait = COOL_DOWN
        if wait is not None:
            trial.health.cools_until = self._clock.time() + wait
        return False if error.code in FAULTS else None

    def goes_on(self, trial: Trial[L], error: TidegateError) -> bool:
        """Say whether anybody may be asked after this failure, and when this target may."""
        if self.left <= 0:
            return False
        now = self._clock.time()
        delay = self._retry.delay(trial.calls, error, self._deadline - now) if trial.calls else None
        if delay is not None:
            trial.due = now + delay
        elif trial in self._trials:
            self._trials.remove(trial)
        return bool(self._trials)

    def unavailable(self) -> ProviderError:
        """Return what a request fails with that nobody has been asked for."""
        waits = [wait for trial in self._trials if (wait := trial.health.breaker.wait) is not None]
        return ProviderError(code="provider_unavailable", retry_after=min(waits, default=PROBED))
