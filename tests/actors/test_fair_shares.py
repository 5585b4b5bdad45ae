"""Fair shares of a bounded table: floors, borrowing, and who gives room."""

from collections import Counter, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.fair_shares import SPARE_HEAP, FairShares, Tenants

NAMES = [f"tenant-{number}" for number in range(9)]
AMOUNTS = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(-12, 12)), max_size=200)


class Table:
    """A table of rows of one unit that evicts, and the model of what each tenant holds."""

    def __init__(self, bound: int, tenants: int) -> None:
        self.shares = FairShares(bound, tenants)
        self.rows: dict[str, deque[int]] = {}
        self.evicted: list[tuple[str, int]] = []  # whose row, and what its tenant held before

    def add(self, tenant: str, row: int) -> bool:
        """Add a row as the docstring of ``FairShares`` says."""
        while not self.shares.take(tenant):
            victim = self.shares.furthest_above(tenant)
            if victim is None:
                return False
            self.evicted.append((victim, len(self.rows[victim])))
            self.remove(victim)
        self.rows.setdefault(tenant, deque()).append(row)
        return True

    def remove(self, tenant: str) -> None:
        """Remove the oldest row of a tenant that has one."""
        self.rows[tenant].popleft()
        if not self.rows[tenant]:
            del self.rows[tenant]
        self.shares.give_back(tenant)


def test_a_tenant_alone_has_all_and_replaces_its_own_oldest() -> None:
    """A tenant alone has the whole table; its next row replaces its oldest."""
    table = Table(100, 10)
    assert all(table.add("a", row) for row in range(150))
    assert list(table.rows["a"]) == list(range(50, 150))


def test_what_is_borrowed_is_taken_back_from_whoever_is_furthest_above() -> None:
    """A full table: those below their floor get room, from the largest holder and from its oldest rows."""
    table = Table(100, 10)
    for tenant, rows in (("large", 70), ("middle", 30)):
        for row in range(rows):
            table.add(tenant, row)
    assert all(table.add("small", row) for row in range(10))
    assert len(table.rows["large"]) == 60
    assert table.rows["large"][0] == 10
    assert len(table.rows["middle"]) == 30


@given(AMOUNTS, st.integers(0, 40), st.integers(1, 12))
def test_nobody_is_evicted_below_its_floor_and_nobody_below_it_is_refused(
    steps: list[tuple[str, int]], bound: int, tenants: int
) -> None:
    """While no more tenants than have a floor hold something: room below the floor is always had, and never lost."""
    table = Table(bound, tenants)
    for number, (tenant, change) in enumerate(steps):
        if change <= 0:
            if tenant in table.rows:
                table.remove(tenant)
        else:
            held, holding = table.shares.held(tenant), len(table.rows.keys() | {tenant})
            before = len(table.evicted)
            added = table.add(tenant, number)
            if holding <= tenants:
                assert added or held >= table.shares.floor
                assert all(rows > table.shares.floor or name == tenant for name, rows in table.evicted[before:])
        assert table.shares.total == sum(map(len, table.rows.values())) <= bound
        assert {name: table.shares.held(name) for name in NAMES} == {n: len(table.rows.get(n, ())) for n in NAMES}
        assert len(table.shares) == len(table.rows)


@given(AMOUNTS, st.integers(1, 60))
def test_the_victim_is_the_largest(steps: list[tuple[str, int]], bound: int) -> None:
    """Among any tenants the largest is found, as a search through all of them finds it."""
    shares, model, among = FairShares(bound, 4), Counter[str](), set(NAMES[::2])
    for tenant, change in steps:
        if change >= 0:
            took = shares.take(tenant, change)
            assert took == (model.total() + change <= bound)
            model[tenant] += change * took
        else:
            amount = min(-change, model[tenant])
            shares.give_back(tenant, amount)
            model[tenant] -= amount
        for asked in (NAMES[0], NAMES[1]):
            others = [count for name, count in model.items() if name != asked and name in among]
            victim = shares.furthest_above(asked, 1, among=among)
            if victim is not None and victim != asked:
                assert model[victim] == max(others)
            elif max(others, default=0) > max(model[asked] + 1, shares.floor):
                assert victim is not None
                assert victim != asked


