"""A bounded table of tenants' rows: what no tenant uses any more makes room, by fair shares."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, Generic, TypeVar

from actors.fair_shares import FairShares

LOOKS: Final = 8  # rows that are looked at for one that is idle

Row = TypeVar("Row")


class TenantTable(Generic[Row]):
    """Rows by tenant and name, each tenant's in the order of their last use.

    Where there is no room for another row, one of the tenant that is furthest above its share is dropped: of those that
    were not used for the longest time the first idle one, else the very first.

    Args:
        most: the most rows of all tenants.
    """

    __slots__ = ("_rows", "_shares")

    def __init__(self, most: int) -> None:
        self._shares = FairShares(most)
        self._rows: dict[str, OrderedDict[str, Row]] = {}

    def __len__(self) -> int:
        return self._shares.total

    def get(self, tenant: str, name: str) -> Row | None:
        """Return a row, which counts as used; None for none."""
        rows = self._rows.get(tenant)
        row = None if rows is None else rows.get(name)
        if rows is not None and row is not None:
            rows.move_to_end(name)
        return row

    def add(self, tenant: str, name: str, row: Row, idle: Callable[[Row], bool]) -> Row:
        """Add a row that is not there yet, and return it.

        Args:
            tenant: whose row.
            name: of the row.
            row: the row.
            idle: whether a row is not needed any more.
        """
        while not self._shares.take(tenant):
            giver = self._shares.furthest_above(tenant)
            if giver is None:
                return row  # the table holds no row at all
            rows = self._rows[giver]
            oldest = tuple(islice(rows.items(), LOOKS))
            self.remove(giver, next((other for other, held in oldest if idle(held)), oldest[0][0]))
        self._rows.setdefault(tenant, OrderedDict())[name] = row
        return row

    def remove(self, tenant: str, name: str) -> bool:
        """Remove a row; returns whether it was there."""
        rows = self._rows.get(tenant)
        if rows is None or rows.pop(name, None) is None:
            return False
        self._shares.give_back(tenant)
        if not rows:
            del self._rows[tenant]
        return True

    def latest(self, tenant: str) -> Iterator[Row]:
        """Yield the rows of a tenant, the one that was used last first."""
        yield from reversed(tuple(self._rows.get(tenant, OrderedDict()).values()))
