"""In-memory ledger of what accounts spend, for one process."""

import datetime as dt
import time
from collections.abc import Callable
from decimal import Decimal
from itertools import count
from typing import Final

from protocol.budgets import Account, Budget
from protocol.errors import BudgetExceeded, Overloaded
from protocol.ledger import PERIODS, ZERO_USD, Ledger, Reservation, Spend, Standing, Window, window

MAX_ACCOUNTS: Final = 100_000


class _Totals:
    """The totals of one account in one window: spent, and held."""

    __slots__ = ("reserved_tokens", "reserved_usd", "tokens", "unpriced_tokens", "usd")

    def __init__(self) -> None:
        self.tokens = self.unpriced_tokens = self.reserved_tokens = 0
        self.usd = self.reserved_usd = ZERO_USD

    def full(self, budget: Budget, worst: Spend) -> bool:
        """Whether ``worst`` would exceed the budget."""
        if budget.tokens is not None and self.tokens + self.reserved_tokens + worst.tokens > budget.tokens:
            return True
        return budget.usd is not None and self.usd + self.reserved_usd + (worst.usd or ZERO_USD) > budget.usd

    def hold(self, worst: Spend) -> None:
        """Hold room."""
        self.reserved_tokens += worst.tokens
        if worst.usd:
            self.reserved_usd += worst.usd

    def settle(self, worst: Spend, actual: Spend) -> None:
        """Release what was held, and count what was spent. The totals never fall."""
        tokens = max(0, actual.tokens)
        self.reserved_tokens -= worst.tokens
        self.tokens += tokens
        if worst.usd:
            self.reserved_usd -= worst.usd
        if actual.usd is None:
            self.unpriced_tokens += tokens
        elif actual.usd > 0:
            self.usd += actual.usd


class _WindowTotals:
    """One window, and the totals of all accounts in it."""

    __slots__ = ("accounts", "window")

    def __init__(self, of: Window) -> None:
        self.window = of
        self.accounts: dict[str, _Totals] = {}


class MemoryLedger(Ledger):
    """Counts in the current windows. A window that is over is forgotten once its reservations are settled.

    No method waits, so checking and holding are one step for all tasks of the loop.

    Args:
        now: the time, in Unix seconds.
        max_accounts: the most accounts in a window.
    """

    def __init__(self, now: Callable[[], float] = time.time, *, max_accounts: int = MAX_ACCOUNTS) -> None:
        self._now = now
        self._max_accounts = max_accounts
        self._current: tuple[_WindowTotals, ...] = ()
        self._windows: tuple[Window, ...] = ()
        self._until = float("-inf")
        self._open: dict[int, tuple[_Totals, ...]] = {}
        self._ids = count(1)

    async def reserve(self, account: Account, worst: Spend) -> Reservation:  # noqa: D102 - the contract is the protocol's
        totals = tuple(self._totals(account.name, current) for current in self._roll())
        for budget in account.budgets:
            place = PERIODS.index(budget.per)
            if totals[place].full(budget, worst):
                raise _exceeded(budget, self._windows[place])
        for one in totals:
            one.hold(worst)
        reservation = Reservation(account.name, self._windows, worst, next(self._ids))
        self._open[reservation.id] = totals
        return reservation

    async def settle(self, reservation: Reservation, actual: Spend) -> None:  # noqa: D102 - as above
        for totals in self._open.pop(reservation.id, ()):
            totals.settle(reservation.worst, actual)

    async def spent(self, account: Account) -> tuple[Standing, ...]:  # noqa: D102 - as above
        return tuple(_standing(account, current) for current in self._roll())

    def _roll(self) -> tuple[_WindowTotals, ...]:
        """Return the totals of the current window of each of ``PERIODS``; begin new windows where old ones are over."""
        now = self._now()
        if now >= self._until:
            moment = dt.datetime.fromtimestamp(now, dt.UTC)
            known = {current.window: current for current in self._current}
            self._windows = tuple(window(per, moment) for per in PERIODS)
            self._current = tuple(known.get(one) or _WindowTotals(one) for one in self._windows)
            self._until = min(one.ends for one in self._windows).timestamp()
        return self._current

    def _totals(self, name: str, current: _WindowTotals) -> _Totals:
        totals = current.accounts.get(name)
        if totals is None:
            if len(current.accounts) >= self._max_accounts:
                raise Overloaded("the ledger can keep no further account")
            totals = current.accounts[name] = _Totals()
        return totals


def _standing(account: Account, current: _WindowTotals) -> Standing:
    totals = current.accounts.get(account.name) or _Totals()
    budgets = [budget for budget in account.budgets if budget.per == current.window.per]
    return Standing(
        per=current.window.per,
        begins=current.window.begins,
        ends=current.window.ends,
        tokens=totals.tokens,
        usd=totals.usd,
        unpriced_tokens=totals.unpriced_tokens,
        reserved_tokens=totals.reserved_tokens,
        reserved_usd=totals.reserved_usd,
        max_tokens=min((budget.tokens for budget in budgets if budget.tokens is not None), default=None),
        max_usd=min((budget.usd for budget in budgets if budget.usd is not None), default=None),
    )


def _exceeded(budget: Budget, full: Window) -> BudgetExceeded:
    limits = [f"{_plain(budget.usd)} USD"] if budget.usd is not None else []
    limits += [f"{budget.tokens} tokens"] if budget.tokens is not None else []
    until = full.ends.strftime("%Y-%m-%dT%H:%M:%SZ")
    return BudgetExceeded(f"the budget of {' and '.join(limits)} a {full.per} has no room for this call until {until}")


def _plain(amount: Decimal) -> str:
    return f"{amount:f}"
