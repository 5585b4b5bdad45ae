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
            self.ends = (int(now) // self.window + 1) * self.window
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

    def add(self, ends: int, amount: int) -> None:
        """Change the count of a window afterwards; that of a window which is over has no effect any more."""
        if ends == self.ends:
            self.counted = max(0, self.counted + amount)
        elif ends == self.ends - self.window:
            self.previous = max(0, self.previous + amount)


class _Leases:
    """The calls that run, each with the time from which it is taken to have ended."""

    __slots__ = ("_next", "held")

    def __init__(self) -> None:
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


class _Hold:
    """What one call has taken.

    Attributes:
        number: of the call.
        counts: the counters of requests, and the windows.
        tokens: the counters of tokens, and the windows.
        counted: the tokens that are counted now.
        leases: where the call counts as running.
    """

    __slots__ = ("counted", "counts", "leases", "number", "tokens")

    def __init__(self, number: int, tokens: int) -> None:
        self.number = number
        self.counted = tokens
        self.counts: list[tuple[_WindowCount, int]] = []
        self.tokens: list[tuple[_WindowCount, int]] = []
        self.leases: list[_Leases] = []

    def count(self, tokens: int) -> None:
        """Count ``tokens`` in place of the estimate, or of an earlier count."""
        tokens = min(max(tokens, 0), MAX_TOKENS)
        more, self.counted = tokens - self.counted, tokens
        for counter, ends in self.tokens:
            counter.add(ends, more)

    def release(self) -> None:
        """End the lease of the call."""
        for leases in self.leases:
            leases.held.pop(self.number, None)
        self.leases.clear()

    def undo(self) -> None:
        """Give back all that was taken."""
        self.release()
        self.count(0)
        for counter, ends in self.counts:
            counter.add(ends, -1)
        self.counts.clear()


class _Owned:
    """The counters of one owner.

    Attributes:
        counters: by the quotas' keys.
        refused: whether the last call was refused.
    """

    __slots__ = ("_found", "counters", "refused")

    def __init__(self) -> None:
        self.counters: dict[str, _Counter] = {}
        self.refused = False
        self._found: dict[int, tuple[Sequence[Quota], list[_Counter]]] = {}

    def of(self, quotas: Sequence[Quota]) -> list[_Counter]:
        """Return the counters of quotas, new ones included."""
        found = self._found.get(id(quotas))
        if found is not None and found[0] is quotas:
            return found[1]
        counters = []
        for quota in quotas:
            counter = self.counters.get(quota.key)
            if counter is None:
                counter = self.counters[quota.key] = _WindowCount(quota.window) if quota.window else _Leases()
            counters.append(counter)
        if len(self._found) >= REMEMBERED:
            self._found.clear()
        self._found[id(quotas)] = (quotas, counters)
        return counters

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
        tokens = min(max(tokens, 0), MAX_TOKENS)
        owned = self._owned(owner, now)
        counters = owned.of(quotas)
        rooms = []
        full = not requests
        for quota, counter in zip(quotas, counters, strict=True):
            room = quota.limit - counter.used(now) - (tokens if quota.unit == "tokens" else requests) + SLACK
            rooms.append(room)
            full = full or room < 0
        if full:
            owned.refused = bool(requests)
            return _look(quotas, counters, requests, tokens, now)
        owned.refused = False
        hold = _Hold(next(self._numbers), tokens)
        standings = []
        for quota, counter, room in zip(quotas, counters, rooms, strict=True):
            if isinstance(counter, _Leases):
                counter.add(hold.number, now + lease)
                hold.leases.append(counter)
                reset = 0.0
            else:
                if quota.unit == "tokens":
                    counter.counted += tokens
                    hold.tokens.append((counter, counter.ends))
                else:
                    counter.counted += 1
                    hold.counts.append((counter, counter.ends))
                reset = counter.ends - now + counter.window
            standings.append(QuotaStanding(quota, int(room), reset))
        return LimitDecision(tuple(standings), hold=hold)

    def known(self, owner: Owner, quotas: Sequence[Quota]) -> LimitDecision:  # noqa: D102 - as above
        owned = self._owners.get(*owner)
        if owned is None or not owned.refused:
            return UNLIMITED
        now = self._now()
        decision = _look(quotas, owned.of(quotas), 1, 0, now)
        return UNLIMITED if decision.refused is None else decision

    async def reset(self, owner: Owner) -> bool:  # noqa: D102 - as above
        return self._owners.remove(*owner)

    def _owned(self, owner: Owner, now: float) -> _Owned:
        tenant, name = owner
        owned = self._owners.get(tenant, name)
        return owned or self._owners.add(tenant, name, _Owned(), lambda other: other.idle(now))


def _look(
    quotas: Sequence[Quota], counters: Sequence[_Counter], requests: int, tokens: int, now: float
) -> LimitDecision:
    """Return what is left, and which quota refuses the call for the longest time; takes nothing."""
    refused: Quota | None = None
    longest = 0.0
    standings = []
    for quota, counter in zip(quotas, counters, strict=True):
        room = quota.limit - counter.used(now) + SLACK
        standings.append(QuotaStanding(quota, max(0, int(room)), counter.reset(now)))
        cost = tokens if quota.unit == "tokens" else requests
        if requests and cost > room:
            wait = counter.wait(cost, quota.limit, now)
            if refused is None or wait > longest:
                refused, longest = quota, wait
    return LimitDecision(tuple(standings), refused, longest)
