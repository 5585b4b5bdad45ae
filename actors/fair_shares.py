"""Fair shares of a bounded table: how much each tenant holds, and which tenant has to give room."""

from collections.abc import Collection, Container, Iterable
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, Literal

MAX_TENANTS: Final = 64  # tenants that each have a floor of a bound
STRANGERS: Final = "*"  # the one tenant of all unauthenticated callers; no configured tenant can have this name
SPARE_HEAP: Final = 64  # entries of the heap, beside four for each tenant, before it is made anew

Rule = Literal["evict", "reserve", "split"]


class Tenants:
    """The tenants of a service, for all its tables.

    Args:
        limit: how many tenants have a floor of each bound; at least 1.
        named: the tenants that exist now: those of the keys.
        open: whether there may be others: those that tokens name, and callers that have not authenticated yet.

    Attributes:
        version: counts the changes of ``named``.
    """

    __slots__ = ("limit", "named", "open", "version")

    def __init__(self, limit: int = MAX_TENANTS, *, named: Iterable[str] = (), open: bool = True) -> None:  # noqa: A002 - the field's word
        if limit < 1:
            raise ValueError(f"limit must be positive, got {limit}")
        self.limit = limit
        self.named = frozenset(named)
        self.open = open
        self.version = 0

    def replace(self, named: Iterable[str]) -> None:
        """Replace the tenants that exist; every table follows at its next ``take``."""
        self.named = frozenset(named)
        self.version += 1