@given(AMOUNTS, st.integers(0, 60), st.sets(st.sampled_from(NAMES)), st.integers(1, 12), st.booleans())
def test_a_borrower_leaves_the_room_that_is_guaranteed(
    steps: list[tuple[str, int]],
    bound: int,
    named: set[str],
    limit: int,
    open: bool,  # noqa: A002 - as the parameter is called
) -> None:
    """Rows that can't be taken back: a named tenant has room up to its floor, whatever others have taken before."""
    shares, model = FairShares(bound, Tenants(limit, named=named, open=open), rule="reserve"), Counter[str]()
    for tenant, change in steps:
        if change >= 0:
            took = shares.take(tenant, change)
            if tenant in named and model[tenant] + change <= shares.floor:
                assert took
            model[tenant] += change * took
        else:
            amount = min(-change, model[tenant])
            shares.give_back(tenant, amount)
            model[tenant] -= amount
        assert model.total() == shares.total <= bound
        assert bound - shares.total >= sum(max(0, shares.floor - model[name]) for name in named)


@pytest.mark.parametrize(("named", "usable"), [(1, 1000), (2, 985), (4, 955), (32, 535), (100, 505)])
def test_half_of_what_cannot_be_taken_back_can_always_be_borrowed(named: int, usable: int) -> None:
    """One tenant has all; with many named ones, which are idle, each can still have half."""
    tenants = Tenants(named=[f"t{number}" for number in range(named)], open=False)
    shares = FairShares(1000, tenants, rule="reserve")
    took = sum(shares.take("t0") for _ in range(1100))
    assert took == usable
    assert all(shares.take(f"t{number}", shares.floor) for number in range(1, named))


def test_one_floor_is_left_for_a_tenant_that_nobody_has_named() -> None:
    """Where tokens name tenants, a borrower leaves a floor for the next one."""
    shares = FairShares(6400, rule="reserve")
    assert sum(shares.take("first") for _ in range(7000)) == 6300
    assert sum(shares.take("second") for _ in range(7000)) == 100
    assert not shares.take("third")
    shares.give_back("first", 200)
    assert sum(shares.take("third") for _ in range(7000)) == 100


def test_what_is_split_is_shared_evenly_by_those_that_exist() -> None:
    """One tenant has all; the second one's half is left, and counts from when it is named."""
    tenants = Tenants(named=["a"], open=False)
    shares = FairShares(100, tenants, rule="split")
    assert shares.floor == 100
    assert shares.take("a", 60)
    tenants.replace(["a", "b"])
    assert shares.floor == 50
    assert not shares.take("a")
    assert shares.take("b", 40)
    assert not shares.take("b", 11)


def test_a_table_that_is_split_has_room_for_a_tenant_of_a_token() -> None:
    """An unnamed tenant counts as existing before it comes, and while it holds something."""
    shares = FairShares(100, Tenants(named=["a"]), rule="split")
    assert not shares.take("a", 51)
    assert shares.take("a", 50)
    assert shares.take("b", 33)
    assert not shares.take("b", 1)
    shares.give_back("b", 33)
    assert shares.floor == 50


def test_amounts_larger_than_the_table_evict_nobody() -> None:
    """What can't fit at all names no victim."""
    shares = FairShares(10, 2)
    shares.take("a", 10)
    assert shares.furthest_above("b", 11) is None
    assert not shares.take("b", 11)


def test_what_a_newcomer_wants_beyond_its_floor_evicts_nobody_within_theirs() -> None:
    """A tenant without anything to give takes no more than what others have borrowed."""
    shares = FairShares(10, 2)
    shares.take("a", 5)
    assert shares.furthest_above("b", 6) is None
    shares.take("a", 1)
    assert shares.furthest_above("b", 6) == "a"


def test_memory_is_bounded_by_those_that_hold_something() -> None:
    """A tenant that holds nothing is forgotten, and the heap of the largest stays small."""
    shares = FairShares(1000, 4)
    for number in range(5000):
        shares.take(f"t{number}", 10)
        shares.furthest_above("x")
        shares.give_back(f"t{number}", 10)
        shares.take("y")
        shares.give_back("y")
    assert len(shares) == 0
    assert len(shares._heap or ()) <= SPARE_HEAP + 8


def test_what_was_not_taken_cannot_be_given_back() -> None:
    """A table that counts wrongly is told so."""
    shares = FairShares(10)
    shares.take("a", 3)
    for tenant, amount in (("a", 4), ("b", 1), ("a", -1)):
        with pytest.raises(ValueError, match="can't give back"):
            shares.give_back(tenant, amount)
    with pytest.raises(ValueError, match="negative"):
        shares.take("a", -1)
    with pytest.raises(ValueError, match="bound"):
        FairShares(-1)
    with pytest.raises(ValueError, match="limit"):
        FairShares(1, 0)
