"""Limits of spend: what an account may use up in a day or a month."""

from decimal import Decimal
from typing import Annotated, Literal

import msgspec

Period = Literal["day", "month"]


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A limit of spend within a period of the calendar, in UTC.

    Attributes:
        per: the period.
        usd: US dollars; None for any.
        tokens: tokens of input and output together; None for any.

    Raises:
        ValueError: a limit is negative, or no number.
    """

    per: Period
    usd: Decimal | None = None
    tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None

    def __post_init__(self) -> None:
        if self.usd is not None and not (self.usd.is_finite() and self.usd >= 0):
            raise ValueError("usd must be a number and not negative")


class Account(msgspec.Struct, frozen=True):
    """Who pays for a call, and what it may spend. All the budgets have to have room.

    Attributes:
        name: what its spending is kept under; never empty.
        budgets: its limits; none for an account whose spending is only counted.
    """

    name: str
    budgets: tuple[Budget, ...] = ()