class FairShares:
    """Counts what each tenant holds of a bounded table: rows, or an amount such as bytes.

    The floor of each tenant is guaranteed. Above it a tenant borrows free room. ``take`` counts an amount, or returns
    False where there is no room. What follows then depends on the table, which chooses a rule:

    ``evict``
        Rows can be taken back, so a tenant may borrow all of the table. Where ``take`` returns False, the table evicts
        the oldest row of ``furthest_above``, gives it back, and takes again; it refuses where there is none::

            while not shares.take(tenant, size):
                victim = shares.furthest_above(tenant, size)
                if victim is None:
                    raise Overloaded(...)
                self._evict_oldest(victim)  # which calls give_back(victim, size of that row)

        The floor is ``bound / tenants``. While no more tenants than that hold something, the one that has to give room
        is above its floor, and a tenant below its own always gets room. More tenants share evenly.
    ``reserve``
        Rows can't be taken back. A tenant above its floor leaves free what named tenants, and those that hold
        something, have left of their floors, and one more floor where unnamed tenants may come; never more than half of
        the bound. Where more than half as many tenants are named, the floor is the half divided by them, so that half
        of the bound can always be borrowed. The floor of named tenants is guaranteed.
    ``split``
        Rows stay for long. The floor is the bound divided by the tenants that exist (one tenant has all), and nobody
        borrows.

    Memory: a number for each tenant that holds something, and a heap of at most a few entries for each, once a victim
    has been looked for. ``take`` and ``give_back`` need O(log n) time, ``furthest_above`` too, amortised.

    Args:
        bound: the most that all tenants hold together; not negative.
        tenants: how many tenants have a floor, or the tenants of the service.
        rule: as above.

    Attributes:
        bound: as above.
        total: what all tenants hold together.
    """

    __slots__ = (
        "_floor",
        "_guests",
        "_heap",
        "_held",
        "_named",
        "_rule",
        "_short",
        "_tenants",
        "_version",
        "bound",
        "total",
    )

    def __init__(self, bound: int, tenants: int | Tenants = MAX_TENANTS, *, rule: Rule = "evict") -> None:
        if bound < 0:
            raise ValueError(f"bound must not be negative, got {bound}")
        self.bound = bound
        self.total = 0
        self._tenants = tenants if isinstance(tenants, Tenants) else Tenants(tenants)
        self._rule: Rule = rule
        self._held: dict[str, int] = {}
        self._heap: list[tuple[int, str]] | None = None  # made when a victim is looked for; entries may be too large
        self._named: frozenset[str] = frozenset()
        self._version = -1
        self._floor = 0
        self._guests = 0  # tenants that hold something and are not named
        self._short = [0, 0]  # what is left of the floors of guests, and of named tenants; only for "reserve"
        self._follow_tenants()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def floor(self) -> int:
        """What each tenant is guaranteed."""
        if self._version != self._tenants.version:
            self._follow_tenants()
        if self._rule != "split":
            return self._floor
        return self.bound // max(1, len(self._named) + self._guests + self._tenants.open)

    def held(self, tenant: str) -> int:
        """Return what ``tenant`` holds."""
        return self._held.get(tenant, 0)

    def take(self, tenant: str, amount: int = 1) -> bool:
        """Count ``amount`` for ``tenant``; False, and nothing is counted, where there is no room for it.

        Raises:
            ValueError: the amount is negative.
        """
        if amount < 0:
            raise ValueError(f"amount must not be negative, got {amount}")
        held = self._held.get(tenant, 0)
        total = self.total + amount
        if total > self.bound or (self._rule != "evict" and not self._leaves_room(tenant, held, amount)):
            return False
        if held + amount:
            self._set(tenant, held, held + amount)
            self.total = total
        return True

    def give_back(self, tenant: str, amount: int = 1) -> None:
        """Count ``amount`` less for ``tenant``; one that holds nothing is forgotten.

        Raises:
            ValueError: the tenant holds less, or the amount is negative.
        """
        held = self._held.get(tenant, 0)
        if not 0 <= amount <= held:
            raise ValueError(f"{tenant!r} holds {held}, and can't give back {amount}")
        if amount:
            self._set(tenant, held, held - amount)
            self.total -= amount

    def furthest_above(self, tenant: str, amount: int = 1, *, among: Container[str] | None = None) -> str | None:
        """Return the tenant that has to give room, so that ``tenant`` can take ``amount``; None where nobody has to.

        It is the tenant that would hold the most: ``tenant`` itself, if no other holds more than it would then. Where
        ``tenant`` holds nothing that it could give, it is the largest other one above its floor.

        Args:
            tenant: wants to take ``amount``.
            amount: what it wants to take.
            among: the tenants that have something to give; None for all that hold something.
        """
        if amount > self.bound:
            return None
        own = self._held.get(tenant, 0)
        most, largest = self._largest(tenant, among)
        if most > own + amount:
            return largest
        if own and (among is None or tenant in among):
            return tenant
        return largest if most > self.floor else None

    def _set(self, tenant: str, held: int, after: int) -> None:
        if not held or not after:
            self._guests += (tenant not in self._named) * (1 if after else -1)
        if self._rule == "reserve":
            self._short[tenant in self._named] += self._left(tenant, after) - self._left(tenant, held)
        if after:
            self._held[tenant] = after
        else:
            del self._held[tenant]
        if self._heap is not None and after > held:
            if len(self._heap) > 4 * len(self._held) + SPARE_HEAP:
                self._heap = None
            else:
                heappush(self._heap, (-after, tenant))

    def _left(self, tenant: str, held: int) -> int:
        """Return what is left of the floor of a tenant that holds ``held``; a guest that holds nothing has none."""
        return max(0, self._floor - held) if held or tenant in self._named else 0

    def _leaves_room(self, tenant: str, held: int, amount: int) -> bool:
        after = held + amount
        if self._version != self._tenants.version:
            self._follow_tenants()
        if self._rule == "split":
            newcomer = not held and tenant not in self._named and not self._tenants.open
            return after <= self.bound // max(1, len(self._named) + self._guests + self._tenants.open + newcomer)
        free = self.bound - self.total - amount
        guests, named = self._short
        own = self._left(tenant, held)
        if tenant in self._named:
            named -= own
        else:
            guests -= own
        if after <= self._floor:
            return free >= named
        return free >= max(named, min(named + guests + self._tenants.open * self._floor, self.bound // 2))

    def _largest(self, tenant: str, among: Container[str] | None) -> tuple[int, str | None]:
        """Return the most that another tenant among those holds, and its name."""
        heap = self._heap
        if heap is None:
            heap = self._heap = [(-held, other) for other, held in self._held.items()]
            heapify(heap)
        passed: list[tuple[int, str]] = []
        found: tuple[int, str | None] = (0, None)
        while heap:
            held, other = heap[0]
            now = self._held.get(other, 0)
            if not now or now > -held or (passed and passed[-1] == heap[0]):
                heappop(heap)  # forgotten, or there is a larger entry of the same tenant, or the same one twice
            elif now < -held:
                heapreplace(heap, (-now, other))
            elif other == tenant or not (among is None or other in among):
                passed.append(heappop(heap))
            else:
                found = (now, other)
                break
        for entry in passed:
            heappush(heap, entry)
        return found

    def _follow_tenants(self) -> None:
        """Count anew what depends on the tenants that exist."""
        tenants = self._tenants
        self._version, self._named = tenants.version, tenants.named
        named = len(self._named)
        self._floor = self.bound // max(tenants.limit, named * (2 if self._rule == "reserve" else 1))
        known: Collection[str] = self._held.keys() | self._named
        self._guests = len(known) - named
        if self._rule == "reserve":
            self._short = [0, 0]
            for tenant in known:
                self._short[tenant in self._named] += self._left(tenant, self.held(tenant))
