"""The ledger of one process: what accounts have spent, in memory."""

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


class _Page:
    """What one account has spent, and holds, in one window."""

    __slots__ = ("reserved_tokens", "reserved_usd", "tokens", "unpriced_tokens", "usd")

    def __init__(self) -> None:
        self.tokens = self.unpriced_tokens = self.reserved_tokens = 0
        self.usd = self.reserved_usd = ZERO_USD

    def full(self, budget: Budget, worst: Spend) -> bool:
        """Whether ``worst`` would pass the budget."""
        if budget.tokens is not None and self.tokens + self.reserved_tokens + worst.tokens > budget.tokens:
            return True
        return budget.usd is not None and self.usd + self.reserved_usd + (worst.usd or ZERO_USD) > budget.usd

    def hold(self, worst: Spend) -> None:
        """Hold room."""
        self.reserved_tokens += worst.tokens
        if worst.usd:
            self.reserved_usd += worst.usd

    def settle(self, worst: Spend, actual: Spend) -> None:
        """Let go of what was held, and count what was spent."""
        self.reserved_tokens -= worst.tokens
        self.tokens += actual.tokens
        if worst.usd:
            self.reserved_usd -= worst.usd
        if actual.usd:
            self.usd += actual.usd
        elif actual.usd is None:
            self.unpriced_tokens += actual.tokens


class _Book:
    """One window, and the pages of all accounts in it."""

    __slots__ = ("pages", "window")

    def __init__(self, of: Window) -> None:
        self.window = of
        self.pages: dict[str, _Page] = {}


class MemoryLedger(Ledger):
    """Keeps the present windows. One that is over is forgotten, but for the calls that were reserved in it.

    No method waits, so checking and holding are one step for all tasks of the loop.

    Args:
        now: the time, in Unix seconds.
        max_accounts: the most accounts that are kept at once.
    """

    def __init__(self, now: Callable[[], float] = time.time, *, max_accounts: int = MAX_ACCOUNTS) -> None:
        self._now = now
        self._max_accounts = max_accounts
        self._books: tuple[_Book, ...] = ()
        self._windows: tuple[Window, ...] = ()
        self._until = float("-inf")
        self._open: dict[int, tuple[_Page, ...]] = {}
        self._ids = count(1)

    async def reserve(self, account: Account, worst: Spend) -> Reservation:  # noqa: D102 - the contract is the protocol's
        pages = tuple(self._page(account.name, book) for book in self._present())
        for budget in account.budgets:
            place = PERIODS.index(budget.per)
            if pages[place].full(budget, worst):
                raise _exceeded(budget, self._windows[place])
        for page in pages:
            page.hold(worst)
        reservation = Reservation(account.name, self._windows, worst, next(self._ids))
        self._open[reservation.id] = pages
        return reservation

    async def settle(self, reservation: Reservation, actual: Spend) -> None:  # noqa: D102 - as above
        for page in self._open.pop(reservation.id, ()):
            page.settle(reservation.worst, actual)

    async def spent(self, account: Account) -> tuple[Standing, ...]:  # noqa: D102 - as above
        return tuple(_standing(account, book) for book in self._present())

    def _present(self) -> tuple[_Book, ...]:
        """Return a book for each of ``PERIODS``: those of the windows that now is in."""
        now = self._now()
        if now >= self._until:
            moment = dt.datetime.fromtimestamp(now, dt.UTC)
            kept = {book.window: book for book in self._books}
            self._windows = tuple(window(per, moment) for per in PERIODS)
            self._books = tuple(kept.get(one) or _Book(one) for one in self._windows)
            self._until = min(one.ends for one in self._windows).timestamp()
        return self._books

    def _page(self, name: str, book: _Book) -> _Page:
        page = book.pages.get(name)
        if page is None:
            if len(book.pages) >= self._max_accounts:
                raise Overloaded("the ledger can keep no further account")
            page = book.pages[name] = _Page()
        return page


def _standing(account: Account, book: _Book) -> Standing:
    page = book.pages.get(account.name) or _Page()
    budgets = [budget for budget in account.budgets if budget.per == book.window.per]
    return Standing(
        per=book.window.per,
        begins=book.window.begins,
        ends=book.window.ends,
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
