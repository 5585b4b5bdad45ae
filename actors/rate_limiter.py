"""In-memory rate limiter, for one process: two counters a window, weighed by time."""

import math
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final

from actors.tenant_table import TenantTable
from protocol.limits import LEASE, UNLIMITED, LimitDecision, Owner, Quota, QuotaStanding, RateLimiter

MAX_OWNERS: Final = 100_000
MAX_TOKENS: Final = 2**31 - 1  # of one call; a larger count is not believed
SLACK: Final = 1e-6  # of a counter, so that rounding refuses nobody
REMEMBERED: Final = 16  # of the quotas of an owner
WAIT_FOR_CALLS: Final = 1.0  # seconds after which one of the calls at once may have ended


class _WindowCount:
    """What was counted in the present window and in the one before it.

    Args:
        window: its length in seconds.

    Attributes:
        ends: when the present window ends, in Unix seconds: this names the window.
        counted: in the present window.
        previous: in the one before it.
    """

    __slots__ = ("counted", "ends", "previous", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.ends = 0
        self.counted = 0
        self.previous = 0

    def used(self, now: float) -> float:
        """Return what counts at ``now``. A clock that was put back goes on in the window that it had reached."""
        if now >= self.ends:
            self.previous = self.counted if now < self.ends + self.window else 0
            self.counted = 0
            self.ends = _end_of(now, self.window)
        if not self.previous:
            return self.counted
        return self.counted + self.previous * min(1.0, (self.ends - now) / self.window)

    def wait(self, cost: int, limit: int, now: float) -> float:
        """Return the seconds until there is room for ``cost``; for more than ``limit``, until there is none left."""
        left, rest = max(0, limit - cost), min(self.window, self.ends - now)
        if self.counted <= left:
            return max(0.0, rest - (left - self.counted) / max(1, self.previous) * self.window)
        return rest + max(0.0, 1.0 - left / self.counted) * self.window

    def reset(self, now: float) -> float:
        """Return the seconds until nothing counts any more."""
        if self.counted:
            return self.ends - now + self.window
        return self.ends - now if self.previous else 0.0

    def add(self, taken: float, amount: int) -> None:
        """Change the count of the window that contains ``taken``; that of one which is over has no effect any more."""
        ends = _end_of(taken, self.window)
        if ends == self.ends:
            self.counted = max(0, self.counted + amount)
        elif ends == self.ends - self.window:
            self.previous = max(0, self.previous + amount)


class _Leases:
    """The calls that run, each with the time from which it is taken to have ended. They have no window."""

    __slots__ = ("_next", "ends", "held", "window")

    def __init__(self) -> None:
        self.ends = self.window = 0
        self.held: dict[int, float] = {}
        self._next = math.inf

    def used(self, now: float) -> int:
        """Return how many calls run."""
        if now >= self._next:
            self.held = {number: until for number, until in self.held.items() if until > now}
            self._next = min(self.held.values(), default=math.inf)
        return len(self.held)

    def wait(self, _cost: int, _limit: int, _now: float) -> float:
        """Return the seconds until one of the calls may have ended."""
        return WAIT_FOR_CALLS

    def reset(self, _now: float) -> float:
        """Return 0: when the calls end is not known."""
        return 0.0

    def add(self, number: int, until: float) -> None:
        """Count a call."""
        self.held[number] = until
        self._next = min(self._next, until)


_Counter = _WindowCount | _Leases


class _CallCounters:
    """The counters of a call's quotas.

    Attributes:
        quotas: the quotas.
        pairs: each quota with its counter.
        requests: the counters of requests.
        tokens: the counters of tokens.
        leases: those of calls at once.
    """

    __slots__ = ("leases", "pairs", "quotas", "requests", "tokens")

    def __init__(self, quotas: Sequence[Quota], counters: dict[str, _Counter]) -> None:
        self.quotas = quotas
        self.pairs: list[tuple[Quota, _Counter]] = []
        self.requests: list[_WindowCount] = []
        self.tokens: list[_WindowCount] = []
        self.leases: list[_Leases] = []
        for quota in quotas:
            counter = counters.get(quota.key)
            if counter is None:
                counter = counters[quota.key] = _WindowCount(quota.window) if quota.window else _Leases()
            self.pairs.append((quota, counter))
            if isinstance(counter, _Leases):
                self.leases.append(counter)
            else:
                (self.tokens if quota.unit == "tokens" else self.requests).append(counter)


class _Hold:
    """What one call has taken.

    Args:
        counters: from which.
        number: of the call.
        tokens: the estimate, which is counted.
        now: when it was taken, which names the windows.
    """

    __slots__ = ("_counters", "_now", "_number", "_tokens", "_undone")

    def __init__(self, counters: _CallCounters, number: int, tokens: int, now: float) -> None:
        self._counters = counters
        self._number = number
        self._tokens = tokens
        self._now = now
        self._undone = False

    def count(self, tokens: int) -> None:
        """Count ``tokens`` in place of the estimate, or of an earlier count."""
        counters = self._counters.tokens
        if counters:
            tokens = min(max(tokens, 0), MAX_TOKENS)
            more, self._tokens = tokens - self._tokens, tokens
            for counter in counters:
                counter.add(self._now, more)

    def release(self) -> None:
        """End the lease of the call."""
        for leases in self._counters.leases:
            leases.held.pop(self._number, None)

    def undo(self) -> None:
        """Give back all that was taken."""
        self.release()
        self.count(0)
        if not self._undone:
            self._undone = True
            for counter in self._counters.requests:
                counter.add(self._now, -1)


class _Owned:
    """The counters of one owner.

    Attributes:
        counters: by the quotas' keys.
    """

    __slots__ = ("_found", "counters")

    def __init__(self) -> None:
        self.counters: dict[str, _Counter] = {}
        self._found: dict[int, _CallCounters] = {}

    def of(self, quotas: Sequence[Quota]) -> _CallCounters:
        """Return the counters of quotas, new ones included."""
        found = self._found.get(id(quotas))
        if found is None or found.quotas is not quotas:
            if len(self._found) >= REMEMBERED:
                self._found.clear()
            found = self._found[id(quotas)] = _CallCounters(quotas, self.counters)
        return found

    def idle(self, now: float) -> bool:
        """Whether nothing counts any more: then new counters are as good."""
        return not any(counter.used(now) for counter in self.counters.values())


class MemoryRateLimiter(RateLimiter):
    """Counts in memory. No method waits, so all quotas of a call are taken in one step for all tasks of the loop.

    Where there is no room for another owner's counters, some are dropped as ``TenantTable`` says, first those in which
    nothing counts any more.

    Args:
        now: the time, in Unix seconds.
        max_owners: the most owners with counters.
    """

    def __init__(self, now: Callable[[], float] = time.time, *, max_owners: int = MAX_OWNERS) -> None:
        self._now = now
        self._owners: TenantTable[_Owned] = TenantTable(max_owners)
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._owners)

    async def take(  # noqa: D102 - the contract is the protocol's
        self, owner: Owner, quotas: Sequence[Quota], *, requests: int = 1, tokens: int = 0, lease: float = LEASE
    ) -> LimitDecision:
        now = self._now()
        if not 0 <= tokens <= MAX_TOKENS:
            tokens = min(max(tokens, 0), MAX_TOKENS)
        counters = self._owned(owner, now).of(quotas)
        standings = []
        for quota, counter in counters.pairs:
            room = quota.limit - counter.used(now) - (tokens if quota.unit == "tokens" else 1) + SLACK
            if room < 0 or not requests:
                return _look(counters, requests, tokens, now)
            standings.append(
                QuotaStanding(quota, int(room), counter.ends - now + counter.window if quota.window else 0.0)
            )
        number = next(self._numbers)
        for requested in counters.requests:
            requested.counted += 1
        for counted in counters.tokens:
            counted.counted += tokens
        for leases in counters.leases:
            leases.add(number, now + lease)
        return LimitDecision(tuple(standings), None, 0.0, _Hold(counters, number, tokens, now))

    def known(self, owner: Owner, quotas: Sequence[Quota]) -> LimitDecision:  # noqa: D102 - as above
        owned = self._owners.get(*owner)
        if owned is None:
            return UNLIMITED
        decision = _look(owned.of(quotas), 1, 0, self._now())
        return UNLIMITED if decision.refused is None else decision

    async def reset(self, owner: Owner) -> bool:  # noqa: D102 - as above
        return self._owners.remove(*owner)

    def _owned(self, owner: Owner, now: float) -> _Owned:
        tenant, name = owner
        owned = self._owners.get(tenant, name)
        if owned is None:
            owned = self._owners.add(tenant, name, _Owned(), lambda other: other.idle(now))
        return owned


def _look(counters: _CallCounters, requests: int, tokens: int, now: float) -> LimitDecision:
    """Return what is left, and which quota refuses the call for the longest time; takes nothing."""
    refused: Quota | None = None
    longest = 0.0
    standings = []
    for quota, counter in counters.pairs:
        room = quota.limit - counter.used(now) + SLACK
        standings.append(QuotaStanding(quota, max(0, int(room)), counter.reset(now)))
        cost = tokens if quota.unit == "tokens" else requests
        if requests and cost > room:
            wait = counter.wait(cost, quota.limit, now)
            if refused is None or wait > longest:
                refused, longest = quota, wait
    return LimitDecision(tuple(standings), refused, longest)


def _end_of(now: float, window: int) -> int:
    """Return the end of the window that contains ``now``."""
    return (int(now) // window + 1) * window
