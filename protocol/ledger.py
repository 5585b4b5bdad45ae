"""The ledger port: reserves spending before a call, settles it after. ``actors.ledger`` is the in-process adapter."""

import datetime as dt
from decimal import Decimal
from typing import Annotated, Final, Protocol

import msgspec

from protocol.budgets import Account, Period

PERIODS: Final[tuple[Period, ...]] = ("day", "month")
ZERO_USD: Final = Decimal(0)


class Spend(msgspec.Struct, frozen=True):
    """An amount of spending.

    Attributes:
        tokens: input and output tokens together.
        usd: US dollars; None where the price is unknown: its tokens then count as ``unpriced_tokens`` too.
    """

    tokens: int = 0
    usd: Decimal | None = ZERO_USD


NO_SPEND: Final = Spend()
_Moment = Annotated[dt.datetime, msgspec.Meta(extra_json_schema={"format": "date-time"})]


class Window(msgspec.Struct, frozen=True):
    """A calendar day or month, in UTC.

    Attributes:
        per: ``day`` or ``month``.
        begins: its start.
        ends: its end, which is the start of the next one.
    """

    per: Period
    begins: dt.datetime
    ends: dt.datetime


class Standing(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The spending of an account in a window, and its limits.

    Attributes:
        per: ``day`` or ``month``.
        begins: the start of the window, in UTC.
        ends: the end of the window, in UTC: the budget starts again then.
        tokens: tokens spent.
        usd: US dollars spent, for calls whose price is known.
        unpriced_tokens: the part of ``tokens`` whose price is unknown.
        reserved_tokens: tokens reserved for calls in flight.
        reserved_usd: US dollars reserved for calls in flight.
        max_tokens: the smallest limit of tokens; None for no limit.
        max_usd: the smallest limit of US dollars; None for no limit.
    """

    per: Period
    begins: _Moment
    ends: _Moment
    tokens: int = 0
    usd: Decimal = ZERO_USD
    unpriced_tokens: int = 0
    reserved_tokens: int = 0
    reserved_usd: Decimal = ZERO_USD
    max_tokens: int | None = None
    max_usd: Decimal | None = None


class Reservation(msgspec.Struct, frozen=True):
    """An amount reserved for one call.

    Attributes:
        account: the account's name.
        windows: the windows in which the amount is reserved, and in which the call's spending will be counted.
        worst: the amount: the most that the call can cost.
        id: unique within the ledger.
    """

    account: str
    windows: tuple[Window, ...]
    worst: Spend
    id: int


class Ledger(Protocol):
    """Stores the spending of accounts, by window. Several tasks may use it at once.

    A reservation is a lease: its caller settles it, whatever the call's outcome. A ledger that outlives its process has
    to expire the reservations of processes that died.
    """

    async def reserve(self, account: Account, worst: Spend) -> Reservation:
        """Reserve ``worst`` in all budgets of the account, or in none. Check and reservation are one atomic step.

        Raises:
            BudgetExceeded: a budget has no room; nothing is reserved or counted.
            Overloaded: the ledger can't store another account.
        """

    async def settle(self, reservation: Reservation, actual: Spend) -> None:
        """Count ``actual`` in the reservation's windows, and release the reservation. A second call does nothing.

        Totals never fall: a negative amount counts as 0.
        """

    async def spent(self, account: Account) -> tuple[Standing, ...]:
        """Return the account's spending of today and of this month."""


def window(per: Period, now: dt.datetime) -> Window:
    """Return the window that contains ``now``, a time in UTC."""
    begins = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "day":
        return Window(per, begins, begins + dt.timedelta(days=1))
    begins = begins.replace(day=1)
    later = begins + dt.timedelta(days=31)
    return Window(per, begins, later.replace(day=1))
