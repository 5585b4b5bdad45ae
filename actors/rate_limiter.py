"""In-memory rate limiter, for one process: two counters a window, weighed by time."""

import math
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final

import msgspec

from actors.tenant_table import TenantTable
from protocol.limits import LEASE, LimitDecision, Owner, Quota, QuotaStanding, RateLimiter

MAX_OWNERS: Final = 100_000
MAX_TOKENS: Final = 2**31 - 1  # of one call; a larger count is not believed
SLACK: Final = 1e-6  # of a counter, so that rounding refuses nobody
WAIT_FOR_CALLS: Final = 1.0  # seconds after which one of the calls at once may have ended


class _WindowCount:
    """What was counted in the present window and in the one before it.

    Args:
        window: its length in seconds.
    """

    __slots__ = ("counted", "index", "previous", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.index = 0
        self.counted = 0
        self.previous = 0

    def used(self, now: float) -> float:
        """Return what counts at ``now``."""
        index = int(now // self.window)
        if index > self.index:  # a clock that was put back goes on in the window that it had reached
            self.previous = self.counted if index == self.index + 1 else 0
            self.counted, self.index = 0, index
        if not self.previous:
            return self.counted
        return self.counted + self.previous * (1.0 - self._passed(now))

    def wait(self, cost: int, limit: int, now: float) -> float:
        """Return the seconds until there is room for ``cost``; for more than ``limit``, until there is none left."""
        left, passed = max(0, limit - cost), self._passed(now)
        if self.counted <= left:
            return max(0.0, 1.0 - (left - self.counted) / max(1, self.previous) - passed) * self.window
        return (1.0 - passed + max(0.0, 1.0 - left / self.counted)) * self.window

    def reset(self, now: float) -> float:
        """Return the seconds until nothing counts any more."""
        if self.counted:
            return (2.0 - self._passed(now)) * self.window
        return (1.0 - self._passed(now)) * self.window if self.previous else 0.0

    def take(self, hold: "_Hold", amount: int, _until: float) -> None:
        """Count ``amount`` in the present window."""
        self.counted += amount
        hold.counts.append((self, self.index, amount))

    def add(self, index: int, amount: int) -> None:
        """Change the count of a window afterwards; that of a window which is over has no effect any more."""
        if index == self.index:
            self.counted = max(0, self.counted + amount)
        elif index == self.index - 1:
            self.previous = max(0, self.previous + amount)

    def _passed(self, now: float) -> float:
        return min(1.0, max(0.0, now / self.window - self.index))


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

    def take(self, hold: "_Hold", _amount: int, until: float) -> None:
        """Count a call."""
        self.held[hold.number] = until
        self._next = min(self._next, until)
        hold.leases.append(self)


_Counter = _WindowCount | _Leases


class _Hold:
    """What one call has taken.

    Attributes:
        number: of the call.
        counts: the counters of requests and tokens, the windows, and what was taken from each.
        leases: where the call counts as running.
        tokens: the places in ``counts`` that have tokens.
    """

    __slots__ = ("counts", "leases", "number", "tokens")

    def __init__(self, number: int) -> None:
        self.number = number
        self.counts: list[tuple[_WindowCount, int, int]] = []
        self.leases: list[_Leases] = []
        self.tokens: list[int] = []

    def count(self, tokens: int) -> None:
        """Count ``tokens`` in place of the estimate, or of an earlier count."""
        tokens = min(max(tokens, 0), MAX_TOKENS)
        for place in self.tokens:
            counter, index, counted = self.counts[place]
            counter.add(index, tokens - counted)
            self.counts[place] = (counter, index, tokens)

    def release(self) -> None:
        """End the lease of the call."""
        for leases in self.leases:
            leases.held.pop(self.number, None)
        self.leases.clear()

    def undo(self) -> None:
        """Give back all that was taken."""
        self.release()
        for place, (counter, index, counted) in enumerate(self.counts):
            counter.add(index, -counted)
            self.counts[place] = (counter, index, 0)


class _Look(msgspec.Struct):
    """The counters of a call's quotas, what room each has, and which of them refuses the call."""

    counters: list[_Counter]
    rooms: list[float]
    refused: Quota | None = None
    wait: float = 0.0


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
        self._owners: TenantTable[dict[str, _Counter]] = TenantTable(max_owners)
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._owners)

    async def take(  # noqa: D102 - the contract is the protocol's
        self, owner: Owner, quotas: Sequence[Quota], *, requests: int = 1, tokens: int = 0, lease: float = LEASE
    ) -> LimitDecision:
        now = self._now()
        tokens = min(max(tokens, 0), MAX_TOKENS)
        look = self._look(owner, quotas, requests, tokens, now)
        if look.refused is not None or not requests:
            return self._decision(look, quotas, now)
        hold = _Hold(next(self._numbers))
        rooms = look.rooms
        for place, quota in enumerate(quotas):
            if quota.unit == "tokens":
                hold.tokens.append(len(hold.counts))
                rooms[place] -= tokens
                look.counters[place].take(hold, tokens, 0.0)
            else:
                rooms[place] -= 1
                look.counters[place].take(hold, 1, now + lease)
        return self._decision(look, quotas, now, hold)

    def known(self, owner: Owner, quotas: Sequence[Quota]) -> LimitDecision:  # noqa: D102 - as above
        now = self._now()
        return self._decision(self._look(owner, quotas, 1, 0, now), quotas, now)

    async def reset(self, owner: Owner) -> bool:  # noqa: D102 - as above
        return self._owners.remove(*owner)

    def _look(self, owner: Owner, quotas: Sequence[Quota], requests: int, tokens: int, now: float) -> _Look:
        """Find the room in each quota, and the one that has none for the longest time."""
        counters = self._counters(owner, quotas, now)
        look = _Look(counters, [])
        for quota, counter in zip(quotas, counters, strict=True):
            room = quota.limit - counter.used(now)
            look.rooms.append(room)
            cost = tokens if quota.unit == "tokens" else requests
            if requests and cost > room + SLACK:
                wait = counter.wait(cost, quota.limit, now)
                if look.refused is None or wait > look.wait:
                    look.refused, look.wait = quota, wait
        return look

    def _decision(self, look: _Look, quotas: Sequence[Quota], now: float, hold: _Hold | None = None) -> LimitDecision:
        standings = [
            QuotaStanding(quota, int(room + SLACK) if room > 0 else 0, counter.reset(now))
            for quota, room, counter in zip(quotas, look.rooms, look.counters, strict=True)
        ]
        return LimitDecision(tuple(standings), look.refused, look.wait, hold)

    def _counters(self, owner: Owner, quotas: Sequence[Quota], now: float) -> list[_Counter]:
        """Return the counters of an owner's quotas, new ones included."""
        tenant, name = owner
        held = self._owners.get(tenant, name)
        if held is None:
            held = self._owners.add(tenant, name, {}, lambda other: not any(one.used(now) for one in other.values()))
        counters: list[_Counter] = []
        for quota in quotas:
            counter = held.get(quota.key)
            if counter is None:
                counter = held[quota.key] = _WindowCount(quota.window) if quota.window else _Leases()
            counters.append(counter)
        return counters
