"""Budgets: what an account may spend in a day or a month."""

from decimal import Decimal
from typing import Annotated, Literal

import msgspec

Period = Literal["day", "month"]


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A limit of spending within a calendar day or month, in UTC.

    Attributes:
        per: the period.
        usd: US dollars; None for no limit.
        tokens: input and output tokens together; None for no limit.

    Raises:
        ValueError: ``usd`` is negative or not a number.
    """

    per: Period
    usd: Decimal | None = None
    tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None

    def __post_init__(self) -> None:
        if self.usd is not None and not (self.usd.is_finite() and self.usd >= 0):
            raise ValueError("usd must be a number and not negative")


class Account(msgspec.Struct, frozen=True):
    """The account that pays for a call. A call needs room in all of its budgets.

    Attributes:
        name: the key of its spending in the ledger; never empty.
        budgets: its limits; empty for an account whose spending is counted but not limited.
    """

    name: str
    budgets: tuple[Budget, ...] = ()
