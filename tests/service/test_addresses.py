"""Places of a bounded number of clients."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.addresses import WALK, Address, AddressTable, Place, address_name

PROXY = ipaddress.ip_network("10.0.0.0/8")


def seat(table: AddressTable[str], owner: str, host: str, *, known: bool = False, rests: bool = True) -> Place[str]:
    """Give a client a place; it rests."""
    place = table.add(owner, table.address_of(host))
    place.known = known
    if rests:
        place.rest()
    return place


def victim(table: AddressTable[str], host: str) -> str | None:
    """Return who would have to leave for a client of ``host``."""
    place = table.victim(table.address_of(host))
    return None if place is None else place.owner


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.1", ""),
        ("::1", ""),
        ("10.1.2.3", ""),
        ("::ffff:10.1.2.3", ""),
        ("", ""),
        ("/run/tidegate.sock", ""),
    ],
)
def test_what_counts_as_one_address(host: str, name: str) -> None:
    """An IPv6 client has a /64 network; a proxy and this machine stand for many clients."""
    assert address_name(host, (PROXY,)) == name


def test_the_longest_rest_of_the_largest_address_ends_first() -> None:
    """Whoever has many places gives up the first one; a call that runs is left alone."""
    table: AddressTable[str] = AddressTable(5, 5)
    seat(table, "alone", "192.0.2.1")
    seat(table, "busy", "192.0.2.2", rests=False)
    first = seat(table, "first", "192.0.2.2")
    seat(table, "second", "192.0.2.2")
    seat(table, "proxied", "127.0.0.1")
    assert table.is_full(table.address_of("192.0.2.3"))
    assert victim(table, "192.0.2.3") == "first"
    first.wake()
    first.rest()
    assert victim(table, "192.0.2.3") == "second"


def test_strangers_go_before_known_clients() -> None:
    """A known client gives up its place only where no stranger rests."""
    table: AddressTable[str] = AddressTable(3, 3)
    seat(table, "known", "192.0.2.1", known=True)
    seat(table, "known too", "192.0.2.1", known=True)
    stranger = seat(table, "stranger", "192.0.2.2")
    assert victim(table, "192.0.2.3") == "stranger"
    table.remove(stranger)
    assert victim(table, "192.0.2.3") == "known"


def test_an_address_at_its_bound_gives_up_its_own() -> None:
    """However much room there is, and nobody else has to leave."""
    table: AddressTable[str] = AddressTable(100, 2)
    seat(table, "other", "192.0.2.1")
    seat(table, "own", "192.0.2.2")
    busy = seat(table, "busy", "192.0.2.2", rests=False)
    assert table.is_full(table.address_of("192.0.2.2"))
    assert not table.is_full(table.address_of("192.0.2.1"))
    assert victim(table, "192.0.2.2") == "own"
    for place in list(table.address_of("192.0.2.2").resting[0]):
        table.remove(place)
    seat(table, "busy too", "192.0.2.2", rests=False)
    assert victim(table, "192.0.2.2") is None
    table.remove(busy)
    assert not table.is_full(table.address_of("192.0.2.2"))


def test_a_proxy_has_no_bound_of_its_own() -> None:
    """Its connections are those of many clients."""
    table: AddressTable[str] = AddressTable(100, 1, (PROXY,))
    for number in range(10):
        seat(table, f"client {number}", f"10.0.0.{number % 2}")
    assert not table.is_full(table.address_of("10.0.0.1"))


class Counting(Address[str]):
    """An address that counts the looks at it."""

    looks = 0

    def __getattribute__(self, name: str) -> object:
        Counting.looks += name == "resting"
        return super().__getattribute__(name)


def test_the_work_for_a_place_is_bounded() -> None:
    """With any number of busy addresses a new client looks at a bounded number, and a later one at others."""
    table: AddressTable[str] = AddressTable(10_000, 10)
    for number in range(10 * WALK):
        table.add("busy", Counting(f"192.0.{number >> 8}.{number & 255}"))
    resting = table.add("resting", Counting("198.51.100.1"))
    resting.rest()
    Counting.looks = 0
    looks, found = 0, None
    while found is None:
        found = victim(table, "203.0.113.1")
        looks += 1
        assert Counting.looks <= looks * 2 * (WALK + 1)
    assert found == "resting"
    assert looks <= 10


@given(
    st.lists(
        st.tuples(st.sampled_from(["open", "close", "rest", "wake", "evict"]), st.integers(0, 5), st.booleans()),
        max_size=80,
    )
)
def test_any_order_of_events_keeps_the_counts(steps: list[tuple[str, int, bool]]) -> None:
    """The table never has more places than its bounds, and nothing is left when all clients have gone."""
    table: AddressTable[str] = AddressTable(6, 3)
    places: list[Place[str]] = []
    for action, number, known in steps:
        host = f"192.0.2.{number}"
        if action == "open":
            address = table.address_of(host)
            if table.is_full(address):
                found = table.victim(address)
                if found is None:
                    continue
                assert found.resting
                table.remove(found)
                places.remove(found)
            places.append(seat(table, host, host, known=known, rests=False))
        elif places:
            place = places[number % len(places)]
            if action == "close":
                table.remove(place)
                places.remove(place)
            elif action == "rest":
                place.rest()
            elif action == "wake":
                place.wake()
        assert table.held == len(places) <= 6
        assert all(place.address.held <= 3 for place in places)
    for place in places:
        table.remove(place)
    assert table.held == 0
    assert table.victim(table.address_of("192.0.2.9")) is None
