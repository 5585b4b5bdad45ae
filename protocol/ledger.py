"""Who has spent how much: reserved before a call, settled after it. Where it is kept is a ``Ledger``'s own business."""

import datetime as dt
from decimal import Decimal
from typing import Final, Protocol

import msgspec

from protocol.budgets import Account, Period

PERIODS: Final[tuple[Period, ...]] = ("day", "month")
ZERO_USD: Final = Decimal(0)


class Spend(msgspec.Struct, frozen=True):
    """Something that is spent.

    Attributes:
        tokens: of input and output together.
        usd: US dollars; None where the price is unknown: it counts no dollars, and its tokens as ``unpriced_tokens``.
    """

    tokens: int = 0
    usd: Decimal | None = ZERO_USD


NO_SPEND: Final = Spend()


class Window(msgspec.Struct, frozen=True):
    """A period of the calendar, in UTC.

    Attributes:
        per: what it is one of.
        begins: its first moment.
        ends: the first moment after it.
    """

    per: Period
    begins: dt.datetime
    ends: dt.datetime


class Standing(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How an account stands in a window.

    Attributes:
        per: ``day`` or ``month``.
        begins: the window's first moment, in UTC.
        ends: the first moment after it: a budget for it begins anew then.
        tokens: what has been spent.
        usd: what has been spent of which the price is known.
        unpriced_tokens: those of ``tokens`` whose price is unknown.
        reserved_tokens: what calls under way may come to.
        reserved_usd: what calls under way may come to.
        max_tokens: the smallest budget for tokens; None for none.
        max_usd: the smallest budget in US dollars; None for none.
    """

    per: Period
    begins: dt.datetime
    ends: dt.datetime
    tokens: int = 0
    usd: Decimal = ZERO_USD
    unpriced_tokens: int = 0
    reserved_tokens: int = 0
    reserved_usd: Decimal = ZERO_USD
    max_tokens: int | None = None
    max_usd: Decimal | None = None


class Reservation(msgspec.Struct, frozen=True):
    """Room that is held for one call, in the windows in which it was made.

    Attributes:
        account: whose it is, by name.
        windows: where it is held, and where the call's actual spending will be kept.
        worst: what is held.
        id: what the ledger knows it by; unique within the ledger.
    """

    account: str
    windows: tuple[Window, ...]
    worst: Spend
    id: int


class Ledger(Protocol):
    """Keeps what accounts spend, by window. Several tasks may use it at once.

    A reservation is a lease: whoever got one settles it, whatever becomes of the call. A ledger that outlives its
    process has to let those of a process that died lapse.
    """

    async def reserve(self, account: Account, worst: Spend) -> Reservation:
        """Hold room for ``worst`` in all the account's budgets, or in none: check and hold are one step.

        Raises:
            BudgetExceeded: a budget has no room for it; nothing is held or counted.
            Overloaded: the ledger can keep no further account.
        """

    async def settle(self, reservation: Reservation, actual: Spend) -> None:
        """Count ``actual`` in the windows of ``reservation``, and hold no more room for it. Again, it does nothing."""

    async def spent(self, account: Account) -> tuple[Standing, ...]:
        """Return how the account stands today and this month."""


def window(per: Period, now: dt.datetime) -> Window:
    """Return the window that ``now``, a time in UTC, is in."""
    begins = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "day":
        return Window(per, begins, begins + dt.timedelta(days=1))
    begins = begins.replace(day=1)
    later = begins + dt.timedelta(days=31)
    return Window(per, begins, later.replace(day=1))
