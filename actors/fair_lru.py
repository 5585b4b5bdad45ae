"""Least recently used cache whose bounds are shared by tenants."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from actors.fair_shares import FairShares, Tenants

K = TypeVar("K")
V = TypeVar("V")


class FairLru(Generic[K, V]):
    """Values by tenant and key, bounded in bytes and in number.

    At a bound the tenant that is furthest above its floor loses its least recently used value.

    Args:
        size_of: returns the bytes of a value. It must not change.
        max_bytes: the most bytes.
        max_entries: the most values; None for as many as there is room for.
        tenants: share both bounds; None for any tenants.
    """

    __slots__ = ("_bytes", "_entries", "_size_of", "_values")

    def __init__(
        self,
        size_of: Callable[[V], int],
        *,
        max_bytes: int,
        max_entries: int | None = None,
        tenants: Tenants | None = None,
    ) -> None:
        tenants = tenants or Tenants()
        self._size_of = size_of
        self._bytes = FairShares(max_bytes, tenants)
        self._entries = FairShares(max_bytes if max_entries is None else max_entries, tenants)
        self._values: dict[str, OrderedDict[K, V]] = {}

    def __len__(self) -> int:
        return self._entries.total

    @property
    def size(self) -> int:
        """The bytes of all values."""
        return self._bytes.total

    def get(self, tenant: str, key: K) -> V | None:
        """Return a value, which is then the most recently used one of its tenant; None where there is none."""
        values = self._values.get(tenant)
        if values is None or key not in values:
            return None
        values.move_to_end(key)
        return values[key]

    def put(self, tenant: str, key: K, value: V) -> int | None:
        """Add a value in the place of the one with its key; return how many others were evicted.

        It is not added, and None is returned, where it is larger than what its tenant may take.
        """
        self.pop(tenant, key)
        size, evicted = self._size_of(value), 0
        while not self._bytes.take(tenant, size):
            if not self._evict(self._bytes, tenant, size):
                return None
            evicted += 1
        while not self._entries.take(tenant):
            if not self._evict(self._entries, tenant, 1):
                self._bytes.give_back(tenant, size)
                return None
            evicted += 1
        values = self._values.get(tenant)
        if values is None:
            values = self._values[tenant] = OrderedDict()
        values[key] = value
        return evicted

    def _evict(self, shares: FairShares, tenant: str, amount: int) -> bool:
        victim = shares.furthest_above(tenant, amount, among=self._values)
        if victim is not None:
            self.pop(victim, next(iter(self._values[victim])))
        return victim is not None

    def pop(self, tenant: str, key: K) -> V | None:
        """Remove a value and return it; None where there is none."""
        values = self._values.get(tenant)
        if values is None or key not in values:
            return None
        value = values.pop(key)
        if not values:
            del self._values[tenant]
        self._bytes.give_back(tenant, self._size_of(value))
        self._entries.give_back(tenant)
        return value

    def items(self) -> Iterator[tuple[str, K, V]]:
        """Yield each value with its tenant and its key."""
        return ((tenant, key, value) for tenant, values in self._values.items() for key, value in values.items())
