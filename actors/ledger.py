"""The ledger of one process: what accounts have spent, in memory."""

import datetime as dt
import time
from collections.abc import Callable
from decimal import Decimal
from itertools import count
from typing import Final

from protocol.budgets import Account, Budget
from protocol.errors import BudgetExceeded, Overloaded
from protocol.ledger import NOTHING_USD, PERIODS, Ledger, Reservation, Spend, Standing, Window, window

MAX_ACCOUNTS: Final = 100_000


class _Page:
    """What one account has spent, and holds, in one window."""

    __slots__ = ("held", "reserved_tokens", "reserved_usd", "tokens", "unpriced_tokens", "usd")

    def __init__(self) -> None:
        self.tokens = self.unpriced_tokens = self.reserved_tokens = self.held = 0
        self.usd = self.reserved_usd = NOTHING_USD

    def full(self, budget: Budget, worst: Spend) -> bool:
        """Whether ``worst`` would pass the budget."""
        if budget.tokens is not None and self.tokens + self.reserved_tokens + worst.tokens > budget.tokens:
            return True
        return budget.usd is not None and self.usd + self.reserved_usd + (worst.usd or NOTHING_USD) > budget.usd


class MemoryLedger(Ledger):
    """Keeps the present windows, and older ones as long as a call that was reserved in them is under way.

    No method waits, so checking and holding are one step for all tasks of the loop.

    Args:
        now: the time, in Unix seconds.
        max_accounts: the most accounts that are kept at once.
    """

    def __init__(self, now: Callable[[], float] = time.time, *, max_accounts: int = MAX_ACCOUNTS) -> None:
        self._now = now
        self._max_pages = max_accounts * len(PERIODS)
        self._pages: dict[tuple[str, Window], _Page] = {}
        self._open: set[int] = set()
        self._ids = count(1)
        self._windows: tuple[Window, ...] = ()
        self._until = float("-inf")

    async def reserve(self, account: Account, worst: Spend) -> Reservation:  # noqa: D102 - the contract is the protocol's
        windows = self._present()
        pages = {page_window.per: self._page(account.name, page_window) for page_window in windows}
        for budget in account.budgets:
            if pages[budget.per].full(budget, worst):
                raise _exceeded(budget, next(one for one in windows if one.per == budget.per))
        for page in pages.values():
            page.held += 1
            page.reserved_tokens += worst.tokens
            page.reserved_usd += worst.usd or NOTHING_USD
        reservation = Reservation(account.name, windows, worst, next(self._ids))
        self._open.add(reservation.id)
        return reservation

    async def settle(self, reservation: Reservation, actual: Spend) -> None:  # noqa: D102 - as above
        if reservation.id not in self._open:
            return
        self._open.discard(reservation.id)
        worst = reservation.worst
        for page_window in reservation.windows:
            page = self._pages[reservation.account, page_window]
            page.held -= 1
            page.reserved_tokens -= worst.tokens
            page.reserved_usd -= worst.usd or NOTHING_USD
            page.tokens += actual.tokens
            page.usd += actual.usd or NOTHING_USD
            page.unpriced_tokens += actual.tokens if actual.usd is None else 0

    async def spent(self, account: Account) -> tuple[Standing, ...]:  # noqa: D102 - as above
        return tuple(self._standing(account, page_window) for page_window in self._present())

    def _present(self) -> tuple[Window, ...]:
        """Return the windows of now. With a new day those that are over go, but for what is still held in them."""
        now = self._now()
        if now >= self._until:
            moment = dt.datetime.fromtimestamp(now, dt.UTC)
            self._windows = tuple(window(per, moment) for per in PERIODS)
            self._until = min(one.ends for one in self._windows).timestamp()
            self._forget()
        return self._windows

    def _forget(self) -> None:
        kept = {key: page for key, page in self._pages.items() if page.held or key[1] in self._windows}
        self._pages = kept

    def _page(self, name: str, page_window: Window) -> _Page:
        key = name, page_window
        page = self._pages.get(key)
        if page is None:
            if len(self._pages) >= self._max_pages:
                raise Overloaded("the ledger can keep no further account")
            page = self._pages[key] = _Page()
        return page

    def _standing(self, account: Account, page_window: Window) -> Standing:
        page = self._pages.get((account.name, page_window)) or _Page()
        budgets = [budget for budget in account.budgets if budget.per == page_window.per]
        return Standing(
            per=page_window.per,
            begins=page_window.begins,
            ends=page_window.ends,
            tokens=page.tokens,
            usd=page.usd,
            unpriced_tokens=page.unpriced_tokens,
            reserved_tokens=page.reserved_tokens,
            reserved_usd=page.reserved_usd,
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
